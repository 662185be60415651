// One measured run: so many units of warm-up, then so many that count, in a closed loop over a few connections.
#pragma once

#include <sys/epoll.h>

#include "util.h"

namespace bench {

struct Options {
  std::string mode;
  uint16_t port = 0;
  unsigned connections = 1;
  uint64_t units = 0;
  uint64_t warmup = 0;
  unsigned deadlineS = 120;
  /// Octets one request of a transfer is long; a run is many of them, so that times to first octet have quantiles.
  uint64_t transferOctets = 16U << 20U;
  std::string path = "/";
};

/// Counts units, opens and closes the measured window, and collects the times to first octet that fall into it.
class Run {
 public:
  Run(const Options& options, CpuWatch& watch) : options_(options), watch_(watch) {
    if (options.warmup == 0) open();
  }
  bool finished() const { return finished_; }

  void complete(uint64_t units) {
    done_ += units;
    if (!open_ && done_ >= options_.warmup) {
      open();
    } else if (open_ && !finished_ && done_ - doneAtOpen_ >= options_.units) {
      finish();
    }
  }

  void firstOctet(uint64_t sinceNs) {
    if (open_ && !finished_) firstOctets_.add(nowNs() - sinceNs);
  }

  /// The result on standard output, one line of JSON.
  void print() {
    std::printf(
        "{\"units\":%llu,\"wallNs\":%llu,\"loadCpuNs\":%llu,\"cpuNs\":%s,\"firstOctet\":{\"samples\":%zu,\"p50Us\":%.1f,\"p99Us\":%.1f}}\n",
        static_cast<unsigned long long>(units_), static_cast<unsigned long long>(wallNs_), static_cast<unsigned long long>(ownNs_),
        cpuJson_.c_str(), firstOctets_.count(), firstOctets_.quantileUs(0.5), firstOctets_.quantileUs(0.99));
    std::fflush(stdout);
  }

 private:
  void open() {
    open_ = true;
    doneAtOpen_ = done_;
    firstOctets_.clear();
    watch_.start();
    startNs_ = nowNs();
    ownStartNs_ = clockNs(CLOCK_PROCESS_CPUTIME_ID);
  }
  void finish() {
    finished_ = true;
    wallNs_ = nowNs() - startNs_;
    cpuJson_ = watch_.json();
    ownNs_ = clockNs(CLOCK_PROCESS_CPUTIME_ID) - ownStartNs_;
    units_ = done_ - doneAtOpen_;
  }

  const Options& options_;
  CpuWatch& watch_;
  Samples firstOctets_;
  bool open_ = false;
  bool finished_ = false;
  uint64_t done_ = 0, doneAtOpen_ = 0, units_ = 0;
  uint64_t startNs_ = 0, wallNs_ = 0, ownStartNs_ = 0, ownNs_ = 0;
  std::string cpuJson_;
};

/// Something that lives on a descriptor.
class Handler {
 public:
  virtual ~Handler() = default;
  /// Goes on until it would block or has used its turn; true asks for another turn without waiting for the kernel.
  virtual bool onReady() = 0;
};

/// Edge-triggered epoll with a list of handlers that used up their turn.
class Loop {
 public:
  Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_.get() < 0) failErrno("epoll_create1");
  }
  void add(int fd, Handler* handler) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.ptr = handler;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) failErrno("epoll_ctl");
  }
  template <typename Condition>
  void runUntil(Condition done) {
    std::vector<epoll_event> events(256);
    while (!done()) {
      const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), ready_.empty() ? -1 : 0);
      if (count < 0 && errno != EINTR) failErrno("epoll_wait");
      turn_.swap(ready_);
      for (int i = 0; i < count; ++i) turn_.push_back(static_cast<Handler*>(events[static_cast<size_t>(i)].data.ptr));
      // A handler may be in the list twice (an edge and a leftover turn); handlers are never freed while the loop runs, so that is harmless.
      for (Handler* handler : turn_) {
        if (done()) return;
        if (handler->onReady()) ready_.push_back(handler);
      }
      turn_.clear();
    }
  }

 private:
  UniqueFd epoll_;
  std::vector<Handler*> ready_, turn_;
};

}  // namespace bench
