#include "event_maker.hh"

#include "js_values.hh"

namespace tlspool::js {
namespace {

// Peers choose some of the texts (server names, addresses): past this many everything is made anew.
constexpr uint32_t most_kept = 4096;

constexpr std::string_view source = R"js([
  (session, listener, plainfd, waiting, server, tls13, cipher, cipherName, group, alpn, servername, localid, revision, resumed, authorized,
   authorizationError, peerCertificates, localCertificate, remote, local) => ({
    kind: 'established', session, listener, plainfd, waiting, role: server ? 'server' : 'client', protocol: tls13 ? 'TLSv1.3' : 'TLSv1.2',
    cipher, cipherName, group, alpn, servername, localid, revision, resumed, authorized, authorizationError, peerCertificates,
    localCertificate, remote, local }),
  (session, plainfd, how, alert, detail, octetsReceived, octetsSent) =>
    ({ kind: 'closed', session, plainfd, how, alert, detail, octetsReceived, octetsSent }),
  (family, address, port) => ({ family, address, port }),
  (session, plainfd) => ({ kind: 'supplied', session, plainfd }),
])js";

}  // namespace

bool EventMaker::open(napi_env env) {
  env_ = env;
  napi_value makers = nullptr, values = nullptr;
  return napi_run_script(env, make_text(env, source), &makers) == napi_ok && napi_create_reference(env, makers, 1, &makers_) == napi_ok &&
         napi_create_array(env, &values) == napi_ok && napi_create_reference(env, values, 1, &values_) == napi_ok;
}

napi_value EventMaker::make(Kind kind, const napi_value* arguments, size_t count) {
  napi_value makers = nullptr, maker = nullptr, receiver = nullptr, made = nullptr;
  napi_get_reference_value(env_, makers_, &makers);
  napi_get_element(env_, makers, kind, &maker);
  napi_get_undefined(env_, &receiver);
  napi_call_function(env_, receiver, maker, count, arguments, &made);
  return made;
}

napi_value EventMaker::flag(bool value) const {
  napi_value result = nullptr;
  napi_get_boolean(env_, value, &result);
  return result;
}

napi_value EventMaker::kept(uint32_t index) const {
  napi_value values = nullptr, value = nullptr;
  napi_get_reference_value(env_, values_, &values);
  napi_get_element(env_, values, index, &value);
  return value;
}

void EventMaker::keep(uint32_t index, napi_value value) {
  napi_value values = nullptr;
  napi_get_reference_value(env_, values_, &values);
  napi_set_element(env_, values, index, value);
}

void EventMaker::forget() {
  words_.clear();
  certificates_.clear();
  next_ = 0;
}

napi_value EventMaker::word(std::string_view text) {
  std::string key(text);
  if (const auto found = words_.find(key); found != words_.end()) return kept(found->second);
  if (next_ >= most_kept) forget();
  const napi_value value = make_text(env_, text);
  keep(next_, value);
  words_.emplace(std::move(key), next_++);
  return value;
}

napi_value EventMaker::word_unless_empty(std::string_view text) {
  if (!text.empty()) return word(text);
  napi_value nothing = nullptr;
  napi_get_undefined(env_, &nothing);
  return nothing;
}

napi_value EventMaker::endpoint(const Endpoint& endpoint) {
  const char* family = endpoint.family == Endpoint::Family::ipv4 ? "IPv4" : endpoint.family == Endpoint::Family::ipv6 ? "IPv6" : "unix";
  const napi_value arguments[] = {word(family), word(endpoint.address), make_number(env_, endpoint.port)};
  return make(endpoint_of, arguments, 3);
}

napi_value EventMaker::certificate(const std::shared_ptr<const std::string>& der) {
  if (const auto found = certificates_.find(der); found != certificates_.end()) return kept(found->second);
  if (next_ >= most_kept) forget();
  const napi_value value = make_buffer(env_, *der);
  keep(next_, value);
  certificates_.emplace(der, next_++);
  return value;
}

}  // namespace tlspool::js
