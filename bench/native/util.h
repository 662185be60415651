// Small parts that the load generator and the backend share: descriptors, clocks, samples, CPU clocks of other processes.
#pragma once

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bench {

/// Prints the reason and ends the process with status 1: a benchmark that met an error has no result.
[[noreturn]] inline void fail(const std::string& reason) {
  std::fprintf(stderr, "%s\n", reason.c_str());
  std::_Exit(1);
}

[[noreturn]] inline void failErrno(const std::string& what) { fail(what + ": " + std::strerror(errno)); }

/// Owns one descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(); }
  int get() const { return fd_; }
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

inline uint64_t clockNs(clockid_t clock) {
  timespec now{};
  if (clock_gettime(clock, &now) != 0) failErrno("clock_gettime (has a watched process died?)");
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<uint64_t>(now.tv_nsec);
}
inline uint64_t nowNs() { return clockNs(CLOCK_MONOTONIC); }

/// Loopback only: nothing that this benchmark starts ever talks to another machine.
inline sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

inline void setNoDelay(int fd) {
  const int on = 1;
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) failErrno("TCP_NODELAY");
}

inline void raiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) failErrno("getrlimit");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) failErrno("setrlimit");
}

/// Durations, for quantiles.
class Samples {
 public:
  void add(uint64_t ns) { ns_.push_back(ns); }
  void clear() { ns_.clear(); }
  size_t count() const { return ns_.size(); }
  /// Nearest-rank quantile in microseconds; 0 when there are no samples.
  double quantileUs(double q) {
    if (ns_.empty()) return 0;
    const auto rank = std::min(ns_.size() - 1, static_cast<size_t>(q * static_cast<double>(ns_.size())));
    std::nth_element(ns_.begin(), ns_.begin() + static_cast<std::ptrdiff_t>(rank), ns_.end());
    return static_cast<double>(ns_[rank]) / 1000.0;
  }

 private:
  std::vector<uint64_t> ns_;
};

/// CPU time (user and system) of groups of processes, threads that have ended included, in nanoseconds and not in ticks.
class CpuWatch {
 public:
  /// `NAME=PID,PID,...`
  void add(std::string_view spec) {
    const auto equals = spec.find('=');
    if (equals == std::string_view::npos) fail("--watch: expected NAME=PID,PID");
    Group group{std::string(spec.substr(0, equals)), {}, 0};
    std::string list(spec.substr(equals + 1));
    for (char* at = list.data(); *at != 0;) {
      const long pid = std::strtol(at, &at, 10);
      clockid_t clock{};
      if (pid <= 0 || clock_getcpuclockid(static_cast<pid_t>(pid), &clock) != 0) fail("--watch: no such process in " + std::string(spec));
      group.clocks.push_back(clock);
      if (*at == ',') ++at;
    }
    groups_.push_back(std::move(group));
  }
  void start() {
    for (auto& group : groups_) group.startNs = sum(group);
  }
  /// JSON object NAME -> nanoseconds since start().
  std::string json() const {
    std::string out = "{";
    for (const auto& group : groups_) {
      if (out.size() > 1) out += ',';
      out += '"' + group.name + "\":" + std::to_string(sum(group) - group.startNs);
    }
    return out + '}';
  }

 private:
  struct Group {
    std::string name;
    std::vector<clockid_t> clocks;
    uint64_t startNs;
  };
  static uint64_t sum(const Group& group) {
    uint64_t total = 0;
    for (const clockid_t clock : group.clocks) total += clockNs(clock);
    return total;
  }
  std::vector<Group> groups_;
};

}  // namespace bench
