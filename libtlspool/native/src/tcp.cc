// TCP: a listening socket, and accept that reads nothing.
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "addon.h"
#include "call.h"
#include "discard.h"
#include "unique_fd.h"

namespace tlspool {
namespace {

struct TcpAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// Numeric only: a name would need the resolver, which blocks.
std::optional<TcpAddress> address_of(Call& call, const std::string& host, uint16_t port) {
  TcpAddress result;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&result.storage);
  const bool has_nul = host.find('\0') != std::string::npos;  // inet_pton would stop there.
  if (!has_nul && ::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    result.length = sizeof *v4;
    return result;
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&result.storage);
  const size_t percent = host.find('%');  // fe80::1%eth0, RFC 4007 section 11
  const std::string zone = percent == std::string::npos ? "" : host.substr(percent + 1);
  v6->sin6_scope_id = zone.empty() ? 0 : ::if_nametoindex(zone.c_str());
  const bool zone_known = percent == std::string::npos || v6->sin6_scope_id != 0;
  if (!has_nul && zone_known && ::inet_pton(AF_INET6, host.substr(0, percent).c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    result.length = sizeof *v6;
    return result;
  }
  call.fail(bad_argument, "host must be a numeric IPv4 or IPv6 address; resolve a name first");
  return std::nullopt;
}

bool set_flag(int fd, int level, int option, bool on) {
  const int value = on ? 1 : 0;
  return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

}  // namespace

napi_value tcp_listen(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const napi_value options = call.arg(0);
  const auto host_value = call.property(options, "host");
  if (!host_value) return nullptr;
  const auto host = call.text(*host_value, "host");
  if (!host) return nullptr;
  const auto port_value = call.property(options, "port");
  if (!port_value) return nullptr;
  const auto port = call.integer(*port_value, "port", 0, 65535);
  if (!port) return nullptr;
  const auto backlog = call.integer_option(options, "backlog", 1, 65535, 511);
  if (!backlog) return nullptr;
  const auto reuse_port = call.bool_option(options, "reusePort");
  if (!reuse_port) return nullptr;
  const auto ipv6_only = call.bool_option(options, "ipv6Only");
  if (!ipv6_only) return nullptr;
  const auto address = address_of(call, *host, static_cast<uint16_t>(*port));
  if (!address) return nullptr;

  const int family = address->get()->sa_family;
  const std::string shown = *host + " port " + std::to_string(*port);
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return call.fail_system("socket", errno, shown);
  if (!set_flag(fd.get(), SOL_SOCKET, SO_REUSEADDR, true) || (*reuse_port && !set_flag(fd.get(), SOL_SOCKET, SO_REUSEPORT, true)) ||
      (family == AF_INET6 && !set_flag(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, *ipv6_only))) {
    return call.fail_system("setsockopt", errno, shown);
  }
  if (::bind(fd.get(), address->get(), address->length) != 0) return call.fail_system("bind", errno, shown);
  if (::listen(fd.get(), static_cast<int>(*backlog)) != 0) return call.fail_system("listen", errno, shown);
  napi_value result = call.integer_value(fd.get());
  if (result != nullptr) fd.release();
  return result;
}

napi_value accept_connection(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto listener = call.fd(call.arg(0));
  if (!listener) return nullptr;
  // A listener that came from elsewhere may block; accept4 has no MSG_DONTWAIT, and this thread runs Node's loop.
  const int flags = ::fcntl(*listener, F_GETFL);
  if (flags < 0) return call.fail_system("fcntl", errno);
  if ((flags & O_NONBLOCK) == 0 && ::fcntl(*listener, F_SETFL, flags | O_NONBLOCK) != 0) return call.fail_system("fcntl", errno);
  for (;;) {
    sockaddr_storage peer{};
    socklen_t octets = sizeof peer;
    UniqueFd fd(::accept4(*listener, reinterpret_cast<sockaddr*>(&peer), &octets, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd.valid()) {
      if (peer.ss_family == AF_UNIX) keep_in_line(fd.get());
      napi_value result = call.integer_value(fd.get());
      if (result != nullptr) fd.release();
      return result;
    }
    // A connection that was gone before it was accepted is nobody's error (accept(2)): take the next.
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return call.null();
    return call.fail_system("accept4", errno);
  }
}

}  // namespace tlspool
