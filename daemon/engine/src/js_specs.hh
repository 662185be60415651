// The specifications of engine.ts, read from JavaScript objects. A null or empty result means that an error was thrown.
#pragma once

#include <node_api.h>
#include <memory>

#include "engine.hh"
#include "js_values.hh"

namespace tlspool::js {

std::optional<Options> read_options(napi_env env, napi_value object);
napi_value make_context(napi_env env, napi_value spec);
napi_value make_selector(napi_env env, napi_value spec);
ContextRef context_of(napi_env env, napi_value object);
SelectorRef selector_of(napi_env env, napi_value object);
std::shared_ptr<const Negotiation> read_negotiation(napi_env env, napi_value spec, bool server);
// What `reauthenticate` is told.
std::optional<ReauthTerms> read_reauth_terms(napi_env env, napi_value spec);
// The field `alpn` in the wire format of RFC 7301 section 3.1.
std::string read_alpn(Reader& reader);
// Throws unless chain and key are a usable pair.
bool check_key_pair(napi_env env, napi_value pair);

}  // namespace tlspool::js
