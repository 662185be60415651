// Poll: readiness of one descriptor on Node's own loop (uv_poll).
//
// Lifetime. The JS object owns a PollHandle, which is deleted by its finalizer. While libuv knows the handle, a strong
// reference keeps the JS object alive; it is dropped in uv_close's callback. So the memory outlives libuv's use of it in
// every order of events: closed in its own callback, never closed, forgotten, or the whole environment going down.
//
// The handle watches its own duplicate of the descriptor. libuv aborts the process when a descriptor disappears
// between uv_poll_start and the next turn of the loop; a caller's mistake must not be able to do that.
#include <fcntl.h>
#include <unistd.h>
#include <uv.h>

#include <cerrno>
#include <memory>
#include <new>

#include "addon.h"
#include "call.h"
#include "unique_fd.h"

namespace tlspool {

class PollHandle {
 public:
  PollHandle(Addon& addon, UniqueFd fd) : addon_(addon), fd_(std::move(fd)) {}

  // 0 or a negative errno, after which the handle is as if it had never been.
  int open(uv_loop_t* loop) {
    const int status = uv_poll_init(loop, &poll_, fd_.get());
    if (status != 0) {
      fd_.reset();  // Now, not when the collector comes by.
      return status;
    }
    poll_.data = this;
    addon_.polls.insert(this);
    open_ = true;
    return 0;
  }

  // Keeps the JS object and its callback alive until the handle is closed.
  napi_status attach(napi_value self, napi_value callback) {
    napi_value name = nullptr;
    napi_status status = napi_create_reference(addon_.env, callback, 1, &callback_);
    if (status == napi_ok) status = napi_create_string_utf8(addon_.env, "tlspool.Poll", NAPI_AUTO_LENGTH, &name);
    if (status == napi_ok) status = napi_async_init(addon_.env, self, name, &context_);
    if (status == napi_ok) status = napi_create_reference(addon_.env, self, 1, &self_);
    return status;
  }

  bool is_open() const { return open_; }

  int start(int events) {
    wanted_ = events;
    return events == 0 ? uv_poll_stop(&poll_) : uv_poll_start(&poll_, events, on_ready);
  }

  void stop() { uv_poll_stop(&poll_); }

  void close() {
    if (!open_) return;
    open_ = false;
    uv_close(reinterpret_cast<uv_handle_t*>(&poll_), on_closed);
    fd_.reset();  // libuv has let go of it in uv_close.
  }

  uv_handle_t* handle() { return reinterpret_cast<uv_handle_t*>(&poll_); }

 private:
  static void on_ready(uv_poll_t* poll, int status, int events);
  static void on_closed(uv_handle_t* handle);

  Addon& addon_;
  UniqueFd fd_;
  uv_poll_t poll_{};
  bool open_ = false;
  int wanted_ = 0;
  napi_ref callback_ = nullptr;
  napi_ref self_ = nullptr;
  napi_async_context context_ = nullptr;
};

namespace {

// Tells our objects from those of other addons, and from objects that merely inherit our methods.
constexpr napi_type_tag poll_tag = {0x7c5b1d4e8f0a4f3aULL, 0x9d2e6b7a1c3f5e80ULL};

PollHandle* handle_of(Call& call) {
  bool ours = false;
  void* data = nullptr;
  napi_valuetype type = napi_undefined;
  if (napi_typeof(call.env(), call.self(), &type) == napi_ok && type == napi_object &&
      napi_check_object_type_tag(call.env(), call.self(), &poll_tag, &ours) == napi_ok && ours &&
      napi_unwrap(call.env(), call.self(), &data) == napi_ok) {
    return static_cast<PollHandle*>(data);
  }
  call.fail(bad_argument, "this method was called on something that is not a Poll");
  return nullptr;
}

// The handle, when it is open; otherwise nullptr, with BAD_STATE thrown.
PollHandle* open_handle_of(Call& call) {
  PollHandle* handle = handle_of(call);
  if (handle == nullptr || handle->is_open()) return handle;
  call.fail(bad_state, "the Poll is closed");
  return nullptr;
}

napi_value start_poll(napi_env env, napi_callback_info info) {
  Call call(env, info);
  PollHandle* handle = open_handle_of(call);
  if (handle == nullptr) return nullptr;
  const auto events = call.integer(call.arg(0), "events", 0, UV_READABLE | UV_WRITABLE | UV_DISCONNECT);
  if (!events) return nullptr;
  const int status = handle->start(static_cast<int>(*events));
  return status == 0 ? call.undefined() : call.fail_system("uv_poll_start", -status);
}

napi_value stop_poll(napi_env env, napi_callback_info info) {
  Call call(env, info);
  PollHandle* handle = handle_of(call);
  if (handle == nullptr) return nullptr;
  if (handle->is_open()) handle->stop();
  return call.undefined();
}

napi_value close_poll(napi_env env, napi_callback_info info) {
  Call call(env, info);
  PollHandle* handle = handle_of(call);
  if (handle == nullptr) return nullptr;
  handle->close();
  return call.undefined();
}

napi_value ref_poll(napi_env env, napi_callback_info info) {
  Call call(env, info);
  PollHandle* handle = handle_of(call);
  if (handle == nullptr) return nullptr;
  if (handle->is_open()) uv_ref(handle->handle());
  return call.undefined();
}

napi_value unref_poll(napi_env env, napi_callback_info info) {
  Call call(env, info);
  PollHandle* handle = handle_of(call);
  if (handle == nullptr) return nullptr;
  if (handle->is_open()) uv_unref(handle->handle());
  return call.undefined();
}

// `new Poll(fd, callback)`
napi_value construct_poll(napi_env env, napi_callback_info info) {
  Call call(env, info);
  napi_value target = nullptr;
  napi_get_new_target(env, info, &target);
  if (target == nullptr) return call.fail(bad_argument, "Poll is a class; call it with new, or use sockets.poll");
  const auto fd = call.fd(call.arg(0));
  if (!fd) return nullptr;
  napi_valuetype type = napi_undefined;
  if (!call.ok(napi_typeof(env, call.arg(1), &type))) return nullptr;
  if (type != napi_function) return call.fail(bad_argument, "callback must be a function");
  if (call.addon().tearing_down) return call.fail(bad_state, "this thread is going down");
  UniqueFd copy(::fcntl(*fd, F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return call.fail_system("fcntl", errno);
  uv_loop_t* loop = nullptr;
  if (!call.ok(napi_get_uv_event_loop(env, &loop))) return nullptr;

  std::unique_ptr<PollHandle> owner(new (std::nothrow) PollHandle(call.addon(), std::move(copy)));
  if (!owner) return call.fail_system("uv_poll_init", ENOMEM);
  PollHandle* handle = owner.get();
  const auto destroy = [](napi_env, void* data, void*) { std::unique_ptr<PollHandle> last(static_cast<PollHandle*>(data)); };
  if (!call.ok(napi_wrap(env, call.self(), handle, destroy, nullptr, nullptr))) return nullptr;
  owner.release();  // The JS object's from here on.
  if (!call.ok(napi_type_tag_object(env, call.self(), &poll_tag))) return nullptr;
  const int status = handle->open(loop);
  if (status != 0) return call.fail_system("uv_poll_init", -status);
  if (!call.ok(handle->attach(call.self(), call.arg(1)))) {
    handle->close();
    return nullptr;
  }
  return call.self();
}

void finish_teardown(Addon& addon) {
  if (!addon.tearing_down || !addon.polls.empty()) return;
  napi_async_cleanup_hook_handle hook = std::exchange(addon.teardown, nullptr);
  if (hook != nullptr) napi_remove_async_cleanup_hook(hook);
}

// The loop of a worker thread must be empty before Node ends it; Node waits for finish_teardown.
void tear_down(napi_async_cleanup_hook_handle hook, void* data) {
  Addon& addon = *static_cast<Addon*>(data);
  addon.tearing_down = true;
  addon.teardown = hook;
  for (PollHandle* handle : addon.polls) handle->close();
  // Nobody runs any more who could: Worker.terminate() ends the thread between two instructions.
  for (const int fd : addon.guarded) ::close(fd);
  addon.guarded.clear();
  finish_teardown(addon);
}

}  // namespace

void PollHandle::on_ready(uv_poll_t* poll, int status, int events) {
  PollHandle* self = static_cast<PollHandle*>(poll->data);
  napi_env env = self->addon_.env;
  if (status == UV_EBADF) {
    // libuv's word for POLLERR, after which it has stopped. A reset by the peer is such, and packets may be waiting in front of
    // it: say "ready", as poll(2) would, and let the next receive or send tell what it is.
    status = uv_poll_start(poll, self->wanted_, on_ready);
    events = self->wanted_;
  }
  napi_handle_scope scope = nullptr;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value object = nullptr;
  napi_value callback = nullptr;
  napi_value arguments[2] = {nullptr, nullptr};
  if (napi_get_reference_value(env, self->self_, &object) == napi_ok && object != nullptr &&
      napi_get_reference_value(env, self->callback_, &callback) == napi_ok && callback != nullptr &&
      napi_create_int32(env, status, &arguments[0]) == napi_ok && napi_create_int32(env, events, &arguments[1]) == napi_ok &&
      napi_make_callback(env, self->context_, object, callback, 2, arguments, nullptr) == napi_pending_exception) {
    napi_value exception = nullptr;
    if (napi_get_and_clear_last_exception(env, &exception) == napi_ok) napi_fatal_exception(env, exception);
  }
  napi_close_handle_scope(env, scope);
}

void PollHandle::on_closed(uv_handle_t* handle) {
  PollHandle* self = static_cast<PollHandle*>(handle->data);
  Addon& addon = self->addon_;
  addon.polls.erase(self);
  if (self->context_ != nullptr) napi_async_destroy(addon.env, std::exchange(self->context_, nullptr));
  if (self->callback_ != nullptr) napi_delete_reference(addon.env, std::exchange(self->callback_, nullptr));
  // Last: from here on the collector may delete *self.
  if (self->self_ != nullptr) napi_delete_reference(addon.env, std::exchange(self->self_, nullptr));
  finish_teardown(addon);
}

napi_value make_poll(napi_env env, napi_callback_info info) {
  Call call(env, info);
  napi_value poll_class = nullptr;
  napi_value result = nullptr;
  const napi_value arguments[2] = {call.arg(0), call.arg(1)};
  if (!call.ok(napi_get_reference_value(env, call.addon().poll_class, &poll_class)) ||
      !call.ok(napi_new_instance(env, poll_class, 2, arguments, &result))) {
    return nullptr;
  }
  return result;
}

napi_status set_up_polls(Addon& addon) {
  const auto method = [&addon](const char* name, Verb verb) {
    return napi_property_descriptor{name, nullptr, verb, nullptr, nullptr, nullptr, napi_default_method, &addon};
  };
  const napi_property_descriptor methods[] = {method("start", start_poll), method("stop", stop_poll), method("close", close_poll),
                                              method("ref", ref_poll), method("unref", unref_poll)};
  napi_value poll_class = nullptr;
  napi_status status = napi_define_class(addon.env, "Poll", NAPI_AUTO_LENGTH, construct_poll, &addon,
                                         sizeof methods / sizeof *methods, methods, &poll_class);
  if (status == napi_ok) status = napi_create_reference(addon.env, poll_class, 1, &addon.poll_class);
  if (status == napi_ok) status = napi_add_async_cleanup_hook(addon.env, tear_down, &addon, nullptr);
  return status;
}

}  // namespace tlspool
