#include "timer_wheel.hh"

namespace tlspool {

TimerWheel::TimerWheel(uint64_t now_ms) : current_tick_(now_ms / tick_ms) {
  for (TimerNode& head : heads_) head.next = head.previous = &head;
}

void TimerWheel::unlink(TimerNode& node) {
  node.next->previous = node.previous;
  node.previous->next = node.next;
  node.next = node.previous = nullptr;
}

void TimerWheel::set(TimerNode& node, uint64_t now_ms, uint64_t delay_ms) {
  clear(node);
  // Round up, and never into the slot that is being looked at.
  node.due_tick = (now_ms + delay_ms + tick_ms - 1) / tick_ms;
  if (node.due_tick <= current_tick_) node.due_tick = current_tick_ + 1;
  TimerNode& head = heads_[node.due_tick % slots];
  node.next = &head;
  node.previous = head.previous;
  head.previous->next = &node;
  head.previous = &node;
  ++armed_;
}

void TimerWheel::clear(TimerNode& node) {
  if (!node.armed()) return;
  unlink(node);
  --armed_;
}

TimerNode* TimerWheel::expire(uint64_t now_ms) {
  const uint64_t target = now_ms / tick_ms;
  if (armed_ == 0) {
    current_tick_ = target;
    return nullptr;
  }
  // A worker that slept for longer than the wheel's round needs to look at each slot only once.
  if (target > current_tick_ + slots) current_tick_ = target - slots;
  for (;;) {
    TimerNode& head = heads_[current_tick_ % slots];
    for (TimerNode* node = head.next; node != &head; node = node->next) {
      if (node->due_tick > target) continue;
      clear(*node);
      return node;
    }
    if (current_tick_ >= target) return nullptr;
    ++current_tick_;
  }
}

int TimerWheel::wait_ms(uint64_t now_ms) const {
  // Waking at each tick while anything is armed costs 31 wake-ups a second; looking for the next occupied slot
  // would cost more, as the worker asks after each batch of events.
  if (armed_ == 0) return -1;
  const uint64_t next = (current_tick_ + 1) * tick_ms;
  return next > now_ms ? static_cast<int>(next - now_ms) : 0;
}

}  // namespace tlspool
