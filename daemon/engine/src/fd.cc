#include "fd.hh"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <unistd.h>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "discard.h"

namespace tlspool {
namespace {

int int_option(int fd, int option, int fallback) {
  int value = fallback;
  socklen_t length = sizeof value;
  return getsockopt(fd, SOL_SOCKET, option, &value, &length) == 0 ? value : fallback;
}

}  // namespace

void UniqueFd::reset(int fd, Origin origin) {
  const int old = std::exchange(fd_, fd);
  const Origin was = std::exchange(origin_, origin);
  if (old < 0) return;
  if (was == Origin::passed) return discard(old);
  was == Origin::open ? close_drained(old, false) : static_cast<void>(::close(old));
}

void forget_linger(int fd) {
  linger wait{};
  socklen_t length = sizeof wait;
  if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &wait, &length) != 0 || wait.l_onoff == 0) return;
  const linger none{0, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
}

Endpoint endpoint_of(const sockaddr_storage& address, socklen_t length) {
  Endpoint result;
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET && length >= sizeof(sockaddr_in)) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
    result = {Endpoint::Family::ipv4, ntohs(in.sin_port), text};
  } else if (address.ss_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
    const auto& in6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof text);
    result = {Endpoint::Family::ipv6, ntohs(in6.sin6_port), text};
  } else if (address.ss_family == AF_UNIX) {
    const auto& un = reinterpret_cast<const sockaddr_un&>(address);
    const size_t path_offset = offsetof(sockaddr_un, sun_path);
    const size_t room = length > path_offset ? length - path_offset : 0;
    result.family = Endpoint::Family::unix_domain;
    // An abstract name (leading NUL) is shown as unnamed: it is no path that anybody could open.
    if (room > 0 && un.sun_path[0] != '\0') result.address.assign(un.sun_path, strnlen(un.sun_path, room));
  }
  return result;
}

Endpoint local_endpoint(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  return endpoint_of(address, length);
}

Endpoint remote_endpoint(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  return endpoint_of(address, length);
}

bool is_seqpacket(int fd) { return int_option(fd, SO_TYPE, 0) == SOCK_SEQPACKET; }

bool is_inet(int fd) {
  const int domain = int_option(fd, SO_DOMAIN, 0);
  return domain == AF_INET || domain == AF_INET6;
}

bool is_shortage(int error) { return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM; }

bool set_nonblocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && ((flags & O_NONBLOCK) != 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
}

std::string refuse_socket(int fd, SocketUse use) {
  int domain = 0;
  socklen_t size = sizeof domain;
  // Not fstat(2): the file system of a file may take as long to answer as whoever passed it likes (FUSE).
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0)
    return errno == ENOTSOCK ? "the descriptor is no socket; pass a socket" : "the descriptor is not open; pass an open socket";
  const int type = int_option(fd, SO_TYPE, 0);
  const bool listening = int_option(fd, SO_ACCEPTCONN, 0) == 1;
  if (domain != AF_INET && domain != AF_INET6 && domain != AF_UNIX) return "the socket is neither TCP nor UNIX; pass one that is";
  if (use == SocketUse::listening_stream) {
    if (type != SOCK_STREAM) return "the socket is no stream socket; pass a listening TCP or UNIX stream socket";
    return listening ? "" : "the socket is not listening; call listen(2) before it is handed over";
  }
  const bool packet_allowed = use == SocketUse::connected_plain && domain == AF_UNIX;
  if (type != SOCK_STREAM && !(packet_allowed && type == SOCK_SEQPACKET))
    return "the socket is of the wrong type; the TLS side is a stream, the plain-text side TCP, UNIX stream or UNIX seqpacket";
  if (listening) return "the socket is listening; pass a connected one";
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return "the socket is not connected; pass a connected one";
  return "";
}

size_t send_room(int fd, bool inet) {
  uint32_t info[SK_MEMINFO_VARS] = {};
  socklen_t length = sizeof info;
  if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &length) != 0) return 0;
  const uint32_t used = inet ? info[SK_MEMINFO_WMEM_QUEUED] : info[SK_MEMINFO_WMEM_ALLOC];
  return info[SK_MEMINFO_SNDBUF] > used ? info[SK_MEMINFO_SNDBUF] - used : 0;
}

}  // namespace tlspool
