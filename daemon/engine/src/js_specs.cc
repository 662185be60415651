#include "js_specs.hh"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/un.h>
#include <cstring>

#include "js_values.hh"

namespace tlspool::js {
namespace {

// So that an object of another kind, or a forged one, is not taken for ours.
constexpr napi_type_tag context_tag = {0x746c73706f6f6c01, 0x636f6e7465787401};
constexpr napi_type_tag selector_tag = {0x746c73706f6f6c01, 0x73656c6563746f72};

template <typename Ref>
napi_value wrap(napi_env env, Ref ref, const napi_type_tag& tag) {
  napi_value object = nullptr;
  auto boxed = std::make_unique<Ref>(std::move(ref));
  const auto finalize = [](napi_env, void* data, void*) { delete static_cast<Ref*>(data); };
  if (napi_create_object(env, &object) != napi_ok || napi_type_tag_object(env, object, &tag) != napi_ok ||
      napi_wrap(env, object, boxed.get(), finalize, nullptr, nullptr) != napi_ok)
    return throw_error(env, "INTERNAL", "an object cannot be made");
  boxed.release();
  return object;
}

template <typename Ref>
Ref unwrap(napi_env env, napi_value object, const napi_type_tag& tag, const char* what) {
  bool tagged = false;
  void* data = nullptr;
  napi_valuetype type = napi_undefined;
  if (object == nullptr || napi_typeof(env, object, &type) != napi_ok || type != napi_object ||
      napi_check_object_type_tag(env, object, &tag, &tagged) != napi_ok || !tagged || napi_unwrap(env, object, &data) != napi_ok) {
    throw_error(env, "BAD_ARGUMENT", std::string(what) + " must be one that this engine made", what);
    return nullptr;
  }
  return *static_cast<Ref*>(data);
}

int read_version(Reader& reader, const char* key) {
  const std::string name = reader.text(key, 16);
  if (name == "TLSv1.3") return TLS1_3_VERSION;
  if (reader.ok() && name != "TLSv1.2") reader.fail(key, "must be TLSv1.2 or TLSv1.3");
  return TLS1_2_VERSION;
}

ClientAuth read_client_auth(Reader& reader, const char* key) {
  const std::string name = reader.text(key, 16);
  if (name == "request") return ClientAuth::request;
  if (name == "require") return ClientAuth::require;
  if (reader.ok() && name != "none") reader.fail(key, "must be none, request or require");
  return ClientAuth::none;
}

// The keys of an object; it throws for anything else, and for a key that `known` does not know: a rule that is overlooked is a rule that fails open.
template <typename Known>
std::vector<std::string> read_keys(napi_env env, Reader& outer, const char* field, napi_value object, Known known) {
  std::vector<std::string> keys;
  napi_valuetype type = napi_undefined;
  bool array = true;
  napi_value names = nullptr;
  uint32_t count = 0;
  if (object == nullptr || napi_typeof(env, object, &type) != napi_ok || type != napi_object || napi_is_array(env, object, &array) != napi_ok ||
      array || napi_get_property_names(env, object, &names) != napi_ok || napi_get_array_length(env, names, &count) != napi_ok) {
    outer.fail(field, "must be an object");
    return keys;
  }
  for (uint32_t i = 0; i < count; ++i) {
    napi_value item = nullptr;
    std::string key;
    if (napi_get_element(env, names, i, &item) != napi_ok || !read_text(env, item, key, 64) || !known(key)) {
      outer.fail(field, "has a key that is not known");
      return {};
    }
    keys.push_back(std::move(key));
  }
  return keys;
}

size_t peer_name_kind_of(const std::string& name) {
  size_t kind = 0;
  while (kind < peer_name_kinds && name != peer_name_kind(kind)) ++kind;
  return kind;
}

void read_peer_rules(napi_env env, Reader& outer, ContextSpec& spec) {
  if (!outer.has("peers")) return;
  const napi_value peers = outer.get("peers");
  Reader reader(env, peers);
  for (const std::string& side : read_keys(env, outer, "peers", peers, [](const std::string& key) { return key == "allow" || key == "deny"; })) {
    const napi_value lists = reader.get(side.c_str());
    Reader list(env, lists);
    PeerRuleList& out = side == "allow" ? spec.allowed_peers : spec.denied_peers;
    for (const std::string& name : read_keys(env, outer, "peers", lists, [](const std::string& key) { return peer_name_kind_of(key) < peer_name_kinds; }))
      out[peer_name_kind_of(name)] = list.texts(name.c_str(), 1000, 2048);
    if (!list.ok() || !reader.ok()) return outer.fail("peers", "has a list that cannot be read");
  }
}

void read_backend(napi_env env, Reader& outer, Negotiation& out) {
  Reader reader(env, outer.get("backend"));
  sockaddr_storage address{};
  if (reader.has("path")) {
    const std::string path = reader.text("path", 107);
    auto& un = reinterpret_cast<sockaddr_un&>(address);
    un.sun_family = AF_UNIX;
    if (reader.ok() && (path.empty() || path.size() >= sizeof un.sun_path)) return outer.fail("backend", "has a path that is empty or over 107 octets");
    memcpy(un.sun_path, path.data(), path.size());
    out.backend_length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  } else {
    const std::string host = reader.text("host", 255);
    const auto port = static_cast<uint16_t>(reader.number("port", 1, 65'535));
    auto& in = reinterpret_cast<sockaddr_in&>(address);
    auto& in6 = reinterpret_cast<sockaddr_in6&>(address);
    if (inet_pton(AF_INET, host.c_str(), &in.sin_addr) == 1) {
      in.sin_family = AF_INET;
      in.sin_port = htons(port);
      out.backend_length = sizeof in;
    } else if (inet_pton(AF_INET6, host.c_str(), &in6.sin6_addr) == 1) {
      in6.sin6_family = AF_INET6;
      in6.sin6_port = htons(port);
      out.backend_length = sizeof in6;
    } else if (reader.ok()) {
      return outer.fail("backend", "needs a numeric IPv4 or IPv6 address as host");
    }
  }
  if (reader.ok()) out.backend = address;
}

}  // namespace

std::optional<Options> read_options(napi_env env, napi_value object) {
  Reader reader(env, object);
  Options options;
  options.workers = static_cast<unsigned>(reader.number("workers", 1, 256));
  if (reader.has("workerCpus")) {
    for (const uint64_t cpu : reader.numbers("workerCpus", CPU_SETSIZE, 0, CPU_SETSIZE - 1)) options.worker_cpus.push_back(static_cast<unsigned>(cpu));
  }
  options.sessions_max = reader.number("sessionsMax", 1, 10'000'000);
  options.handshakes_max = reader.number("handshakesMax", 1, 10'000'000);
  options.handshake_ms = reader.number("handshakeMs", 1, 3'600'000);
  options.linger_ms = reader.number("lingerMs", 0, 3'600'000);
  options.key_update_records = static_cast<uint32_t>(reader.number_or("keyUpdateRecords", 1, 1U << 24, 1U << 24));
  if (!reader.ok()) return std::nullopt;
  return options;
}

napi_value make_context(napi_env env, napi_value object) {
  Reader reader(env, object);
  ContextSpec spec;
  spec.localid = reader.text("localid", 255);
  spec.revision = static_cast<uint32_t>(reader.number("revision", 0, UINT32_MAX));
  spec.min_version = read_version(reader, "minVersion");
  spec.max_version = read_version(reader, "maxVersion");
  spec.ciphers = reader.text("ciphers", 4096);
  spec.ciphersuites = reader.text("ciphersuites", 4096);
  spec.groups = reader.texts("groups", 32, 64);
  spec.prefer_server_ciphers = reader.flag_or("preferServerCiphers", false);
  spec.client_auth = read_client_auth(reader, "clientAuth");
  spec.ticket_lifetime_s = static_cast<int64_t>(reader.number("ticketLifetimeS", 1, 7 * 86'400));  // RFC 8446 section 4.6.1: at most a week
  spec.ticket_tag = reader.text("ticketTag", 1024);
  if (reader.has("trust")) spec.trust = reader.octets("trust");
  read_peer_rules(env, reader, spec);
  for (const napi_value item : reader.list("keyPairs", 8)) {
    Reader pair(env, item);
    spec.key_pairs.push_back({pair.octets("chain"), pair.octets("key")});
    if (!pair.ok()) return nullptr;
  }
  if (!reader.ok()) return nullptr;
  std::string problem, field;
  ContextRef context = Context::make(spec, problem, field);
  if (!context) return throw_error(env, "IDENTITY_BAD", problem, field);
  return wrap(env, std::move(context), context_tag);
}

bool check_key_pair(napi_env env, napi_value object) {
  Reader reader(env, object);
  ContextSpec spec;
  spec.key_pairs.push_back({reader.octets("chain"), reader.octets("key")});
  if (!reader.ok()) return false;
  spec.ciphersuites = "TLS_AES_128_GCM_SHA256";
  spec.groups = {"X25519", "P-256"};
  std::string problem, field;
  if (Context::make(spec, problem, field)) return true;
  throw_error(env, "IDENTITY_BAD", problem, field);
  return false;
}

napi_value make_selector(napi_env env, napi_value object) {
  Reader reader(env, object);
  auto selector = std::make_shared<Selector>();
  for (const napi_value item : reader.list("names", 100'000)) {
    napi_value name_value = nullptr, context_value = nullptr;
    std::string name;
    if (napi_get_element(env, item, 0, &name_value) != napi_ok || napi_get_element(env, item, 1, &context_value) != napi_ok ||
        !read_text(env, name_value, name, 255) || name.empty())
      return throw_error(env, "BAD_ARGUMENT", "names must hold pairs of a host name and a context", "names");
    ContextRef context = context_of(env, context_value);
    if (!context) return nullptr;
    selector->add(name, std::move(context));
  }
  for (const bool no_name : {true, false}) {
    const char* key = no_name ? "noName" : "unknownName";
    if (!reader.has(key)) continue;
    ContextRef context = context_of(env, reader.get(key));
    if (!context) return nullptr;
    no_name ? selector->set_no_name(std::move(context)) : selector->set_unknown_name(std::move(context));
  }
  if (!reader.ok()) return nullptr;
  return wrap(env, SelectorRef(std::move(selector)), selector_tag);
}

ContextRef context_of(napi_env env, napi_value object) { return unwrap<ContextRef>(env, object, context_tag, "context"); }

SelectorRef selector_of(napi_env env, napi_value object) { return unwrap<SelectorRef>(env, object, selector_tag, "selector"); }

std::string read_alpn(Reader& reader) {
  std::string wire;
  for (const std::string& name : reader.texts("alpn", 32, 255)) {
    if (name.empty()) reader.fail("alpn", "holds an empty name");
    wire += static_cast<char>(name.size());
    wire += name;
  }
  return wire;
}

std::optional<ReauthTerms> read_reauth_terms(napi_env env, napi_value object) {
  napi_valuetype type = napi_undefined;
  if (object == nullptr || napi_typeof(env, object, &type) != napi_ok || type != napi_object) {
    throw_error(env, "BAD_ARGUMENT", "spec must be an object", "spec");
    return std::nullopt;
  }
  Reader reader(env, object);
  ReauthTerms terms;
  if (!reader.has("require")) reader.fail("require", "must be true or false");
  terms.require = reader.flag_or("require", true);
  terms.timeout_ms = reader.number_or("timeoutMs", 1, 3'600'000, 0);
  if (reader.has("context")) terms.context = context_of(env, reader.get("context"));
  const bool good = reader.ok() && (!reader.has("context") || terms.context);
  return good ? std::optional(std::move(terms)) : std::nullopt;
}

std::shared_ptr<const Negotiation> read_negotiation(napi_env env, napi_value object, bool server) {
  Reader reader(env, object);
  auto negotiation = std::make_shared<Negotiation>();
  if (reader.has("alpn")) negotiation->alpn = read_alpn(reader);
  if (server && reader.has("clientAuth")) negotiation->client_auth = read_client_auth(reader, "clientAuth");
  negotiation->reject_unauthorized = reader.flag_or("rejectUnauthorized", true);
  negotiation->ask = reader.flag_or("ask", false);
  negotiation->ask_plain = reader.flag_or("askPlain", false);
  if (reader.has("backend")) read_backend(env, reader, *negotiation);
  if (negotiation->ask_plain && negotiation->backend) reader.fail("askPlain", "does not go with a backend: a session has one plain-text side");
  return reader.ok() ? negotiation : nullptr;
}

}  // namespace tlspool::js
