// Builds the two events that each connection causes. Setting twenty properties one by one from C++ costs more than the rest of
// the way to JavaScript: here one call of a JavaScript function makes the object, and texts that repeat are made once.
#pragma once

#include <node_api.h>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "fd.hh"

namespace tlspool::js {

class EventMaker {
 public:
  enum Kind : uint32_t { established, closed, endpoint_of, supplied };

  // False, with something thrown, when Node refuses.
  bool open(napi_env env);
  napi_env env() const { return env_; }

  napi_value make(Kind kind, const napi_value* arguments, size_t count);
  napi_value flag(bool value) const;
  // A text that is likely to come again: a cipher, an identity, an address.
  napi_value word(std::string_view text);
  napi_value word_unless_empty(std::string_view text);
  napi_value endpoint(const Endpoint& endpoint);
  // A copy per certificate, not per session.
  napi_value certificate(const std::shared_ptr<const std::string>& der);

 private:
  napi_value kept(uint32_t index) const;
  void keep(uint32_t index, napi_value value);
  void forget();

  napi_env env_ = nullptr;
  napi_ref makers_ = nullptr;  // the functions, by Kind
  napi_ref values_ = nullptr;  // texts and certificates that were made before
  std::unordered_map<std::string, uint32_t> words_;
  std::unordered_map<std::shared_ptr<const std::string>, uint32_t> certificates_;
  uint32_t next_ = 0;
};

}  // namespace tlspool::js
