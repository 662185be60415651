// send and receive: octets with descriptors (SCM_RIGHTS).
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>

#include "addon.h"
#include "call.h"
#include "discard.h"

namespace tlspool {
namespace {

constexpr int64_t most_octets = 16 << 20;
// Room for as many descriptors as the kernel ever passes, and for control data that nobody asked for: whatever fits is
// seen and closed; what does not fit is told by MSG_CTRUNC.
constexpr size_t control_octets = CMSG_SPACE(most_fds * sizeof(int)) + 1024;

// Descriptors that arrived; closed at the end unless they were given away.
class ReceivedFds {
 public:
  ReceivedFds() = default;
  ReceivedFds(const ReceivedFds&) = delete;
  ReceivedFds& operator=(const ReceivedFds&) = delete;
  ~ReceivedFds() {
    for (size_t index = 0; index < count_; index++) discard(fds_[index]);
  }
  void add(int fd) {
    if (count_ < fds_.size()) {
      fds_[count_++] = fd;
    } else {
      discard(fd);
    }
  }
  size_t count() const { return count_; }
  int operator[](size_t index) const { return fds_[index]; }
  void release() { count_ = 0; }

 private:
  std::array<int, most_fds + 1> fds_;  // One more, so that a surplus is seen as such.
  size_t count_ = 0;
};

// Walks every control message. Descriptors of SCM_RIGHTS are kept; a pidfd (SO_PASSPIDFD is the choice of whoever made the
// socket, which need not be us) is closed; credentials and labels need no clean-up.
void collect(msghdr& message, ReceivedFds& fds) {
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr; control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_SOCKET) continue;
    if (control->cmsg_type != SCM_RIGHTS && control->cmsg_type != SCM_PIDFD) continue;
    const size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < count; index++) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(control) + index * sizeof(int), sizeof fd);
      if (fd < 0) continue;
      if (control->cmsg_type == SCM_RIGHTS) {
        fds.add(fd);
      } else {
        ::close(fd);
      }
    }
  }
}

// The kernel drops descriptors that it cannot install and says MSG_CTRUNC; this tells that from surplus control data.
int out_of_descriptors(int fd) {
  const int probe = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (probe < 0) return errno;
  ::close(probe);
  return 0;
}

bool reserve_scratch(Call& call, size_t octets) {
  Addon& addon = call.addon();
  if (addon.scratch_octets >= octets) return true;
  addon.scratch.reset(new (std::nothrow) uint8_t[octets]);
  addon.scratch_octets = addon.scratch ? octets : 0;
  if (!addon.scratch) call.fail_system("recvmsg", ENOMEM);
  return addon.scratch != nullptr;
}

// A control key or a PIN must not stay there until a packet of the same size comes, whatever becomes of it.
class ScratchCleanser {
 public:
  ScratchCleanser(Call& call, ssize_t octets) : scratch_(call.addon().scratch.get()), octets_(octets > 0 ? static_cast<size_t>(octets) : 0) {}
  ~ScratchCleanser() { explicit_bzero(scratch_, octets_); }
  ScratchCleanser(const ScratchCleanser&) = delete;
  ScratchCleanser& operator=(const ScratchCleanser&) = delete;

 private:
  uint8_t* scratch_;
  size_t octets_;
};

napi_value received_value(Call& call, size_t octets, ReceivedFds& fds, int lost_because = 0) {
  napi_env env = call.env();
  napi_value result = nullptr;
  napi_value data = nullptr;
  napi_value list = nullptr;
  napi_value eof = nullptr;
  if (!call.ok(napi_create_object(env, &result)) ||
      !call.ok(napi_create_buffer_copy(env, octets, call.addon().scratch.get(), nullptr, &data)) ||
      !call.ok(napi_create_array_with_length(env, fds.count(), &list)) ||
      !call.ok(napi_get_boolean(env, octets == 0 && fds.count() == 0, &eof))) {
    return nullptr;
  }
  for (uint32_t index = 0; index < fds.count(); index++) {
    napi_value number = call.integer_value(fds[index]);
    if (number == nullptr || !call.ok(napi_set_element(env, list, index, number))) return nullptr;
  }
  if (!call.set(result, "data", data) || !call.set(result, "fds", list) || !call.set(result, "eof", eof)) return nullptr;
  if (lost_because != 0 && !call.set(result, "lost", call.integer_value(-lost_because))) return nullptr;
  fds.release();  // The caller's now.
  return result;
}

// The descriptors to send, checked. False when something was thrown.
bool read_fds(Call& call, napi_value list, std::array<int, most_fds>& fds, uint32_t& count) {
  count = 0;
  if (call.absent(list)) return true;
  bool is_array = false;
  napi_is_array(call.env(), list, &is_array);
  if (!is_array) {
    call.fail(bad_argument, "fds must be an array of descriptors");
    return false;
  }
  uint32_t length = 0;
  if (!call.ok(napi_get_array_length(call.env(), list, &length))) return false;
  if (length > most_fds) {
    call.fail(fd_count, std::to_string(length) + " descriptors; one packet carries at most " + std::to_string(most_fds));
    return false;
  }
  for (; count < length; count++) {
    napi_value item = nullptr;
    if (!call.ok(napi_get_element(call.env(), list, count, &item))) return false;
    const auto fd = call.fd(item, "fds[]");
    if (!fd) return false;
    fds[count] = *fd;
  }
  return true;
}

bool is_stream(int fd) {
  int type = 0;
  socklen_t octets = sizeof type;
  return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &octets) == 0 && type == SOCK_STREAM;
}

}  // namespace

napi_value send_message(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  std::array<int, most_fds> fds;
  uint32_t count = 0;
  if (!read_fds(call, call.arg(2), fds, count)) return nullptr;
  // After the array: its getters are the caller's code and could detach the data.
  const auto data = call.octets(call.arg(1), "data");
  if (!data) return nullptr;
  if (data->empty() && count > 0 && is_stream(*fd)) {
    return call.fail(bad_argument, "a stream carries descriptors only along with at least one octet");
  }
  iovec part{const_cast<uint8_t*>(data->data()), data->size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<uint8_t, CMSG_SPACE(most_fds * sizeof(int))> control;
  if (count > 0) {
    const size_t octets = count * sizeof(int);
    std::memset(control.data(), 0, CMSG_SPACE(octets));
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(octets);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(octets);
    std::memcpy(CMSG_DATA(header), fds.data(), octets);
  }
  for (;;) {
    // MSG_DONTWAIT: O_NONBLOCK belongs to the open file, which a peer that shares it can change.
    const ssize_t sent = ::sendmsg(*fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return call.integer_value(sent);
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return call.integer_value(-1);
    return call.fail_system("sendmsg", errno);
  }
}

napi_value receive_message(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  const auto max_octets = call.integer(call.arg(1), "maxOctets", 1, most_octets);
  if (!max_octets) return nullptr;
  const auto max_fds = call.integer(call.arg(2), "maxFds", 0, most_fds);
  if (!max_fds) return nullptr;
  if (!reserve_scratch(call, static_cast<size_t>(*max_octets))) return nullptr;

  iovec part{call.addon().scratch.get(), static_cast<size_t>(*max_octets)};
  alignas(cmsghdr) std::array<uint8_t, control_octets> control;
  msghdr message{};
  ssize_t octets = 0;
  do {
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    octets = ::recvmsg(*fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (octets < 0 && errno == EINTR);
  if (octets < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return call.null();
    return call.fail_system("recvmsg", errno);
  }

  const ScratchCleanser cleanser(call, octets);
  ReceivedFds fds;
  collect(message, fds);
  if ((message.msg_flags & MSG_TRUNC) != 0) {
    return call.fail(message_too_large, "a packet of more than " + std::to_string(*max_octets) + " octets was dropped");
  }
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    const int error = out_of_descriptors(*fd);
    bool may_lose = false;
    napi_get_value_bool(env, call.arg(3), &may_lose);  // Anything that is no boolean leaves it false.
    if (may_lose && error != 0 && octets > 0 && fds.count() <= static_cast<size_t>(*max_fds)) {
      return received_value(call, static_cast<size_t>(octets), fds, error);
    }
    return call.fail(fd_count, error != 0 ? "descriptors that came with a packet were lost, because this process or host has no more; raise the limit"
                                          : "a packet came with more control data than any that is asked for", error);
  }
  if (fds.count() > static_cast<size_t>(*max_fds)) {
    return call.fail(fd_count, std::to_string(fds.count()) + " descriptors came with a packet that may have " + std::to_string(*max_fds));
  }
  return received_value(call, static_cast<size_t>(octets), fds);
}

// Plain recv: descriptors that wait behind the octets stay where they are.
napi_value peek_octets(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  const auto max_octets = call.integer(call.arg(1), "maxOctets", 1, most_octets);
  if (!max_octets || !reserve_scratch(call, static_cast<size_t>(*max_octets))) return nullptr;
  ssize_t octets = 0;
  do octets = ::recv(*fd, call.addon().scratch.get(), static_cast<size_t>(*max_octets), MSG_PEEK | MSG_DONTWAIT);
  while (octets < 0 && errno == EINTR);
  if (octets < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return call.null();
    return call.fail_system("recv", errno);
  }
  const ScratchCleanser cleanser(call, octets);
  napi_value data = nullptr;
  return call.ok(napi_create_buffer_copy(env, static_cast<size_t>(octets), call.addon().scratch.get(), nullptr, &data)) ? data : nullptr;
}

}  // namespace tlspool
