#include "discard.h"

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "addon.h"
#include "call.h"

namespace tlspool {
namespace {

// Threads that wait in close(2). A number is free again when its close begins, so what waits behind so many costs one each.
constexpr size_t most_closers = 16;
constexpr size_t stack_octets = 256 * 1024;

// Of the process, and never freed: a thread may wait in close(2) beyond the end of everything else.
struct Closers {
  std::mutex mutex;
  std::vector<int> waiting;
  size_t threads = 0;
};

Closers& closers() {
  alignas(Closers) static std::byte room[sizeof(Closers)];
  static Closers* const one = std::construct_at(reinterpret_cast<Closers*>(room));
  return *one;
}

void* close_waiting(void*) {
  Closers& own = closers();
  for (;;) {
    int fd = -1;
    {
      const std::lock_guard lock(own.mutex);
      if (own.waiting.empty()) {
        own.threads--;
        return nullptr;
      }
      fd = own.waiting.back();
      own.waiting.pop_back();
    }
    ::close(fd);
  }
}

bool start_closer() {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, stack_octets);
  // Signals belong to Node's own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const bool started = pthread_create(&thread, &attributes, close_waiting, nullptr) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return started;
}

void close_elsewhere(int fd) {
  Closers& own = closers();
  const std::lock_guard lock(own.mutex);
  own.waiting.push_back(fd);
  if (own.threads < most_closers && start_closer()) own.threads++;
  // Without a thread it waits for the next one; nothing here may wait for it.
}

}  // namespace

void discard(int fd) {
  linger wait{};
  socklen_t octets = sizeof wait;
  const bool known = ::getsockopt(fd, SOL_SOCKET, SO_LINGER, &wait, &octets) == 0;
  if (!known && errno == ENOTSOCK) return close_elsewhere(fd);
  // 0 seconds do not wait: they are how a stream that was cut ends with a reset.
  if (known && wait.l_onoff != 0 && wait.l_linger != 0) {
    const linger none{0, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    // Elsewhere all the same: who has set it once may have a copy, and set it again.
    return close_elsewhere(fd);
  }
  ::close(fd);
}

napi_value discard_fd(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  discard(*fd);
  return call.undefined();
}

}  // namespace tlspool
