#include "js_values.hh"

#include <cmath>

namespace tlspool::js {

napi_value throw_error(napi_env env, const char* code, std::string_view text, std::string_view field) {
  if (pending(env)) return nullptr;
  napi_value error = nullptr;
  napi_create_error(env, nullptr, make_text(env, text), &error);
  if (error == nullptr) return nullptr;
  set(env, error, "code", make_text(env, code));
  if (!field.empty()) set(env, error, "field", make_text(env, field));
  napi_throw(env, error);
  return nullptr;
}

bool pending(napi_env env) {
  bool yes = false;
  napi_is_exception_pending(env, &yes);
  return yes;
}

bool read_text(napi_env env, napi_value value, std::string& out, size_t max) {
  napi_valuetype type = napi_undefined;
  size_t length = 0;
  if (value == nullptr || napi_typeof(env, value, &type) != napi_ok || type != napi_string) return false;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok || length > max) return false;
  out.resize(length + 1);
  if (napi_get_value_string_utf8(env, value, out.data(), out.size(), &length) != napi_ok) return false;
  out.resize(length);
  return out.find('\0') == std::string::npos;
}

bool read_octets(napi_env env, napi_value value, std::string& out) {
  bool typed = false;
  if (value == nullptr || napi_is_typedarray(env, value, &typed) != napi_ok || !typed) return false;
  napi_typedarray_type type = napi_int8_array;
  void* data = nullptr;
  size_t length = 0;
  if (napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr) != napi_ok || type != napi_uint8_array) return false;
  if (length > 16U * 1024 * 1024) return false;
  out.assign(static_cast<const char*>(data), data == nullptr ? 0 : length);
  return true;
}

bool read_number(napi_env env, napi_value value, uint64_t min, uint64_t max, uint64_t& out) {
  double number = 0;
  if (value == nullptr || napi_get_value_double(env, value, &number) != napi_ok) return false;
  if (!(number >= static_cast<double>(min) && number <= static_cast<double>(max)) || number != std::floor(number)) return false;
  out = static_cast<uint64_t>(number);
  return true;
}

bool read_fd(napi_env env, napi_value value, int& out) {
  double number = 0;
  if (value == nullptr || napi_get_value_double(env, value, &number) != napi_ok) return false;
  if (!(number >= -1 && number <= INT32_MAX) || number != std::floor(number)) return false;
  out = static_cast<int>(number);
  return true;
}

napi_value make_text(napi_env env, std::string_view text) {
  napi_value value = nullptr;
  napi_create_string_utf8(env, text.data(), text.size(), &value);
  return value;
}

napi_value make_number(napi_env env, double number) {
  napi_value value = nullptr;
  napi_create_double(env, number, &value);
  return value;
}

napi_value make_buffer(napi_env env, std::string_view octets) {
  napi_value value = nullptr;
  napi_create_buffer_copy(env, octets.size(), octets.data(), nullptr, &value);
  return value;
}

napi_value make_endpoint(napi_env env, const Endpoint& endpoint) {
  napi_value object = nullptr;
  napi_create_object(env, &object);
  const char* family = endpoint.family == Endpoint::Family::ipv4 ? "IPv4" : endpoint.family == Endpoint::Family::ipv6 ? "IPv6" : "unix";
  set(env, object, "family", make_text(env, family));
  set(env, object, "address", make_text(env, endpoint.address));
  set(env, object, "port", make_number(env, endpoint.port));
  return object;
}

void set(napi_env env, napi_value object, const char* key, napi_value value) {
  if (object != nullptr && value != nullptr) napi_set_named_property(env, object, key, value);
}

void Reader::fail(const char* key, std::string_view text) {
  ok_ = false;
  throw_error(env_, "BAD_ARGUMENT", std::string(key) + " " + std::string(text), key);
}

napi_value Reader::get(const char* key) {
  if (!ok_) return nullptr;
  napi_value value = nullptr;
  if (napi_get_named_property(env_, object_, key, &value) != napi_ok) {
    fail(key, "cannot be read");
    return nullptr;
  }
  return value;
}

bool Reader::has(const char* key) {
  const napi_value value = get(key);
  napi_valuetype type = napi_undefined;
  return value != nullptr && napi_typeof(env_, value, &type) == napi_ok && type != napi_undefined && type != napi_null;
}

std::string Reader::text(const char* key, size_t max) {
  std::string out;
  const napi_value value = get(key);
  if (ok_ && !read_text(env_, value, out, max)) fail(key, "must be a text without NUL");
  return out;
}

std::string Reader::text_or(const char* key, std::string_view fallback, size_t max) { return has(key) ? text(key, max) : std::string(fallback); }

std::string Reader::octets(const char* key) {
  std::string out;
  const napi_value value = get(key);
  if (ok_ && !read_octets(env_, value, out)) fail(key, "must be a Buffer of at most 16 MiB");
  return out;
}

uint64_t Reader::number(const char* key, uint64_t min, uint64_t max) {
  uint64_t out = min;
  const napi_value value = get(key);
  if (ok_ && !read_number(env_, value, min, max, out)) fail(key, "must be a whole number from " + std::to_string(min) + " to " + std::to_string(max));
  return out;
}

uint64_t Reader::number_or(const char* key, uint64_t min, uint64_t max, uint64_t fallback) { return has(key) ? number(key, min, max) : fallback; }

bool Reader::flag_or(const char* key, bool fallback) {
  if (!has(key)) return fallback;
  bool out = fallback;
  if (napi_get_value_bool(env_, get(key), &out) != napi_ok) fail(key, "must be true or false");
  return out;
}

std::vector<napi_value> Reader::list(const char* key, size_t max_items) {
  std::vector<napi_value> items;
  const napi_value value = get(key);
  bool array = false;
  uint32_t count = 0;
  if (!ok_ || napi_is_array(env_, value, &array) != napi_ok || !array || napi_get_array_length(env_, value, &count) != napi_ok || count > max_items) {
    if (ok_) fail(key, "must be a list of at most " + std::to_string(max_items) + " items");
    return items;
  }
  for (uint32_t i = 0; i < count; ++i) {
    napi_value item = nullptr;
    if (napi_get_element(env_, value, i, &item) == napi_ok) items.push_back(item);
  }
  return items;
}

std::vector<uint64_t> Reader::numbers(const char* key, size_t max_items, uint64_t min, uint64_t max) {
  std::vector<uint64_t> out;
  for (const napi_value item : list(key, max_items)) {
    uint64_t number = 0;
    if (!read_number(env_, item, min, max, number)) {
      fail(key, "must hold whole numbers from " + std::to_string(min) + " to " + std::to_string(max));
      break;
    }
    out.push_back(number);
  }
  return out;
}

std::vector<std::string> Reader::texts(const char* key, size_t max_items, size_t max_octets) {
  std::vector<std::string> out;
  for (const napi_value item : list(key, max_items)) {
    std::string text;
    if (!read_text(env_, item, text, max_octets)) {
      fail(key, "must hold texts of at most " + std::to_string(max_octets) + " octets");
      break;
    }
    out.push_back(std::move(text));
  }
  return out;
}

}  // namespace tlspool::js
