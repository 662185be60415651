// Owning descriptors, and what a descriptor that somebody handed us really is.
#pragma once

#include <sys/socket.h>
#include <cstdint>
#include <string>
#include <utility>

namespace tlspool {

// Where a descriptor is from, which says what closing it may do to us (discard.h).
enum class Origin : uint8_t {
  made,    // here, and what is in it is ours
  open,    // made here, but somebody may have put descriptors into its queue: a UNIX socket
  passed,  // somebody else had it, and may have a copy
};

// Owns one descriptor. close(2) is not retried on EINTR: on Linux the descriptor is gone either way,
// and a retry could close one that another thread has just been given.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd, Origin origin = Origin::made) : fd_(fd), origin_(origin) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()), origin_(other.origin_) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    reset(other.release(), other.origin_);
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1, Origin origin = Origin::made);

 private:
  int fd_ = -1;
  Origin origin_ = Origin::made;
};

struct Endpoint {
  enum class Family : uint8_t { none, ipv4, ipv6, unix_domain };
  Family family = Family::none;
  uint16_t port = 0;
  std::string address;
};

Endpoint endpoint_of(const sockaddr_storage& address, socklen_t length);
Endpoint local_endpoint(int fd);
Endpoint remote_endpoint(int fd);

enum class SocketUse { listening_stream, connected_stream, connected_plain };

// Empty when `fd` is a socket of the kind; else what it is and what was wanted. Kind is checked, not believed.
std::string refuse_socket(int fd, SocketUse use);

bool is_seqpacket(int fd);
bool is_inet(int fd);
bool set_nonblocking(int fd);
// Of descriptors or memory: something may be given back.
bool is_shortage(int error);
// An accepted socket has SO_LINGER from the listening one.
void forget_linger(int fd);

// Octets that the socket can probably take now, from its send buffer's free memory (SO_MEMINFO).
size_t send_room(int fd, bool inet);

}  // namespace tlspool
