// The Node-API face of the engine: one class, two functions. Types and ownership are documented in daemon/src/engine.ts.
#include <node_api.h>
#include <openssl/crypto.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <cerrno>
#include <cstring>
#include <memory>

#include "engine.hh"
#include "js_events.hh"
#include "js_specs.hh"
#include "js_values.hh"

namespace tlspool::js {
namespace {

constexpr napi_type_tag engine_tag = {0x746c73706f6f6c01, 0x656e67696e650001};

struct Instance {
  explicit Instance(napi_env owner) : env(owner) {}
  ~Instance() { stop(); }

  // Threads are joined before OpenSSL is torn down at exit, and before anything that they use goes away.
  void stop() {
    if (engine) engine->stop();
    queue.close(env);
    engine.reset();
  }

  napi_env env;
  EventQueue queue;
  std::unique_ptr<Engine> engine;
};

void stop_at_exit(void* data) { static_cast<Instance*>(data)->stop(); }

struct Call {
  napi_env env;
  size_t count = 5;
  napi_value arguments[5] = {};
  napi_value self = nullptr;
  Instance* instance = nullptr;
};

// Arguments and the engine behind `this`; false (and thrown) when `this` is something else or the engine is stopped.
bool read_call(napi_env env, napi_callback_info info, Call& call) {
  call.env = env;
  void* data = nullptr;
  bool tagged = false;
  napi_valuetype type = napi_undefined;
  if (napi_get_cb_info(env, info, &call.count, call.arguments, &call.self, nullptr) != napi_ok ||
      napi_typeof(env, call.self, &type) != napi_ok || type != napi_object ||
      napi_check_object_type_tag(env, call.self, &engine_tag, &tagged) != napi_ok || !tagged || napi_unwrap(env, call.self, &data) != napi_ok) {
    throw_error(env, "BAD_STATE", "called on something that is no engine");
    return false;
  }
  call.instance = static_cast<Instance*>(data);
  if (call.instance->engine) return true;
  throw_error(env, "BAD_STATE", "the engine is stopped");
  return false;
}

bool number_argument(Call& call, size_t index, uint64_t max, const char* what, uint64_t& out) {
  if (read_number(call.env, call.arguments[index], 0, max, out)) return true;
  throw_error(call.env, "BAD_ARGUMENT", std::string(what) + " must be a whole number from 0 to " + std::to_string(max), what);
  return false;
}

bool session_argument(Call& call, SessionId& out) { return number_argument(call, 0, (1ULL << 53) - 1, "session", out); }

bool fd_argument(Call& call, size_t index, const char* what, int& out) {
  if (read_fd(call.env, call.arguments[index], out)) return true;
  throw_error(call.env, "BAD_ARGUMENT", std::string(what) + " must be a descriptor", what);
  return false;
}

napi_value undefined(napi_env env) {
  napi_value value = nullptr;
  napi_get_undefined(env, &value);
  return value;
}

napi_value refuse(napi_env env, const Refusal& refusal) { return throw_error(env, refusal.code, refusal.text, refusal.field); }

napi_value construct(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value spec = nullptr, self = nullptr, target = nullptr;
  if (napi_get_cb_info(env, info, &count, &spec, &self, nullptr) != napi_ok || napi_get_new_target(env, info, &target) != napi_ok || target == nullptr)
    return throw_error(env, "BAD_ARGUMENT", "call it with new");
  const auto options = read_options(env, spec);
  if (!options) return nullptr;
  const napi_value callback = Reader(env, spec).get("onEvents");
  napi_valuetype type = napi_undefined;
  if (callback == nullptr || napi_typeof(env, callback, &type) != napi_ok || type != napi_function)
    return throw_error(env, "BAD_ARGUMENT", "onEvents must be a function", "onEvents");
  auto instance = std::make_unique<Instance>(env);
  if (!instance->queue.open(env, callback)) return throw_error(env, "INTERNAL", "no thread-safe function");
  instance->engine = std::make_unique<Engine>(*options, instance->queue);
  if (const Refusal refusal = instance->engine->start()) return refuse(env, refusal);
  const auto finalize = [](napi_env owner, void* data, void*) {
    napi_remove_env_cleanup_hook(owner, stop_at_exit, data);
    delete static_cast<Instance*>(data);
  };
  if (napi_type_tag_object(env, self, &engine_tag) != napi_ok || napi_wrap(env, self, instance.get(), finalize, nullptr, nullptr) != napi_ok ||
      napi_add_env_cleanup_hook(env, stop_at_exit, instance.get()) != napi_ok)
    return throw_error(env, "INTERNAL", "the engine cannot be wrapped");
  instance.release();
  set(env, self, "openssl", make_text(env, OpenSSL_version(OPENSSL_VERSION_STRING)));
  return self;
}

napi_value context(napi_env env, napi_callback_info info) {
  Call call;
  return read_call(env, info, call) ? make_context(env, call.arguments[0]) : nullptr;
}

napi_value selector(napi_env env, napi_callback_info info) {
  Call call;
  return read_call(env, info, call) ? make_selector(env, call.arguments[0]) : nullptr;
}

napi_value listen(napi_env env, napi_callback_info info) {
  Call call;
  int fd = -1;
  if (!read_call(env, info, call) || !fd_argument(call, 0, "fd", fd)) return nullptr;
  Reader spec(env, call.arguments[1]);
  SelectorRef selector = selector_of(env, spec.get("selector"));
  if (!selector) return nullptr;
  auto negotiation = read_negotiation(env, call.arguments[1], true);
  if (!negotiation) return nullptr;
  ListenerId id = 0;
  if (const Refusal refusal = call.instance->engine->listen(fd, std::move(selector), std::move(negotiation), id)) return refuse(env, refusal);
  return make_number(env, id);
}

napi_value set_selector(napi_env env, napi_callback_info info) {
  Call call;
  uint64_t id = 0;
  if (!read_call(env, info, call) || !number_argument(call, 0, UINT32_MAX, "listener", id)) return nullptr;
  SelectorRef selector = selector_of(env, call.arguments[1]);
  if (!selector) return nullptr;
  if (!call.instance->engine->set_selector(static_cast<ListenerId>(id), std::move(selector)))
    return throw_error(env, "LISTENER_UNKNOWN", "there is no such listener", "listener");
  return undefined(env);
}

napi_value pause_listener(napi_env env, napi_callback_info info) {
  Call call;
  uint64_t id = 0;
  bool paused = false;
  if (!read_call(env, info, call) || !number_argument(call, 0, UINT32_MAX, "listener", id)) return nullptr;
  if (napi_get_value_bool(env, call.arguments[1], &paused) != napi_ok) return throw_error(env, "BAD_ARGUMENT", "paused must be true or false", "paused");
  if (!call.instance->engine->pause_listener(static_cast<ListenerId>(id), paused))
    return throw_error(env, "LISTENER_UNKNOWN", "there is no such listener", "listener");
  return undefined(env);
}

napi_value unlisten(napi_env env, napi_callback_info info) {
  Call call;
  uint64_t id = 0;
  if (!read_call(env, info, call) || !number_argument(call, 0, UINT32_MAX, "listener", id)) return nullptr;
  call.instance->engine->unlisten(static_cast<ListenerId>(id));
  return undefined(env);
}

napi_value start_tls(napi_env env, napi_callback_info info) {
  Call call;
  int cryptfd = -1, plainfd = -1;
  if (!read_call(env, info, call) || !fd_argument(call, 0, "cryptfd", cryptfd) || !fd_argument(call, 1, "plainfd", plainfd)) return nullptr;
  Reader spec(env, call.arguments[2]);
  SessionStart start;
  start.server = spec.text("role", 16) == "server";
  start.handshake_ms = spec.number_or("handshakeMs", 0, 3'600'000, 0);
  if (!spec.ok()) return nullptr;
  if (start.server) {
    start.selector = selector_of(env, spec.get("selector"));
    if (!start.selector) return nullptr;
  } else {
    start.context = context_of(env, spec.get("context"));
    if (!start.context) return nullptr;
    start.remoteid = spec.text_or("remoteid", "", 255);
    start.servername = spec.text_or("servername", "", 255);
  }
  start.negotiation = read_negotiation(env, call.arguments[2], start.server);
  if (!start.negotiation || !spec.ok()) return nullptr;
  // Without a name anybody's valid certificate would do.
  if (!start.server && start.remoteid.empty() && start.negotiation->reject_unauthorized)
    return throw_error(env, "BAD_ARGUMENT", "remoteid says whose certificate to accept; without it set rejectUnauthorized to false", "remoteid");
  SessionId id = 0;
  if (const Refusal refusal = call.instance->engine->start_tls(cryptfd, plainfd, std::move(start), id)) return refuse(env, refusal);
  return make_number(env, static_cast<double>(id));
}

napi_value decide(napi_env env, napi_callback_info info) {
  Call call;
  SessionId id = 0;
  int plainfd = -1;
  if (!read_call(env, info, call) || !session_argument(call, id) || !fd_argument(call, 2, "plainfd", plainfd)) return nullptr;
  Reader decision(env, call.arguments[1]);
  SelectorRef selector;
  std::optional<std::string> alpn;
  const bool refused = decision.flag_or("refuse", false);
  if (!refused && decision.has("context")) {
    if (decision.has("selector")) return throw_error(env, "BAD_ARGUMENT", "a decision is a selector (server role) or a context (client role)", "context");
    ContextRef context = context_of(env, decision.get("context"));
    if (!context) return nullptr;
    call.instance->engine->decide_identity(id, std::move(context), UniqueFd(plainfd, Origin::passed));
    return undefined(env);
  }
  if (!decision.ok()) return nullptr;
  if (!refused) {
    selector = selector_of(env, decision.get("selector"));
    if (!selector) return nullptr;
    if (decision.has("alpn")) alpn = read_alpn(decision);
  }
  if (!decision.ok()) return nullptr;
  call.instance->engine->decide(id, std::move(selector), UniqueFd(plainfd, Origin::passed), std::move(alpn));
  return undefined(env);
}

napi_value supply(napi_env env, napi_callback_info info) {
  Call call;
  SessionId id = 0;
  std::string word;
  int plainfd = -1;
  if (!read_call(env, info, call) || !session_argument(call, id)) return nullptr;
  if (read_text(env, call.arguments[1], word, 16) && word == "refuse") {
    call.instance->engine->refuse_plain(id);
    return undefined(env);
  }
  if (!fd_argument(call, 1, "plainfd", plainfd)) return nullptr;
  call.instance->engine->supply(id, UniqueFd(plainfd, Origin::passed));
  return undefined(env);
}

napi_value close_session(napi_env env, napi_callback_info info) {
  Call call;
  SessionId id = 0;
  std::string how;
  if (!read_call(env, info, call) || !session_argument(call, id)) return nullptr;
  if (!read_text(env, call.arguments[1], how, 16)) how.clear();
  CloseRequest request = CloseRequest::orderly;
  if (how == "abort") request = CloseRequest::abort;
  else if (how == "revoked") request = CloseRequest::revoked;
  else if (how == "drained") request = CloseRequest::drained;
  else if (how != "orderly") return throw_error(env, "BAD_ARGUMENT", "how must be orderly, abort, revoked or drained", "how");
  call.instance->engine->close(id, request);
  return undefined(env);
}

napi_value exporter(napi_env env, napi_callback_info info) {
  Call call;
  SessionId id = 0;
  uint64_t request = 0, length = 0;
  std::string label, octets;
  if (!read_call(env, info, call) || !session_argument(call, id) || !number_argument(call, 1, UINT32_MAX, "request", request)) return nullptr;
  if (!read_text(env, call.arguments[2], label, 255)) return throw_error(env, "BAD_ARGUMENT", "label must be a text of at most 255 octets", "label");
  napi_valuetype type = napi_undefined;
  napi_typeof(env, call.arguments[3], &type);
  std::optional<std::string> context;
  if (type != napi_null && type != napi_undefined) {
    if (!read_octets(env, call.arguments[3], octets)) return throw_error(env, "BAD_ARGUMENT", "context must be a Buffer or null", "context");
    context = std::move(octets);
  }
  if (!number_argument(call, 4, 65'535, "length", length)) return nullptr;
  call.instance->engine->exporter(id, static_cast<uint32_t>(request), std::move(label), std::move(context), length);
  return undefined(env);
}

napi_value bindings(napi_env env, napi_callback_info info) {
  Call call;
  SessionId id = 0;
  uint64_t request = 0;
  if (!read_call(env, info, call) || !session_argument(call, id) || !number_argument(call, 1, UINT32_MAX, "request", request)) return nullptr;
  call.instance->engine->bindings(id, static_cast<uint32_t>(request));
  return undefined(env);
}

napi_value reauthenticate(napi_env env, napi_callback_info info) {
  Call call;
  SessionId id = 0;
  uint64_t request = 0;
  if (!read_call(env, info, call) || !session_argument(call, id) || !number_argument(call, 1, UINT32_MAX, "request", request)) return nullptr;
  if (request == 0) return throw_error(env, "BAD_ARGUMENT", "request must not be 0, which says that nobody waits", "request");
  auto terms = read_reauth_terms(env, call.arguments[2]);
  if (!terms) return nullptr;
  call.instance->engine->reauthenticate(id, static_cast<uint32_t>(request), std::move(*terms));
  return undefined(env);
}

napi_value counters(napi_env env, napi_callback_info info) {
  Call call;
  if (!read_call(env, info, call)) return nullptr;
  const Stats& stats = call.instance->engine->stats();
  napi_value object = nullptr;
  napi_create_object(env, &object);
  const auto put = [&](const char* key, const std::atomic<uint64_t>& value) { set(env, object, key, make_number(env, static_cast<double>(value.load()))); };
  put("sessions", stats.sessions);
  put("handshakes", stats.handshakes);
  put("handshakesDone", stats.handshakes_done);
  put("handshakesFailed", stats.handshakes_failed);
  put("handshakesResumed", stats.handshakes_resumed);
  put("octetsReceived", stats.octets_received);
  put("octetsSent", stats.octets_sent);
  return object;
}

napi_value stop(napi_env env, napi_callback_info info) {
  napi_value self = nullptr;
  void* data = nullptr;
  bool tagged = false;
  napi_get_cb_info(env, info, nullptr, nullptr, &self, nullptr);
  if (self == nullptr || napi_check_object_type_tag(env, self, &engine_tag, &tagged) != napi_ok || !tagged || napi_unwrap(env, self, &data) != napi_ok)
    return throw_error(env, "BAD_STATE", "called on something that is no engine");
  static_cast<Instance*>(data)->stop();
  return undefined(env);
}

napi_value harden(napi_env env, napi_callback_info) {
  const rlimit none{0, 0};
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || setrlimit(RLIMIT_CORE, &none) != 0)
    return throw_error(env, "SYSTEM", std::string("the process cannot be made undumpable: ") + strerror(errno));
  return undefined(env);
}

napi_value check_pair(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value pair = nullptr;
  napi_get_cb_info(env, info, &count, &pair, nullptr, nullptr);
  return check_key_pair(env, pair) ? undefined(env) : nullptr;
}

napi_value define_engine(napi_env env) {
  const auto method = [](const char* name, napi_callback function) {
    return napi_property_descriptor{name, nullptr, function, nullptr, nullptr, nullptr, napi_default_method, nullptr};
  };
  const napi_property_descriptor methods[] = {
      method("context", context),   method("selector", selector),         method("listen", listen),     method("setSelector", set_selector),
      method("pauseListener", pause_listener), method("unlisten", unlisten), method("startTls", start_tls), method("decide", decide),
      method("close", close_session), method("exporter", exporter),       method("bindings", bindings), method("counters", counters),
      method("supply", supply),     method("reauthenticate", reauthenticate), method("stop", stop),
  };
  napi_value constructor = nullptr;
  napi_define_class(env, "Engine", NAPI_AUTO_LENGTH, construct, nullptr, sizeof methods / sizeof methods[0], methods, &constructor);
  return constructor;
}

napi_value function_of(napi_env env, const char* name, napi_callback callback) {
  napi_value function = nullptr;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function);
  return function;
}

}  // namespace
}  // namespace tlspool::js

NAPI_MODULE_INIT() {
  using namespace tlspool::js;
  set(env, exports, "Engine", define_engine(env));
  set(env, exports, "harden", function_of(env, "harden", harden));
  set(env, exports, "checkKeyPair", function_of(env, "checkKeyPair", check_pair));
  return exports;
}
