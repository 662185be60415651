// socketInfo: what kind of socket a descriptor is. A descriptor that came from somebody else is checked with this first.
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <string>

#include "addon.h"
#include "call.h"

namespace tlspool {
namespace {

struct Name {
  sockaddr_storage storage{};
  socklen_t length = sizeof(sockaddr_storage);
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

std::string v6_text(const sockaddr_in6& address) {
  char buffer[INET6_ADDRSTRLEN] = "";
  ::inet_ntop(AF_INET6, &address.sin6_addr, buffer, sizeof buffer);
  std::string result(buffer);
  char interface[IF_NAMESIZE] = "";
  // As Node writes it: the zone only for link-local addresses.
  if (IN6_IS_ADDR_LINKLOCAL(&address.sin6_addr) && ::if_indextoname(address.sin6_scope_id, interface) != nullptr) {
    result += std::string("%") + interface;
  }
  return result;
}

// Empty for an unnamed socket; the leading NUL of the abstract namespace is kept.
std::string unix_text(const sockaddr_un& address, socklen_t length) {
  constexpr socklen_t start = offsetof(sockaddr_un, sun_path);
  if (length <= start) return "";
  const size_t room = std::min<size_t>(length - start, sizeof address.sun_path);
  std::string path(address.sun_path, room);
  if (path.front() != '\0') path.resize(std::min(path.size(), path.find('\0')));
  return path;
}

// {family, address, port}; undefined for address families that the message table does not know.
napi_value endpoint_value(Call& call, Name& name) {
  const char* family = nullptr;
  std::string text;
  uint16_t port = 0;
  switch (name.get()->sa_family) {
    case AF_INET: {
      const auto& v4 = reinterpret_cast<const sockaddr_in&>(name.storage);
      char buffer[INET_ADDRSTRLEN] = "";
      ::inet_ntop(AF_INET, &v4.sin_addr, buffer, sizeof buffer);
      family = "IPv4";
      text = buffer;
      port = ntohs(v4.sin_port);
      break;
    }
    case AF_INET6: {
      const auto& v6 = reinterpret_cast<const sockaddr_in6&>(name.storage);
      family = "IPv6";
      text = v6_text(v6);
      port = ntohs(v6.sin6_port);
      break;
    }
    case AF_UNIX:
      family = "unix";
      text = unix_text(reinterpret_cast<const sockaddr_un&>(name.storage), name.length);
      break;
    default:
      return call.undefined();
  }
  napi_value result = nullptr;
  napi_value family_value = nullptr;
  napi_value text_value = nullptr;
  if (!call.ok(napi_create_object(call.env(), &result)) ||
      !call.ok(napi_create_string_utf8(call.env(), family, NAPI_AUTO_LENGTH, &family_value)) ||
      !call.ok(napi_create_string_utf8(call.env(), text.data(), text.size(), &text_value)) ||
      !call.set(result, "family", family_value) || !call.set(result, "address", text_value) ||
      !call.set(result, "port", call.integer_value(port))) {
    return nullptr;
  }
  return result;
}

const char* domain_word(int domain) {
  switch (domain) {
    case AF_INET: return "IPv4";
    case AF_INET6: return "IPv6";
    case AF_UNIX: return "unix";
    default: return "other";
  }
}

const char* type_word(int type) {
  switch (type) {
    case SOCK_STREAM: return "stream";
    case SOCK_SEQPACKET: return "seqpacket";
    case SOCK_DGRAM: return "dgram";
    default: return "other";
  }
}

bool set_word(Call& call, napi_value object, const char* key, const char* word) {
  napi_value value = nullptr;
  return call.ok(napi_create_string_utf8(call.env(), word, NAPI_AUTO_LENGTH, &value)) && call.set(object, key, value);
}

bool set_flag(Call& call, napi_value object, const char* key, bool flag) {
  napi_value value = nullptr;
  return call.ok(napi_get_boolean(call.env(), flag, &value)) && call.set(object, key, value);
}

bool set_endpoint(Call& call, napi_value object, const char* key, Name& name) {
  napi_value value = endpoint_value(call, name);
  if (value == nullptr) return false;
  return call.absent(value) || call.set(object, key, value);
}

}  // namespace

napi_value socket_info(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  int domain = 0;
  int type = 0;
  int listening = 0;
  const struct { int option; int* value; } options[] = {{SO_DOMAIN, &domain}, {SO_TYPE, &type}, {SO_ACCEPTCONN, &listening}};
  for (const auto& option : options) {
    socklen_t octets = sizeof(int);
    if (::getsockopt(*fd, SOL_SOCKET, option.option, option.value, &octets) != 0) return call.fail_system("getsockopt", errno);
  }
  Name local;
  Name remote;
  const bool named = ::getsockname(*fd, local.get(), &local.length) == 0;
  const bool connected = ::getpeername(*fd, remote.get(), &remote.length) == 0;

  napi_value result = nullptr;
  if (!call.ok(napi_create_object(env, &result)) || !set_word(call, result, "domain", domain_word(domain)) ||
      !set_word(call, result, "type", type_word(type)) || !set_flag(call, result, "listening", listening != 0) ||
      !set_flag(call, result, "connected", connected) || (named && !set_endpoint(call, result, "local", local)) ||
      (connected && !set_endpoint(call, result, "remote", remote))) {
    return nullptr;
  }
  return result;
}

}  // namespace tlspool
