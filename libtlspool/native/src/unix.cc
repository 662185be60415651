// UNIX sockets: pairs, connect, listen, and who is at the other end.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "addon.h"
#include "call.h"
#include "unique_fd.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace tlspool {
namespace {

constexpr int socket_flags = SOCK_CLOEXEC | SOCK_NONBLOCK;

struct UnixAddress {
  sockaddr_un address{};
  socklen_t length = 0;
  bool abstract = false;
  // For error texts: the leading NUL of the abstract namespace as `@`.
  std::string shown;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

// An over-long path is refused, because the kernel's habit is to cut it and to serve a different path.
std::optional<UnixAddress> address_of(Call& call, const std::string& path) {
  UnixAddress result;
  constexpr size_t longest = sizeof(result.address.sun_path) - 1;
  if (path.empty() || path.size() > longest) {
    call.fail(bad_argument, "path has " + std::to_string(path.size()) + " octets; a UNIX socket takes 1 to " +
                                std::to_string(longest) + ", use a shorter directory");
    return std::nullopt;
  }
  result.abstract = path.front() == '\0';
  if (!result.abstract && path.find('\0') != std::string::npos) {
    call.fail(bad_argument, "path contains a NUL octet after its start");
    return std::nullopt;
  }
  result.address.sun_family = AF_UNIX;
  std::memcpy(result.address.sun_path, path.data(), path.size());
  // A name in the abstract namespace is as long as it is said to be; a path ends with its NUL.
  result.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (result.abstract ? 0 : 1));
  result.shown = path;
  if (result.abstract) result.shown.front() = '@';
  return result;
}

// Sets the mode of the path although the umask may have cut bits from it. Symbolic links are not followed.
bool set_mode(const UnixAddress& address, mode_t mode) {
  struct stat found {};
  if (::lstat(address.address.sun_path, &found) != 0) return false;
  if (S_ISSOCK(found.st_mode) && (found.st_mode & 07777) == mode) return true;
  return ::fchmodat(AT_FDCWD, address.address.sun_path, mode, AT_SYMLINK_NOFOLLOW) == 0;
}

// Supplementary groups of the peer; empty where the kernel does not say.
std::vector<gid_t> peer_groups(int fd) {
  socklen_t octets = 0;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, nullptr, &octets) == 0 || errno != ERANGE) return {};
  std::vector<gid_t> groups(octets / sizeof(gid_t));
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &octets) != 0) return {};
  groups.resize(octets / sizeof(gid_t));
  return groups;
}

}  // namespace

napi_value socket_pair(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto type = call.socket_type(call.arg(0));
  if (!type) return nullptr;
  int raw[2] = {-1, -1};
  if (::socketpair(AF_UNIX, *type | socket_flags, 0, raw) != 0) return call.fail_system("socketpair", errno);
  UniqueFd ends[2] = {UniqueFd(raw[0]), UniqueFd(raw[1])};
  napi_value pair = nullptr;
  if (!call.ok(napi_create_array_with_length(env, 2, &pair))) return nullptr;
  for (uint32_t index = 0; index < 2; index++) {
    napi_value number = call.integer_value(ends[index].get());
    if (number == nullptr || !call.ok(napi_set_element(env, pair, index, number))) return nullptr;
  }
  ends[0].release();
  ends[1].release();
  return pair;
}

napi_value unix_connect(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto path = call.text(call.arg(0), "path");
  if (!path) return nullptr;
  const auto type = call.socket_type(call.arg(1));
  if (!type) return nullptr;
  const auto address = address_of(call, *path);
  if (!address) return nullptr;
  UniqueFd fd(::socket(AF_UNIX, *type | socket_flags, 0));
  if (!fd.valid()) return call.fail_system("socket", errno);
  // Does not wait: where the listener's queue is full, the kernel says EAGAIN at once.
  if (::connect(fd.get(), address->get(), address->length) != 0) return call.fail_system("connect", errno, address->shown);
  napi_value result = call.integer_value(fd.get());
  if (result != nullptr) fd.release();
  return result;
}

napi_value unix_listen(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const napi_value options = call.arg(0);
  const auto path_value = call.property(options, "path");
  if (!path_value) return nullptr;
  const auto path = call.text(*path_value, "path");
  if (!path) return nullptr;
  const auto kind_value = call.property(options, "kind");
  if (!kind_value) return nullptr;
  const auto type = call.socket_type(*kind_value);
  if (!type) return nullptr;
  const auto backlog = call.integer_option(options, "backlog", 1, 65535, 511);
  if (!backlog) return nullptr;
  const auto mode = call.integer_option(options, "mode", 0, 0777, 0600);
  if (!mode) return nullptr;
  const auto address = address_of(call, *path);
  if (!address) return nullptr;

  UniqueFd fd(::socket(AF_UNIX, *type | socket_flags, 0));
  if (!fd.valid()) return call.fail_system("socket", errno);
  // Linux makes the path with the mode of the socket's own inode, less the umask (unix(7), net/unix/af_unix.c): it is never
  // wider than asked, not even for a moment. The umask itself is process-wide and cannot be touched while threads run.
  if (::fchmod(fd.get(), static_cast<mode_t>(*mode)) != 0) return call.fail_system("fchmod", errno, address->shown);
  if (::bind(fd.get(), address->get(), address->length) != 0) return call.fail_system("bind", errno, address->shown);
  const char* syscall = "fchmodat";
  bool listening = address->abstract || set_mode(*address, static_cast<mode_t>(*mode));
  if (listening) {
    syscall = "listen";
    listening = ::listen(fd.get(), static_cast<int>(*backlog)) == 0;
  }
  const int error = errno;
  napi_value result = listening ? call.integer_value(fd.get()) : call.fail_system(syscall, error, address->shown);
  if (result != nullptr) {
    fd.release();
  } else if (!address->abstract) {
    ::unlink(address->address.sun_path);  // We made it a moment ago; nobody could have connected.
  }
  return result;
}

napi_value peer_credentials(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  int domain = 0;
  socklen_t octets = sizeof domain;
  if (::getsockopt(*fd, SOL_SOCKET, SO_DOMAIN, &domain, &octets) != 0) return call.fail_system("getsockopt", errno);
  if (domain != AF_UNIX) return call.fail(fd_kind, "only a UNIX socket knows who is at its other end");
  ucred peer{};
  octets = sizeof peer;
  if (::getsockopt(*fd, SOL_SOCKET, SO_PEERCRED, &peer, &octets) != 0) return call.fail_system("getsockopt", errno);
  // An unconnected socket answers with nobody's credentials, not with an error.
  if (peer.uid == static_cast<uid_t>(-1)) return call.fail_system("getsockopt", ENOTCONN);

  UniqueFd pidfd;
  int raw = -1;
  octets = sizeof raw;
  if (::getsockopt(*fd, SOL_SOCKET, SO_PEERPIDFD, &raw, &octets) == 0) pidfd = UniqueFd(raw);  // CLOEXEC by the kernel.
  const std::vector<gid_t> groups = peer_groups(*fd);

  napi_value result = nullptr;
  napi_value list = nullptr;
  if (!call.ok(napi_create_object(env, &result)) || !call.ok(napi_create_array_with_length(env, groups.size(), &list))) return nullptr;
  for (uint32_t index = 0; index < groups.size(); index++) {
    napi_value number = call.integer_value(groups[index]);
    if (number == nullptr || !call.ok(napi_set_element(env, list, index, number))) return nullptr;
  }
  if (!call.set(result, "pid", call.integer_value(peer.pid)) || !call.set(result, "uid", call.integer_value(peer.uid)) ||
      !call.set(result, "gid", call.integer_value(peer.gid)) || !call.set(result, "groups", list)) {
    return nullptr;
  }
  if (pidfd.valid()) {
    if (!call.set(result, "pidfd", call.integer_value(pidfd.get()))) return nullptr;
    pidfd.release();
  }
  return result;
}

}  // namespace tlspool
