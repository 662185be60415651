#include "call.h"

#include <sys/socket.h>
#include <uv.h>

#include <cerrno>
#include <climits>
#include <cmath>
#include <cstdio>

#include "addon.h"

namespace tlspool {
namespace {

std::string shown(double number) {
  char buffer[32] = "";
  std::snprintf(buffer, sizeof buffer, "%g", number);
  return buffer;
}

}  // namespace

Call::Call(napi_env env, napi_callback_info info) : env_(env) {
  size_t count = most_args;  // Node fills what is missing with undefined.
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, args_.data(), &self_, &data);
  addon_ = static_cast<Addon*>(data);
}

bool Call::ok(napi_status status) {
  if (status == napi_ok) return true;
  bool pending = false;
  napi_is_exception_pending(env_, &pending);
  if (!pending) raise("INTERNAL", "a Node-API call failed with status " + std::to_string(status), 0, nullptr);
  return false;
}

bool Call::absent(napi_value value) const {
  napi_valuetype type = napi_undefined;
  return value == nullptr || napi_typeof(env_, value, &type) != napi_ok || type == napi_undefined;
}

std::optional<int64_t> Call::integer(napi_value value, const char* name, int64_t min, int64_t max) {
  double number = NAN;
  const bool is_number = napi_get_value_double(env_, value, &number) == napi_ok;
  // Written so that NaN is refused; int64_t conversion is only reached inside the range.
  if (is_number && number >= static_cast<double>(min) && number <= static_cast<double>(max) && number == std::trunc(number)) {
    return static_cast<int64_t>(number);
  }
  fail(bad_argument, std::string(name) + " must be an integer from " + std::to_string(min) + " to " + std::to_string(max) +
                         (is_number ? ", not " + shown(number) : ", and it is no number"));
  return std::nullopt;
}

std::optional<int> Call::fd(napi_value value, const char* name) {
  const auto number = integer(value, name, 0, INT_MAX);
  if (!number) return std::nullopt;
  return static_cast<int>(*number);
}

std::optional<std::string> Call::text(napi_value value, const char* name) {
  size_t length = 0;
  if (napi_get_value_string_utf8(env_, value, nullptr, 0, &length) != napi_ok) {
    fail(bad_argument, std::string(name) + " must be a string");
    return std::nullopt;
  }
  constexpr size_t longest = 4096;  // Longer than any path or address that the kernel takes.
  if (length > longest) {
    fail(bad_argument, std::string(name) + " has " + std::to_string(length) + " octets; it is too long");
    return std::nullopt;
  }
  std::string result(length + 1, '\0');
  if (!ok(napi_get_value_string_utf8(env_, value, result.data(), result.size(), &length))) return std::nullopt;
  result.resize(length);
  return result;
}

std::optional<int> Call::socket_type(napi_value value, const char* name) {
  const auto kind = text(value, name);
  if (!kind) return std::nullopt;
  if (*kind == "stream") return SOCK_STREAM;
  if (*kind == "seqpacket") return SOCK_SEQPACKET;
  fail(bad_argument, std::string(name) + " must be 'stream' or 'seqpacket'");
  return std::nullopt;
}

std::optional<std::span<const uint8_t>> Call::octets(napi_value value, const char* name) {
  bool is_typed = false;
  napi_is_typedarray(env_, value, &is_typed);
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  napi_value buffer = nullptr;
  if (is_typed && !ok(napi_get_typedarray_info(env_, value, &type, &length, &data, &buffer, nullptr))) return std::nullopt;
  if (!is_typed || type != napi_uint8_array) {
    fail(bad_argument, std::string(name) + " must be a Uint8Array");
    return std::nullopt;
  }
  bool private_memory = false;
  bool detached = true;
  napi_is_arraybuffer(env_, buffer, &private_memory);
  if (private_memory) napi_is_detached_arraybuffer(env_, buffer, &detached);
  if (!private_memory || detached) {
    fail(bad_argument, std::string(name) + " has no memory of its own: its buffer is detached or shared");
    return std::nullopt;
  }
  return std::span<const uint8_t>(static_cast<const uint8_t*>(data), length);
}

std::optional<napi_value> Call::property(napi_value object, const char* key) {
  napi_valuetype type = napi_undefined;
  if (napi_typeof(env_, object, &type) != napi_ok || type != napi_object) {
    fail(bad_argument, "options must be an object");
    return std::nullopt;
  }
  napi_value value = nullptr;
  if (!ok(napi_get_named_property(env_, object, key, &value))) return std::nullopt;
  return value;
}

std::optional<int64_t> Call::integer_option(napi_value object, const char* key, int64_t min, int64_t max, int64_t fallback) {
  const auto value = property(object, key);
  if (!value) return std::nullopt;
  return absent(*value) ? fallback : integer(*value, key, min, max);
}

std::optional<bool> Call::bool_option(napi_value object, const char* key) {
  const auto value = property(object, key);
  if (!value) return std::nullopt;
  bool result = false;
  if (!absent(*value) && napi_get_value_bool(env_, *value, &result) != napi_ok) {
    fail(bad_argument, std::string(key) + " must be true or false");
    return std::nullopt;
  }
  return result;
}

napi_value Call::integer_value(int64_t value) {
  napi_value result = nullptr;
  return ok(napi_create_int64(env_, value, &result)) ? result : nullptr;
}

napi_value Call::undefined() const {
  napi_value result = nullptr;
  napi_get_undefined(env_, &result);
  return result;
}

napi_value Call::null() const {
  napi_value result = nullptr;
  napi_get_null(env_, &result);
  return result;
}

bool Call::set(napi_value object, const char* key, napi_value value) {
  return value != nullptr && ok(napi_set_named_property(env_, object, key, value));
}

napi_value Call::fail(const char* code, const std::string& text, int error) {
  raise(code, text, error, nullptr);
  return nullptr;
}

namespace {

// What to do about the errors that an operator can cure.
const char* cure(int error) {
  switch (error) {
    case EMFILE: return "; this process is out of descriptors, raise its limit (LimitNOFILE)";
    case ENFILE: return "; the host is out of descriptors, raise fs.file-max";
    case EADDRINUSE: return "; something is bound there already, stop it or choose another address";
    case EACCES: return "; the permissions of the path or port do not allow it";
    case ENOENT: return "; nothing is at that path, is the other end running?";
    case ECONNREFUSED: return "; nobody is listening there, is the other end running?";
    default: return "";
  }
}

}  // namespace

napi_value Call::fail_system(const char* syscall, int error, const std::string& subject) {
  std::string text = std::string(syscall) + (subject.empty() ? "" : " " + subject) + ": " + uv_err_name(-error) + " (" +
                     uv_strerror(-error) + ")" + cure(error);
  // ENOTSOCK is the one errno that is about the caller's descriptor, not about the host.
  raise(error == ENOTSOCK ? fd_kind : "SYSTEM", text, error, syscall);
  return nullptr;
}

void Call::raise(const char* code, const std::string& text, int error, const char* syscall) {
  bool pending = false;
  napi_is_exception_pending(env_, &pending);
  if (pending) return;  // A getter of the caller threw first; that is the better story.
  napi_value error_class = nullptr;
  napi_value arguments[2] = {nullptr, nullptr};
  napi_value message = nullptr;
  napi_value number = nullptr;
  napi_value name = nullptr;
  napi_value exception = nullptr;
  const bool built =
      napi_get_reference_value(env_, addon_->error_class, &error_class) == napi_ok &&
      napi_create_string_utf8(env_, code, NAPI_AUTO_LENGTH, &arguments[0]) == napi_ok &&
      napi_create_object(env_, &arguments[1]) == napi_ok &&
      napi_create_string_utf8(env_, text.data(), text.size(), &message) == napi_ok &&
      napi_set_named_property(env_, arguments[1], "text", message) == napi_ok &&
      (error == 0 || (napi_create_int32(env_, -error, &number) == napi_ok &&
                      napi_set_named_property(env_, arguments[1], "errno", number) == napi_ok)) &&
      (syscall == nullptr || (napi_create_string_utf8(env_, syscall, NAPI_AUTO_LENGTH, &name) == napi_ok &&
                              napi_set_named_property(env_, arguments[1], "syscall", name) == napi_ok)) &&
      napi_new_instance(env_, error_class, 2, arguments, &exception) == napi_ok;
  if (built) {
    napi_throw(env_, exception);
    return;
  }
  napi_is_exception_pending(env_, &pending);
  if (!pending) napi_throw_error(env_, code, text.c_str());
}

}  // namespace tlspool
