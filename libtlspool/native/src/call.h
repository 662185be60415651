// One call from JS: its arguments, and the ways to answer or to throw.
//
// The convention of this addon: whoever returns an empty optional, false or nullptr has thrown into JS already (or JS can
// no longer run), and the caller returns nullptr at once. There are no C++ exceptions, and nothing asserts on input.
#pragma once

#include <node_api.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace tlspool {

struct Addon;

// Error codes of libtlspool/src/protocol/errors.ts.
inline constexpr const char* bad_argument = "BAD_ARGUMENT";
inline constexpr const char* bad_state = "BAD_STATE";
inline constexpr const char* fd_count = "FD_COUNT";
inline constexpr const char* fd_kind = "FD_KIND";
inline constexpr const char* message_too_large = "MESSAGE_TOO_LARGE";

// The kernel's SCM_MAX_FD: no packet carries more descriptors.
inline constexpr int64_t most_fds = 253;

class Call {
 public:
  Call(napi_env env, napi_callback_info info);

  napi_env env() const { return env_; }
  napi_value self() const { return self_; }
  Addon& addon() const { return *addon_; }
  // undefined when it was not passed.
  napi_value arg(size_t index) const { return args_[index]; }
  bool absent(napi_value value) const;

  // Readers. `name` is the argument's name in error texts.
  std::optional<int64_t> integer(napi_value value, const char* name, int64_t min, int64_t max);
  std::optional<int> fd(napi_value value, const char* name = "fd");
  std::optional<std::string> text(napi_value value, const char* name);
  std::optional<int> socket_type(napi_value value, const char* name = "kind");
  // View of a Uint8Array; valid until JS runs again. Refuses detached and shared memory.
  std::optional<std::span<const uint8_t>> octets(napi_value value, const char* name);
  // A property of an options object.
  std::optional<napi_value> property(napi_value object, const char* key);
  std::optional<int64_t> integer_option(napi_value object, const char* key, int64_t min, int64_t max, int64_t fallback);
  std::optional<bool> bool_option(napi_value object, const char* key);

  // Answers.
  napi_value integer_value(int64_t value);
  napi_value undefined() const;
  napi_value null() const;
  bool set(napi_value object, const char* key, napi_value value);
  // False, with something thrown, unless status is napi_ok.
  bool ok(napi_status status);

  // Throw TlsPoolError; return nullptr so that a caller can `return call.fail(...)`.
  napi_value fail(const char* code, const std::string& text, int error = 0);
  napi_value fail_system(const char* syscall, int error, const std::string& subject = "");

 private:
  void raise(const char* code, const std::string& text, int error, const char* syscall);

  static constexpr size_t most_args = 4;
  napi_env env_;
  napi_value self_ = nullptr;
  Addon* addon_ = nullptr;
  std::array<napi_value, most_args> args_{};
};

}  // namespace tlspool
