// The addon's front: `bind(TlsPoolError)` gives the object that libtlspool/src/native.ts describes as NativeSockets.
#include <new>

#include "addon.h"
#include "call.h"

namespace tlspool {
namespace {

struct Entry {
  const char* name;
  Verb verb;
};

constexpr Entry entries[] = {
    {"socketpair", socket_pair},   {"unixConnect", unix_connect},
    {"unixListen", unix_listen},   {"tcpListen", tcp_listen},
    {"accept", accept_connection}, {"send", send_message},
    {"receive", receive_message},  {"peerCredentials", peer_credentials},
    {"socketInfo", socket_info},   {"shutdown", shutdown_fd},
    {"close", close_fd},           {"dup", dup_fd},
    {"discard", discard_fd},       {"closeDrained", close_drained_fd},
    {"pollWait", poll_wait},       {"poll", make_poll},
    {"peek", peek_octets},         {"closeWithThread", close_with_thread},
};

napi_value bind(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Addon& addon = call.addon();
  napi_valuetype type = napi_undefined;
  if (!call.ok(napi_typeof(env, call.arg(0), &type))) return nullptr;
  if (type != napi_function) {
    napi_throw_type_error(env, bad_argument, "bind takes the class of the errors to throw");
    return nullptr;
  }
  if (addon.error_class != nullptr) {
    return call.fail(bad_state, "bind was called before; import libtlspool/native, do not load the addon twice");
  }
  napi_value sockets = nullptr;
  if (!call.ok(napi_create_reference(env, call.arg(0), 1, &addon.error_class))) return nullptr;
  if (!call.ok(napi_create_object(env, &sockets))) return nullptr;
  for (const Entry& entry : entries) {
    napi_value function = nullptr;
    if (!call.ok(napi_create_function(env, entry.name, NAPI_AUTO_LENGTH, entry.verb, &addon, &function))) return nullptr;
    if (!call.set(sockets, entry.name, function)) return nullptr;
  }
  return sockets;
}

bool init(napi_env env, napi_value exports) {
  std::unique_ptr<Addon> owner(new (std::nothrow) Addon);
  if (!owner) return false;
  Addon& addon = *owner;
  addon.env = env;
  const auto destroy = [](napi_env, void* data, void*) { std::unique_ptr<Addon> last(static_cast<Addon*>(data)); };
  if (napi_set_instance_data(env, owner.get(), destroy, nullptr) != napi_ok) return false;
  owner.release();  // The environment's from here on.
  if (set_up_polls(addon) != napi_ok) return false;
  napi_value function = nullptr;
  return napi_create_function(env, "bind", NAPI_AUTO_LENGTH, bind, &addon, &function) == napi_ok &&
         napi_set_named_property(env, exports, "bind", function) == napi_ok;
}

}  // namespace
}  // namespace tlspool

NAPI_MODULE_INIT() {
  if (!tlspool::init(env, exports)) napi_throw_error(env, "INTERNAL", "the socket addon could not be set up");
  return exports;
}
