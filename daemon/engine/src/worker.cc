#include "worker.hh"

#include <malloc.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>

namespace tlspool {
namespace {

// epoll's 64 bits: a pointer whose low bits say what it points to.
constexpr uint64_t tag_crypt = 0, tag_plain = 1, tag_listener = 2, tag_wake = 3, tag_mask = 7;
constexpr int accepts_per_wake = 16;
constexpr uint64_t accept_pause_ms = 100;
constexpr uint64_t batch_ms = 10;
constexpr uint64_t tidy_quiet_ms = 2000;

uint64_t monotonic_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
}

// Of accept(2). No descriptors or no memory: the connection stays in the kernel's queue until some are given back. The others say something
// of one connection, or of a firewall's mind, and nothing of the listening socket (accept(2), "Error handling").
bool is_passing(int error) {
  static constexpr int passing[] = {EPERM, EPROTO, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH};
  return is_shortage(error) || std::find(std::begin(passing), std::end(passing), error) != std::end(passing);
}

constexpr unsigned most_waits = 8;
constexpr long accept_patience_ns = 10'000'000;

}  // namespace

Worker::Worker(Shared& shared, unsigned index)
    : shared_(shared),
      index_(index),
      now_ms_(monotonic_ms()),
      timers_(now_ms_),
      changed_ms_(now_ms_),
      cipher_scratch_(std::make_unique_for_overwrite<uint8_t[]>(max_turn_octets)),
      plain_scratch_(std::make_unique_for_overwrite<uint8_t[]>(plain_scratch_octets)) {}

Worker::~Worker() { stop(); }

bool Worker::start() {
  epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  wake_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_ || !wake_) return false;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = tag_wake;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) return false;
  {
    const SignalsBlocked blocked;
    thread_ = std::thread([this] { run(); });
  }
  const std::string name = "tlspool-" + std::to_string(index_);
  pthread_setname_np(thread_.native_handle(), name.c_str());
  return true;
}

bool Worker::bind(unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return pthread_setaffinity_np(thread_.native_handle(), sizeof set, &set) == 0;
}

void Worker::stop() {
  if (!thread_.joinable()) return;
  stopping_.store(true);
  post([](Worker&) {});
  thread_.join();
}

void Worker::post(std::function<void(Worker&)> task) {
  {
    const std::lock_guard lock(inbox_mutex_);
    inbox_.push_back(std::move(task));
    if (inbox_.size() > 1) return;  // it has been woken for the first one
  }
  const uint64_t one = 1;
  // Cannot fill up: the counter is read before the inbox is.
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof one);
}

void Worker::run() {
  Interrupter interrupter;
  interrupter_ = &interrupter;
  std::array<epoll_event, 256> events;
  while (!stopping_.load(std::memory_order_relaxed)) {
    const int count = epoll_wait(epoll_.get(), events.data(), events.size(), wait_ms());
    if (count < 0 && errno == EINTR) interrupter.set(0);
    now_ms_ = monotonic_ms();
    for (int i = 0; i < count; ++i) dispatch(events[static_cast<size_t>(i)].data.u64, events[static_cast<size_t>(i)].events);
    run_ready();
    expire_timers();
    update_accepting();
    deliver();
    bury();
    tidy();
  }
  batch_.clear();
  listeners_.clear();
  shared_.stats.sessions.fetch_sub(sessions_.size());
  sessions_.clear();
  graveyard_.clear();
  OPENSSL_thread_stop();
}

int Worker::wait_ms() const {
  if (!ready_.empty()) return 0;
  // -1, wait for ever, is the largest unsigned number.
  unsigned wait = static_cast<unsigned>(timers_.wait_ms(now_ms_));
  if (!ready_later_.empty()) wait = std::min(wait, static_cast<unsigned>(TimerWheel::tick_ms));
  if (accept_stopped_) wait = std::min(wait, static_cast<unsigned>(accept_pause_ms));
  if (!batch_.empty()) wait = std::min(wait, static_cast<unsigned>(batch_ms));
  if (changes_ >= tidy_changes) wait = std::min(wait, static_cast<unsigned>(tidy_quiet_ms));
  return static_cast<int>(wait);
}

void Worker::emit(Event event, Urgency urgency) {
  if (batch_.empty()) batch_since_ms_ = now_ms_;
  if (urgency == Urgency::now) batch_urgent_ = true;
  batch_.push_back(std::move(event));
}

void Worker::deliver() {
  if (batch_.empty() || (!batch_urgent_ && now_ms_ - batch_since_ms_ < batch_ms)) return;
  batch_urgent_ = false;
  shared_.sink->post(batch_);
}

void Worker::dispatch(uint64_t tag, uint32_t events) {
  void* pointer = reinterpret_cast<void*>(tag & ~tag_mask);
  switch (tag & tag_mask) {
    case tag_crypt:
      // A session that ended in this round stays allocated until bury(), so a late event finds it and nothing happens.
      if (auto* session = static_cast<Session*>(pointer); !session->ended()) session->on_crypt(events);
      break;
    case tag_plain:
      if (auto* session = static_cast<Session*>(pointer); !session->ended()) session->on_plain(events);
      break;
    case tag_listener:
      accept_from(*static_cast<Listener*>(pointer));
      break;
    default:
      run_inbox();
  }
}

void Worker::run_inbox() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(wake_.get(), &count, sizeof count);
  std::vector<std::function<void(Worker&)>> tasks;
  {
    const std::lock_guard lock(inbox_mutex_);
    tasks.swap(inbox_);
  }
  for (const auto& task : tasks) task(*this);
}

void Worker::run_ready() {
  std::vector<Session*> now;
  now.swap(ready_);
  if (!ready_later_.empty() && now_ms_ >= ready_again_ms_) {
    now.insert(now.end(), ready_later_.begin(), ready_later_.end());
    ready_later_.clear();
  }
  for (Session* session : now) {
    session->queued = false;
    if (!session->ended()) session->pump();
  }
}

void Worker::expire_timers() {
  while (TimerNode* node = timers_.expire(now_ms_)) Session::on_timer(*node);
}

void Worker::bury() {
  closed_listeners_.clear();
  if (graveyard_.empty()) return;
  const auto queued_dead = [](const Session* session) { return session->ended(); };
  for (std::vector<Session*>* list : {&ready_, &ready_later_})
    if (!list->empty()) std::erase_if(*list, queued_dead);
  graveyard_.clear();
}

// malloc keeps what sessions gave back, what handshakes left between the sessions that stay, and what the start of the daemon took: gives
// it to the system once nobody connects or leaves any more, when a pause of some milliseconds hurts nobody.
void Worker::tidy() {
  if (changes_ < tidy_changes || now_ms_ - changed_ms_ < tidy_quiet_ms) return;
  changes_ = 0;
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

void Worker::count_change() {
  ++changes_;
  changed_ms_ = now_ms_;
}

void Worker::make_ready(Session& session) {
  if (session.queued || session.ended()) return;
  session.queued = true;
  ready_.push_back(&session);
}

void Worker::make_ready_later(Session& session) {
  if (session.queued || session.ended()) return;
  session.queued = true;
  if (ready_later_.empty()) ready_again_ms_ = now_ms_ + TimerWheel::tick_ms;
  ready_later_.push_back(&session);
}

void Worker::start_session(SessionId id, SessionStart start) {
  count_change();
  auto session = std::make_unique<Session>(*this, id, std::move(start));
  Session& started = *session;
  sessions_.emplace(id, std::move(session));
  started.begin();
}

Session* Worker::find(SessionId id) {
  const auto found = sessions_.find(id);
  return found == sessions_.end() ? nullptr : found->second.get();
}

void Worker::retire(Session& session) {
  const auto found = sessions_.find(session.id());
  if (found == sessions_.end()) return;
  graveyard_.push_back(std::move(found->second));
  sessions_.erase(found);
  count_change();
  shared_.stats.sessions.fetch_sub(1, std::memory_order_relaxed);
}

bool Worker::watch(int fd, Session* session, bool crypt, uint32_t events, bool modify) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = reinterpret_cast<uint64_t>(session) | (crypt ? tag_crypt : tag_plain);
  return epoll_ctl(epoll_.get(), modify ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) == 0;
}

// Needed where a descriptor is given away: closing our number would not end the watch while a copy is open.
void Worker::unwatch(int fd) { epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

void Worker::lend(std::vector<uint8_t>& held, Input& input) {
  lent_ = std::move(held);
  held = {};
  input = {lent_.data(), lent_.size()};
}

void Worker::add_listener(std::shared_ptr<Listener> listener) {
  const ListenerId id = listener->id();
  listeners_[id].listener = std::move(listener);
  update_accepting();
}

void Worker::remove_listener(ListenerId id) {
  const auto found = listeners_.find(id);
  if (found == listeners_.end()) return;
  if (found->second.watched) unwatch(found->second.listener->fd());
  closed_listeners_.push_back(std::move(found->second.listener));
  listeners_.erase(found);
}

// Level-triggered and exclusive: one worker is woken per connection, and what it leaves behind wakes another.
void Worker::update_accepting() {
  const bool resting = accept_again_ms_ > now_ms_ || shared_.full();
  accept_stopped_ = resting && !listeners_.empty();
  for (auto& [id, accepting] : listeners_) {
    const bool wanted = !resting && !accepting.listener->paused.load(std::memory_order_relaxed);
    if (wanted == accepting.watched) continue;
    epoll_event event{};
    event.events = EPOLLIN | EPOLLEXCLUSIVE;
    event.data.u64 = reinterpret_cast<uint64_t>(accepting.listener.get()) | tag_listener;
    const int operation = wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL;
    if (epoll_ctl(epoll_.get(), operation, accepting.listener->fd(), &event) == 0) {
      accepting.watched = wanted;
    } else if (wanted && !accepting.listener->failed.exchange(true)) {
      emit(ListenerEvent{id, "SYSTEM", std::string("the listening socket cannot be watched: ") + strerror(errno)});
    }
  }
}

void Worker::rest_accepting() { accept_again_ms_ = now_ms_ + accept_pause_ms; }

// Only a socket that blocks is interrupted: somebody has made it so between our two calls, which may happen once, and is an attack when it happens on and on.
void Worker::note_wait(Listener& listener) {
  if (++listener.waits < most_waits || listener.failed.exchange(true)) return;
  listener.paused.store(true, std::memory_order_relaxed);
  emit(ListenerEvent{listener.id(), "SYSTEM", "whoever handed the listening socket over keeps making it blocking (O_NONBLOCK), and the pool waits in accept(2)"});
}

void Worker::accept_from(Listener& listener) {
  if (!listeners_.contains(listener.id())) return;
  // The client that handed the socket over may have a copy, share the mode with us, and have cleared it.
  if (!set_nonblocking(listener.fd())) return;
  interrupter_->keep(accept_patience_ns);
  for (int i = 0; i < accepts_per_wake; ++i) {
    if (listener.paused.load(std::memory_order_relaxed) || shared_.full()) return;
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    const int accepted = accept4(listener.fd(), reinterpret_cast<sockaddr*>(&address), &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
    UniqueFd fd(accepted, address.ss_family == AF_UNIX ? Origin::open : Origin::made);
    if (!fd) {
      if (errno == ECONNABORTED) continue;
      if (errno == EINTR) note_wait(listener);
      else if (is_passing(errno)) rest_accepting();
      else if (errno != EAGAIN && !listener.failed.exchange(true))
        emit(ListenerEvent{listener.id(), "SYSTEM", std::string("accept failed: ") + strerror(errno)});
      return;
    }
    if (address.ss_family != AF_UNIX) forget_linger(fd.get());
    SessionStart start;
    start.cryptfd = std::move(fd);
    start.listener = listener.id();
    start.selector = listener.selector();
    start.negotiation = listener.negotiation();
    start.handshake_ms = shared_.options.handshake_ms;
    start.remote = endpoint_of(address, length);
    start.local = listener.local();
    shared_.stats.sessions.fetch_add(1, std::memory_order_relaxed);
    shared_.stats.handshakes.fetch_add(1, std::memory_order_relaxed);
    start_session(new_session_id(), std::move(start));
  }
}

}  // namespace tlspool
