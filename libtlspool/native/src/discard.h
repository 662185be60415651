// The end of descriptors that somebody else had. Header only: the engine uses it too.
//
// close(2) of what somebody else has opened may take as long as he likes. A socket with SO_LINGER waits for its peer (socket(7)), O_NONBLOCK or not; a UNIX socket for
// such sockets that are in its queue; a file for whoever serves its file system (FUSE, NFS). The same goes for recv(2) without room for the descriptors that come.
// So these things are done by threads that have nothing else to do.
#pragma once

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <ctime>
#include <deque>
#include <memory>

#include "interrupt.h"

// Linux 6.5; older headers lack it.
#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04
#endif

namespace tlspool {

// Threads that close. One that waits for a peer is interrupted; only file systems can hold one for longer. A number is free again when its
// close begins, so what waits behind so many costs one each.
//
// Waking a thread costs more than closing: one of those that are free looks for more from time to time, and is woken only after a pause.
class Closers {
 public:
  static Closers& of_process() {
    // Never freed: a thread may wait in close(2) beyond the end of everything else.
    alignas(Closers) static std::byte room[sizeof(Closers)];
    static Closers* const one = std::construct_at(reinterpret_cast<Closers*>(room));
    return *one;
  }

  void add(int fd) {
    pthread_mutex_lock(&mutex_);
    waiting_.push_back(fd);
    if (!napping_) call_another();
    pthread_mutex_unlock(&mutex_);
  }

 private:
  static constexpr size_t most_threads = 64;
  static constexpr size_t stack_octets = 128 * 1024;
  static constexpr long patience_ns = 50'000'000;
  static constexpr time_t idle_s = 5;
  static constexpr long nap_ns = 2'000'000;
  static constexpr int naps = 10;

  static void* work(void* self) {
    static_cast<Closers*>(self)->close_all();
    return nullptr;
  }

  bool start() {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, stack_octets);
    const SignalsBlocked blocked;
    pthread_t thread;
    const bool started = pthread_create(&thread, &attributes, work, this) == 0;
    pthread_attr_destroy(&attributes);
    return started;
  }

  // With the mutex. Without a thread it waits for the next one; nothing here may wait for it.
  void call_another() {
    if (idle_ > 0) {
      pthread_cond_signal(&more_);
    } else if (threads_ < most_threads && start()) {
      threads_++;
    }
  }

  void close_all() {
    // Else it has the name of whoever started it.
    pthread_setname_np(pthread_self(), "closer");
    Interrupter interrupter;
    pthread_mutex_lock(&mutex_);
    while (wait_for_more()) {
      while (!waiting_.empty()) {
        const int fd = waiting_.front();
        waiting_.pop_front();
        const bool others = !waiting_.empty();
        pthread_mutex_unlock(&mutex_);
        interrupter.keep(patience_ns);
        close_now(fd, others);
        pthread_mutex_lock(&mutex_);
      }
      interrupter.set(0);
    }
    threads_--;
    pthread_mutex_unlock(&mutex_);
  }

  // With the mutex. False: there was nothing for a while.
  bool wait_for_more() {
    for (int nap = 0; nap < naps && waiting_.empty() && !napping_; ++nap) {
      napping_ = true;
      pthread_mutex_unlock(&mutex_);
      const timespec moment{0, nap_ns};
      nanosleep(&moment, nullptr);
      pthread_mutex_lock(&mutex_);
      napping_ = false;
    }
    timespec until{};
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += idle_s;
    while (waiting_.empty()) {
      idle_++;
      const int result = pthread_cond_timedwait(&more_, &mutex_, &until);
      idle_--;
      if (result != 0 && waiting_.empty()) return false;
    }
    return true;
  }

  void close_now(int fd, bool others) {
    linger wait{};
    socklen_t octets = sizeof wait;
    if (::getsockopt(fd, SOL_SOCKET, SO_LINGER, &wait, &octets) != 0) {
      // No socket: whoever serves its file system may keep this thread.
      if (others) {
        pthread_mutex_lock(&mutex_);
        call_another();
        pthread_mutex_unlock(&mutex_);
      }
    } else if (wait.l_onoff != 0 && wait.l_linger != 0) {
      // 0 seconds do not wait: they are how a stream that was cut ends with a reset.
      const linger none{0, 0};
      ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    }
    ::close(fd);
  }

  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t more_ = PTHREAD_COND_INITIALIZER;
  std::deque<int> waiting_;
  size_t threads_ = 0;
  size_t idle_ = 0;        // threads that wait to be woken
  bool napping_ = false;   // one thread looks again soon
};

// Closes what somebody else has had, a moment later and without waiting. Whether close(2) fails is of no interest: Linux has released the descriptor all the same.
inline void discard(int fd) { Closers::of_process().add(fd); }

// What recvmsg(2) says, and whether anything came beside the octets.
struct Taken {
  ssize_t octets;
  bool with_control;
};

// Takes octets out of a socket and discards the descriptors that come with them. `errno` is that of recvmsg(2).
inline Taken take_octets(int fd, void* data, size_t length, int flags) {
  // The most descriptors that the kernel passes at once (SCM_MAX_FD), and room for what else the socket may have been told to bring.
  constexpr size_t kernel_most = 253;
  alignas(cmsghdr) char control[CMSG_SPACE(kernel_most * sizeof(int)) + 1024];
  iovec place{data, length};
  msghdr message{};
  message.msg_iov = &place;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t octets = ::recvmsg(fd, &message, flags | MSG_CMSG_CLOEXEC);
  if (octets < 0 || message.msg_controllen == 0) return {octets, false};
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    // SCM_PIDFD comes where whoever had the socket has asked for it.
    if (header->cmsg_level != SOL_SOCKET || (header->cmsg_type != SCM_RIGHTS && header->cmsg_type != SCM_PIDFD)) continue;
    for (size_t at = CMSG_LEN(0); at + sizeof(int) <= header->cmsg_len; at += sizeof(int)) {
      int one = -1;
      std::memcpy(&one, reinterpret_cast<const char*>(header) + at, sizeof one);
      if (one >= 0) discard(one);
    }
  }
  return {octets, true};
}

// recv(2) for a UNIX socket that is to bring octets and no descriptors.
inline ssize_t receive_octets(int fd, void* data, size_t length, int flags) { return take_octets(fd, data, length, flags).octets; }

// Octets that are sent out of band (unix(7), MSG_OOB) come in their place, with their descriptors: recv(2) would drop both otherwise.
inline void keep_in_line(int fd) {
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
}

// Closes a socket that nobody is to use any more, not by a copy either. The queue of a UNIX socket is emptied first: closing it would close the descriptors in it. Others are
// closed at once, or discarded where somebody else has had them.
inline void close_drained(int fd, bool passed) {
  int domain = 0, type = 0;
  socklen_t octets = sizeof domain;
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &octets) != 0 || domain != AF_UNIX) return passed ? discard(fd) : static_cast<void>(::close(fd));
  octets = sizeof type;
  if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &octets) != 0) return discard(fd);
  // Nothing can come any more behind what is there.
  ::shutdown(fd, SHUT_RD);
  const bool packets = type != SOCK_STREAM;
  // An empty packet looks like the end, but for the credentials of its sender.
  const int on = 1;
  if (packets) ::setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
  char scratch[4096];
  for (;;) {
    const Taken taken = take_octets(fd, scratch, sizeof scratch, MSG_DONTWAIT);
    if (taken.octets > 0 || (taken.octets < 0 && errno == EINTR) || (packets && taken.with_control)) continue;
    break;
  }
  ::close(fd);
}

}  // namespace tlspool
