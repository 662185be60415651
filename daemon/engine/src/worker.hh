// One thread, one epoll, one timer wheel, an inbox. Sessions are born, live and die here.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "events.hh"
#include "interrupt.h"
#include "listener.hh"
#include "record_bio.hh"
#include "session.hh"
#include "timer_wheel.hh"

namespace tlspool {

struct Options {
  unsigned workers = 1;
  std::vector<unsigned> worker_cpus;  // the processors that the threads are bound to, in turn; empty: the scheduler decides
  uint64_t sessions_max = 20'000;
  uint64_t handshakes_max = 1024;
  uint64_t handshake_ms = 10'000;
  uint64_t linger_ms = 2'000;
  uint64_t stalled_ms = 60'000;  // a session that its application has left waits this long for a peer that takes nothing
  uint32_t key_update_records = 1U << 24;
};

// Counters of all workers; read by the owner at any time.
struct Stats {
  std::atomic<uint64_t> sessions{0}, handshakes{0};
  std::atomic<uint64_t> handshakes_done{0}, handshakes_failed{0}, handshakes_resumed{0};
  std::atomic<uint64_t> octets_received{0}, octets_sent{0};
};

struct Shared {
  Options options;
  Stats stats;
  EventSink* sink = nullptr;
  std::atomic<uint64_t> next_session{1};

  bool full() const {
    return stats.sessions.load(std::memory_order_relaxed) >= options.sessions_max ||
           stats.handshakes.load(std::memory_order_relaxed) >= options.handshakes_max;
  }
};

// Whether the owner is told at the end of this round, or with the next batch within a few milliseconds: what nobody waits
// for need not wake the owner's thread once per connection.
enum class Urgency : uint8_t { now, later };

class Worker {
 public:
  static constexpr size_t max_turn_octets = 256 * 1024;
  // A turn's worth of input and the part of a record that OpenSSL held from before.
  static constexpr size_t plain_scratch_octets = max_turn_octets + 32 * 1024;

  Worker(Shared& shared, unsigned index);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // False: the kernel refused an epoll or event descriptor, or a thread.
  bool start();
  bool bind(unsigned cpu);  // to one processor, below CPU_SETSIZE; false: this process may not use it
  // Asks the thread to end and joins it; sessions are closed without events.
  void stop();

  // From any thread.
  void post(std::function<void(Worker&)> task);
  SessionId new_session_id() { return shared_.next_session.fetch_add(1, std::memory_order_relaxed) << 8 | index_; }
  static unsigned index_of(SessionId id) { return static_cast<unsigned>(id & 0xff); }

  // From the worker's own thread.
  void start_session(SessionId id, SessionStart start);
  Session* find(SessionId id);
  void add_listener(std::shared_ptr<Listener> listener);
  void remove_listener(ListenerId id);
  void listener_changed(ListenerId id);

  bool watch(int fd, Session* session, bool crypt, uint32_t events, bool modify);
  void unwatch(int fd);
  void make_ready(Session& session);
  // At the next tick: the kernel is short of memory, and will not say when it has some.
  void make_ready_later(Session& session);
  void retire(Session& session);
  void emit(Event event, Urgency urgency = Urgency::now);

  TimerWheel& timers() { return timers_; }
  uint64_t now_ms() const { return now_ms_; }
  Stats& stats() { return shared_.stats; }
  const Options& options() const { return shared_.options; }
  Output& output() { return output_; }
  uint8_t* cipher_scratch() { return cipher_scratch_.get(); }
  uint8_t* plain_scratch() { return plain_scratch_.get(); }
  // Out of descriptors: leave connections in the kernel's queue for a moment.
  void rest_accepting();
  // Moves held octets to where they live until the next call.
  void lend(std::vector<uint8_t>& held, Input& input);

 private:
  struct Accepting {
    std::shared_ptr<Listener> listener;
    bool watched = false;
  };

  void run();
  int wait_ms() const;
  void dispatch(uint64_t tag, uint32_t events);
  void accept_from(Listener& listener);
  void note_wait(Listener& listener);
  void update_accepting();
  void run_inbox();
  void run_ready();
  void expire_timers();
  void bury();
  void deliver();
  void tidy();
  void count_change();

  Shared& shared_;
  const unsigned index_;
  UniqueFd epoll_, wake_;
  Interrupter* interrupter_ = nullptr;  // of the thread, while it runs
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  std::mutex inbox_mutex_;
  std::vector<std::function<void(Worker&)>> inbox_;
  uint64_t now_ms_;
  TimerWheel timers_;
  std::unordered_map<SessionId, std::unique_ptr<Session>> sessions_;
  std::unordered_map<ListenerId, Accepting> listeners_;
  std::vector<Session*> ready_, ready_later_;
  uint64_t ready_again_ms_ = 0;  // when those become ready
  std::vector<std::unique_ptr<Session>> graveyard_;
  std::vector<std::shared_ptr<Listener>> closed_listeners_;
  std::vector<Event> batch_;
  bool batch_urgent_ = false;
  uint64_t batch_since_ms_ = 0;
  static constexpr uint32_t tidy_changes = 500;
  uint32_t changes_ = tidy_changes;  // sessions that came or went since memory was given back to the system; once after the start too
  uint64_t changed_ms_ = 0;
  Output output_;
  std::unique_ptr<uint8_t[]> cipher_scratch_, plain_scratch_;
  std::vector<uint8_t> lent_;
  uint64_t accept_again_ms_ = 0;  // after EMFILE and the like
  bool accept_stopped_ = false;
};

}  // namespace tlspool
