// The fuzzer's octets, read in order. After their end every number is 0 and every text empty: each input is a whole script.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

namespace rig {

class Script {
 public:
  Script(const uint8_t* data, size_t size) : at_(data), left_(size) {}

  bool empty() const { return left_ == 0; }
  size_t left() const { return left_; }
  uint8_t octet() {
    if (left_ == 0) return 0;
    --left_;
    return *at_++;
  }
  bool flag(uint8_t octet, int bit) const { return (octet >> bit & 1) != 0; }
  size_t word() {
    const size_t high = octet();
    return high << 8 | octet();
  }
  std::string text(size_t most) {
    const size_t length = std::min(most, left_);
    std::string octets(reinterpret_cast<const char*>(at_), length);
    at_ += length;
    left_ -= length;
    return octets;
  }

 private:
  const uint8_t* at_;
  size_t left_;
};

}  // namespace rig
