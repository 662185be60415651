// One deadline per session, O(1) to set and to clear; a tick of 32 ms is exact enough for handshake and linger deadlines.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace tlspool {

struct TimerNode {
  TimerNode* next = nullptr;
  TimerNode* previous = nullptr;
  uint64_t due_tick = 0;
  bool armed() const { return next != nullptr; }
};

class TimerWheel {
 public:
  static constexpr uint64_t tick_ms = 32;

  explicit TimerWheel(uint64_t now_ms);
  TimerWheel(const TimerWheel&) = delete;
  TimerWheel& operator=(const TimerWheel&) = delete;

  void set(TimerNode& node, uint64_t now_ms, uint64_t delay_ms);
  void clear(TimerNode& node);
  bool empty() const { return armed_ == 0; }
  // Removes and returns one node that is due, or null. Call until null.
  TimerNode* expire(uint64_t now_ms);
  // Milliseconds until something may be due; -1 when nothing is armed.
  int wait_ms(uint64_t now_ms) const;

 private:
  static constexpr size_t slots = 512;
  static void unlink(TimerNode& node);

  std::array<TimerNode, slots> heads_;
  uint64_t current_tick_;
  uint64_t armed_ = 0;
};

}  // namespace tlspool
