// Verbs that any descriptor or socket takes: close, dup, shutdown, poll(2).
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>

#include "addon.h"
#include "call.h"
#include "discard.h"

namespace tlspool {

napi_value close_fd(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  call.addon().guarded.erase(*fd);
  // Not retried on EINTR: Linux has released the descriptor by then, and another thread may have its number already.
  if (::close(*fd) != 0 && errno != EINTR) return call.fail_system("close", errno);
  return call.undefined();
}

napi_value discard_fd(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  discard(*fd);
  return call.undefined();
}

napi_value close_drained_fd(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  bool passed = false;
  napi_get_value_bool(env, call.arg(1), &passed);  // Anything that is no boolean leaves it false.
  close_drained(*fd, passed);
  return call.undefined();
}

napi_value close_with_thread(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  call.addon().guarded.insert(*fd);
  return call.undefined();
}

napi_value dup_fd(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  const int copy = ::fcntl(*fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return call.fail_system("fcntl", errno);
  return call.integer_value(copy);
}

napi_value shutdown_fd(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  const auto how = call.integer(call.arg(1), "how", SHUT_RD, SHUT_RDWR);
  if (!how) return nullptr;
  if (::shutdown(*fd, static_cast<int>(*how)) != 0) return call.fail_system("shutdown", errno);
  return call.undefined();
}

napi_value poll_wait(napi_env env, napi_callback_info info) {
  using Clock = std::chrono::steady_clock;
  Call call(env, info);
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  const auto events = call.integer(call.arg(1), "events", 0, SHRT_MAX);
  if (!events) return nullptr;
  const auto timeout_ms = call.integer(call.arg(2), "timeoutMs", -1, INT_MAX);
  if (!timeout_ms) return nullptr;
  pollfd watched{*fd, static_cast<short>(*events), 0};
  const auto deadline = Clock::now() + std::chrono::milliseconds(*timeout_ms);
  int wait_ms = static_cast<int>(*timeout_ms);
  for (;;) {
    const int ready = ::poll(&watched, 1, wait_ms);
    if (ready >= 0) return call.integer_value(ready == 0 ? 0 : watched.revents);
    if (errno != EINTR) return call.fail_system("poll", errno);
    if (*timeout_ms < 0) continue;  // -1 waits without end.
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    wait_ms = left > 0 ? static_cast<int>(left) : 0;
  }
}

}  // namespace tlspool
