// The plain-text service behind every proxy: one thread, epoll, 127.0.0.1 only. Prints its port as one line of JSON.
//
// A client sends 8 octets: what to do, and how many octets (7, big endian).
//   S  send that many octets, then expect the next header
//   K  read and discard that many octets, answer one octet, then expect the next header
//   E  send everything back from here on
#include <sys/epoll.h>

#include <array>
#include <csignal>
#include <memory>

#include "util.h"

namespace {

using namespace bench;

constexpr size_t blockOctets = 256 * 1024;
const std::array<char, blockOctets> source{};
std::array<char, blockOctets> scratch;

class Connection {
 public:
  explicit Connection(int fd) : fd_(fd) { setNoDelay(fd); }
  int fd() const { return fd_.get(); }
  /// What to wait for: the epoll events that this connection needs next.
  uint32_t wants() const { return sendLeft_ > 0 || !echo_.empty() ? static_cast<uint32_t>(EPOLLOUT) : static_cast<uint32_t>(EPOLLIN); }

  /// One turn. False: the connection is over.
  bool turn() {
    if (!echo_.empty()) return flushEcho();
    if (sendLeft_ > 0) return sendMore();
    if (discardLeft_ > 0) return discardMore();
    if (echoing_) return readEcho();
    return readHeader();
  }

 private:
  static bool mayGoOn(ssize_t result) { return result > 0 || (result < 0 && (errno == EAGAIN || errno == EINTR)); }

  bool readHeader() {
    const ssize_t got = recv(fd(), header_.data() + headerGot_, header_.size() - headerGot_, 0);
    if (got <= 0) return mayGoOn(got);
    headerGot_ += static_cast<size_t>(got);
    if (headerGot_ < header_.size()) return true;
    headerGot_ = 0;
    uint64_t octets = 0;
    for (size_t i = 1; i < header_.size(); ++i) octets = octets << 8U | header_[i];
    switch (header_[0]) {
      case 'S': sendLeft_ = octets; return sendMore();
      case 'K': discardLeft_ = octets; return true;
      case 'E': echoing_ = true; return true;
      default: return false;
    }
  }

  bool sendMore() {
    const ssize_t sent = send(fd(), source.data(), std::min<uint64_t>(source.size(), sendLeft_), MSG_NOSIGNAL);
    if (sent > 0) sendLeft_ -= static_cast<uint64_t>(sent);
    return mayGoOn(sent);
  }

  bool discardMore() {
    // MSG_TRUNC drops the octets in the kernel: the backend is not to take the proxies' core.
    const ssize_t got = recv(fd(), scratch.data(), std::min<uint64_t>(8 * blockOctets, discardLeft_), MSG_TRUNC);
    if (got <= 0) return mayGoOn(got);
    discardLeft_ -= static_cast<uint64_t>(got);
    if (discardLeft_ == 0) sendLeft_ = 1;
    return discardLeft_ > 0 || sendMore();
  }

  bool readEcho() {
    const ssize_t got = recv(fd(), scratch.data(), scratch.size(), 0);
    if (got <= 0) return mayGoOn(got);
    echo_.assign(scratch.data(), static_cast<size_t>(got));
    return flushEcho();
  }

  bool flushEcho() {
    const ssize_t sent = send(fd(), echo_.data(), echo_.size(), MSG_NOSIGNAL);
    if (sent > 0) echo_.erase(0, static_cast<size_t>(sent));
    return mayGoOn(sent);
  }

  UniqueFd fd_;
  std::array<unsigned char, 8> header_{};
  size_t headerGot_ = 0;
  uint64_t sendLeft_ = 0, discardLeft_ = 0;
  bool echoing_ = false;
  std::string echo_;
};

class Backend {
 public:
  Backend() : listener_(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    if (bind(listener_.get(), raw, size) != 0 || listen(listener_.get(), 4096) != 0 || getsockname(listener_.get(), raw, &size) != 0) failErrno("listen");
    watch(EPOLL_CTL_ADD, listener_.get(), EPOLLIN);
    std::printf("{\"port\":%u}\n", ntohs(address.sin_port));
    std::fflush(stdout);
  }

  [[noreturn]] void run() {
    std::array<epoll_event, 256> events;
    for (;;) {
      const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
      if (count < 0 && errno != EINTR) failErrno("epoll_wait");
      for (int i = 0; i < count; ++i) dispatch(events[static_cast<size_t>(i)].data.fd);
    }
  }

 private:
  void watch(int what, int fd, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    if (epoll_ctl(epoll_.get(), what, fd, &event) != 0) failErrno("epoll_ctl");
  }

  void dispatch(int fd) {
    if (fd == listener_.get()) return acceptAll();
    auto& connection = connections_[static_cast<size_t>(fd)];
    const uint32_t before = connection->wants();
    if (!connection->turn()) return connection.reset();
    if (connection->wants() != before) watch(EPOLL_CTL_MOD, fd, connection->wants());
  }

  void acceptAll() {
    for (;;) {
      const int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR) return;
        failErrno("accept");
      }
      if (connections_.size() <= static_cast<size_t>(fd)) connections_.resize(static_cast<size_t>(fd) + 1);
      connections_[static_cast<size_t>(fd)] = std::make_unique<Connection>(fd);
      watch(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
  }

  UniqueFd listener_, epoll_;
  std::vector<std::unique_ptr<Connection>> connections_;
};

}  // namespace

int main() {
  std::signal(SIGPIPE, SIG_IGN);
  bench::raiseDescriptorLimit();
  Backend().run();
}
