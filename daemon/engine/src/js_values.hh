// Node-API values: reading a caller's arguments without ever asserting on them, and making objects.
#pragma once

#include <node_api.h>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fd.hh"

namespace tlspool::js {

// Throws an Error with a `code` of the project's error table (and `field`) in JavaScript. Returns null for `return`.
napi_value throw_error(napi_env env, const char* code, std::string_view text, std::string_view field = {});
bool pending(napi_env env);

// Reads properties of an object; the first wrong one throws BAD_ARGUMENT and makes all later reads harmless.
class Reader {
 public:
  Reader(napi_env env, napi_value object) : env_(env), object_(object) {}

  bool ok() const { return ok_; }
  bool has(const char* key);
  napi_value get(const char* key);  // null after a failure
  std::string text(const char* key, size_t max = 65'536);
  std::string text_or(const char* key, std::string_view fallback, size_t max = 65'536);
  std::string octets(const char* key);
  uint64_t number(const char* key, uint64_t min, uint64_t max);
  uint64_t number_or(const char* key, uint64_t min, uint64_t max, uint64_t fallback);
  bool flag_or(const char* key, bool fallback);
  std::vector<uint64_t> numbers(const char* key, size_t max_items, uint64_t min, uint64_t max);
  std::vector<std::string> texts(const char* key, size_t max_items, size_t max_octets);
  std::vector<napi_value> list(const char* key, size_t max_items);
  void fail(const char* key, std::string_view text);

 private:
  napi_env env_;
  napi_value object_;
  bool ok_ = true;
};

bool read_text(napi_env env, napi_value value, std::string& out, size_t max);
bool read_octets(napi_env env, napi_value value, std::string& out);
bool read_number(napi_env env, napi_value value, uint64_t min, uint64_t max, uint64_t& out);
bool read_fd(napi_env env, napi_value value, int& out);  // -1 allowed

napi_value make_text(napi_env env, std::string_view text);
napi_value make_number(napi_env env, double number);
napi_value make_buffer(napi_env env, std::string_view octets);
napi_value make_endpoint(napi_env env, const Endpoint& endpoint);
void set(napi_env env, napi_value object, const char* key, napi_value value);

}  // namespace tlspool::js
