// The data path. Each turn reads as much as one side has, turns it into the other side's form and writes it with one
// call. What a side does not take is kept (and nothing more is read for it) until it is taken.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <algorithm>
#include <cerrno>

#include "session.hh"
#include "worker.hh"

namespace tlspool {
namespace {

constexpr size_t record_octets = 16 * 1024;
// About what fits a TCP segment: the first octets of an answer can be used before a full record has arrived.
constexpr size_t small_record_octets = 1369;
constexpr uint32_t small_until_octets = 16 * 1024;
constexpr uint64_t idle_ms = 1000;
constexpr size_t kept_octets = 64 * 1024;  // what a blocked direction may hold (DESIGN section 4)
constexpr size_t message_octets = 16 * 1024 + 2048;
constexpr int turns_per_pump = 4;
// What a full turn becomes in records fits four of the largest packets that the kernel makes (64 KiB, headers included). 256 KiB would
// spill some hundred octets into a fifth, which costs as much as a full one.
constexpr size_t turn_to_crypt_octets = 254 * 1024;

}  // namespace

void Session::on_crypt(uint32_t epoll_events) {
  if ((epoll_events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) crypt_in_ = true;
  // A short read then does not prove that nothing is left: the end of the stream is.
  if ((epoll_events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) crypt_hup_ = true;
  if ((epoll_events & (EPOLLHUP | EPOLLERR)) != 0) crypt_gone_ = true;
  if (phase_ == Phase::supplying) return await_supply();
  // Its owner need not be waited for: a handshake takes more than the octets before the end.
  if (phase_ == Phase::asking && crypt_hup_) return fail("PEER_CLOSED", "the peer closed the connection during the handshake");
  pump();
}

void Session::on_plain(uint32_t epoll_events) {
  if (phase_ == Phase::connecting) {
    if ((epoll_events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) == 0) return;
    backend_connected();
  }
  if ((epoll_events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) plain_in_ = true;
  if ((epoll_events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) plain_hup_ = true;
  if ((epoll_events & (EPOLLHUP | EPOLLERR)) != 0 && phase_ == Phase::open) plain_gone_ = true;
  pump();
}

void Session::pump() {
  for (int turn = 0; turn < turns_per_pump; ++turn) {
    if (phase_ == Phase::handshake) drive_handshake();
    if (phase_ == Phase::lingering) return drain_lingering();
    if (phase_ != Phase::open) return;
    bool progress = crypt_to_plain();
    if (phase_ == Phase::open) progress = plain_to_crypt() || progress;
    if (phase_ != Phase::open) continue;
    // The peer stopped reading, or in the middle of a message, before the application left: somebody has to end this.
    if (plain_gone_ && (!to_crypt_.empty() || SSL_in_init(ssl_.get()) == 1) && !timer_.node.armed()) worker_.timers().set(timer_.node, worker_.now_ms(), worker_.options().stalled_ms);
    if (plain_gone_ && plain_eof_) maybe_finish();
    if (!progress) return;
  }
  // Edge-triggered: nobody will report again what is still there.
  worker_.make_ready(*this);
}

// How much to read, so that what the other side does not take stays under kept_octets: half of the free send buffer
// counts, as the kernel accounts for more than the octets themselves.
size_t Session::turn_octets(bool towards_crypt, size_t last) const {
  if (last < kept_octets) return kept_octets;
  const size_t room = towards_crypt ? send_room(crypt_.get(), crypt_inet_) : send_room(plain_.get(), plain_inet_);
  return std::min(towards_crypt ? turn_to_crypt_octets : Worker::max_turn_octets, kept_octets + room / 2);
}

Session::Received Session::receive_crypt(size_t most) {
  if (!held_.empty()) {
    worker_.lend(held_, io_.input);
    return Received::some;
  }
  if (!crypt_in_) return Received::nothing;
  uint8_t* buffer = worker_.cipher_scratch();
  const ssize_t n = recv(crypt_.get(), buffer, most, MSG_DONTWAIT);
  if (n > 0) {
    io_.input = {buffer, static_cast<size_t>(n)};
    if (static_cast<size_t>(n) < most && !crypt_hup_) crypt_in_ = false;
    return Received::some;
  }
  if (n == 0) return Received::end;
  if (errno == EINTR) return receive_crypt(most);
  crypt_in_ = false;
  return errno == EAGAIN ? Received::nothing : Received::broken;
}

// The scratch buffer is about to serve another session: keep what OpenSSL has not read.
void Session::park_input() {
  if (io_.input.left == 0) return;
  std::vector<uint8_t> rest(io_.input.data, io_.input.data + io_.input.left);
  held_.swap(rest);
  io_.input = {};
}

// In the middle of a reauthentication nothing is taken from the application, and one that writes before it reads would wait for us, while
// the rest of the peer's answer waits for the application to read.
bool Session::reads_while_blocked() const {
  return (asked_ || answers_) && SSL_in_init(ssl_.get()) == 1 && to_plain_.size() - to_plain_sent_ < 2 * kept_octets;
}

bool Session::crypt_to_plain() {
  const bool blocked = !to_plain_.empty() && !flush_plain();
  if (phase_ != Phase::open || (blocked && !reads_while_blocked())) return false;
  if (breaking_) {
    finish(closing_how_, "");
    return false;
  }
  if (rx_done_) {
    // After close_notify only the end of the connection is of interest. A peer that is gone takes no answer any more, and the
    // application, which may be waiting for something else before it writes, would not find out.
    if (crypt_gone_ && !tx_done_) finish(tx_closing_ && plain_gone_ ? ClosedHow::closed : ClosedHow::reset, "the peer closed the connection");
    else if (crypt_in_ && crypt_hup_ && tx_done_) maybe_finish();
    return false;
  }
  // Answers to KeyUpdate requests pile up when the peer sends and does not read. Only they count: were the application's octets a reason
  // not to read, two engines whose applications both write would wait for each other.
  if (piled_answers_ > kept_octets && !flush_crypt()) return false;
  switch (receive_crypt(blocked ? message_octets : turn_octets(false, last_turn_in_))) {
    case Received::nothing:
      return false;
    case Received::end:
      crypt_ended();
      return false;
    case Received::broken:
      crypt_gone_ = true;
      closing_how_ = tx_done_ && plain_gone_ ? ClosedHow::closed : ClosedHow::reset;
      finish(closing_how_, "the connection to the peer broke");
      return false;
    case Received::some:
      break;
  }
  last_turn_in_ = static_cast<uint32_t>(io_.input.left);
  size_t plain_octets = 0;
  const bool goes_on = decrypt_all(plain_octets);
  io_.input = {};
  received_ += plain_octets;
  if (plain_octets > 0 && !plain_gone_) write_plain(worker_.plain_scratch(), plain_octets);
  if (phase_ != Phase::open || !goes_on) return false;
  if (asked_ || answers_) settle_reauth();
  if (phase_ == Phase::open && rx_done_) peer_said_close();
  return phase_ == Phase::open;
}

// Decrypts the whole input into the worker's plain scratch. False: the session failed and was finished.
bool Session::decrypt_all(size_t& plain_octets) {
  uint8_t* out = worker_.plain_scratch();
  ERR_clear_error();
  for (;;) {
    size_t n = 0;
    const int result = SSL_read_ex(ssl_.get(), out + plain_octets, Worker::plain_scratch_octets - plain_octets, &n);
    if (result == 1) {
      plain_octets += n;
      ++received_records_;
      if (plain_octets < Worker::plain_scratch_octets) continue;
      park_input();  // cannot happen: the scratch holds more than a turn and a record
      break;
    }
    const int error = SSL_get_error(ssl_.get(), result);
    if (error == SSL_ERROR_ZERO_RETURN) rx_done_ = true;
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_ZERO_RETURN) break;
    const std::string reason = broken_reason();
    if (plain_octets > 0 && !plain_gone_) write_plain(out, plain_octets);
    received_ += plain_octets;
    plain_octets = 0;
    const bool alerted = alert_received_ >= 0;
    finish(alerted ? ClosedHow::alert : ClosedHow::error,
           alerted ? std::string("the peer sent the alert ") + SSL_alert_desc_string_long(alert_received_) : reason);
    return false;
  }
  answer_key_update();
  const size_t before = to_crypt_.size();
  const bool open = flush_output();
  if (to_crypt_.size() > before) piled_answers_ += static_cast<uint32_t>(to_crypt_.size() - before);
  return open;
}

// RFC 8446 section 4.6.3: an update_requested is answered with the next record; OpenSSL would wait for application data.
void Session::answer_key_update() {
  if (tx_closing_ || SSL_version(ssl_.get()) != TLS1_3_VERSION || SSL_in_init(ssl_.get()) == 1) return;
  if (SSL_get_key_update_type(ssl_.get()) != SSL_KEY_UPDATE_NONE) {
    SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED);
    SSL_do_handshake(ssl_.get());
    sent_records_ = 0;
  }
  if (received_records_ >= worker_.options().key_update_records) {
    received_records_ = 0;
    SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_REQUESTED);
    SSL_do_handshake(ssl_.get());
    sent_records_ = 0;
  }
}

bool Session::plain_to_crypt() {
  if (!to_crypt_.empty() && !flush_crypt()) return false;
  // In the middle of a message of the peer, such as a long session ticket, OpenSSL writes nothing and cannot shut down.
  if (plain_eof_ || !plain_in_ || SSL_in_init(ssl_.get()) == 1 || (asked_ && asked_->quiet_until_ms != 0)) return false;
  const size_t most = plain_packets_ ? Worker::max_turn_octets : turn_octets(true, last_turn_out_);
  // MSG_TRUNC: a packet that does not fit is told with its true length.
  const ssize_t n = recv(plain_.get(), worker_.plain_scratch(), most, plain_packets_ ? MSG_DONTWAIT | MSG_TRUNC : MSG_DONTWAIT);
  if (plain_packets_ && n > static_cast<ssize_t>(most)) {
    crypt_gone_ = true;
    finish(ClosedHow::error, "the application wrote a packet of more than 256 KiB");
    return false;
  }
  // An empty packet looks like the end of the stream; only one of them comes with a hang-up.
  if (n == 0 && plain_packets_ && (!plain_hup_ || recv(plain_.get(), nullptr, 0, MSG_DONTWAIT | MSG_PEEK | MSG_TRUNC) > 0)) return true;
  if (n > 0) {
    last_turn_out_ = static_cast<uint32_t>(n);
    if (static_cast<size_t>(n) < most && !plain_hup_ && !plain_packets_ && !ending_) plain_in_ = false;
    encrypt(worker_.plain_scratch(), static_cast<size_t>(n));
    return flush_output();
  }
  if (n == 0) {
    plain_ended();
    return false;
  }
  if (errno == EINTR) return true;
  plain_in_ = false;
  if (errno == EAGAIN) {
    if (ending_) plain_ended();
    return false;
  }
  // The application's side broke off: its peer must not take what it got for complete, so no close_notify.
  crypt_gone_ = true;
  finish(ClosedHow::reset, "the plain-text side broke");
  return false;
}

void Session::encrypt(const uint8_t* data, size_t length) {
  const uint64_t now = worker_.now_ms();
  if (now - last_sent_ms_ > idle_ms) since_idle_ = 0;
  last_sent_ms_ = now;
  sent_ += length;
  ERR_clear_error();
  for (size_t at = 0; at < length;) {
    const bool small = since_idle_ < small_until_octets && length > small_record_octets;
    const size_t piece = std::min(length - at, small ? small_record_octets : record_octets);
    size_t written = 0;
    if (SSL_write_ex(ssl_.get(), data + at, piece, &written) != 1) return finish(ClosedHow::error, "encryption failed: " + take_reason("unknown error"));
    at += written;
    since_idle_ = static_cast<uint32_t>(std::min<size_t>(since_idle_ + written, 1U << 30));
    count_sent_records(written);
  }
}

// RFC 8446 section 5.5: new keys before the AEAD's limit.
void Session::count_sent_records(size_t octets) {
  sent_records_ += static_cast<uint32_t>((octets + record_octets - 1) / record_octets);
  if (sent_records_ < worker_.options().key_update_records || SSL_version(ssl_.get()) != TLS1_3_VERSION) return;
  sent_records_ = 0;
  // At once: a pending one would make SSL_shutdown() fail, and the stream end without close_notify.
  SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED);
  SSL_do_handshake(ssl_.get());
}

bool Session::write_plain(const uint8_t* data, size_t length) {
  size_t at = 0;
  if (!to_plain_.empty()) {  // reads_while_blocked()
    to_plain_.insert(to_plain_.end(), data, data + length);
    return false;
  }
  while (at < length && to_plain_.empty()) {
    // A packet socket keeps boundaries and takes all or nothing: a record's worth at a time.
    const size_t piece = plain_packets_ ? std::min(length - at, record_octets) : length - at;
    const ssize_t n = send(plain_.get(), data + at, piece, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      at += static_cast<size_t>(n);
      if (static_cast<size_t>(n) == piece) continue;
    } else if (errno == EINTR) {
      continue;
    } else if (errno == EMSGSIZE) {
      finish(ClosedHow::error, "the plain-text side takes no packet of 16 KiB; do not lower the SO_SNDBUF of a packet socket");
      return false;
    } else if (errno != EAGAIN && errno != ENOBUFS) {
      plain_gone_ = true;  // nobody reads; what it still wrote is read and sent
      plain_in_ = true;
      return true;
    }
    to_plain_.assign(data + at, data + length);
    to_plain_sent_ = 0;
    arm(false, true);
    return false;
  }
  return true;
}

bool Session::flush_plain() {
  std::vector<uint8_t> pending;
  pending.swap(to_plain_);
  const size_t from = to_plain_sent_;
  to_plain_sent_ = 0;
  if (!plain_gone_ && !write_plain(pending.data() + from, pending.size() - from)) return false;
  arm(false, false);
  shut_plain_if_flushed();
  return true;
}

// A ticket is of no use before the client's next connection: it need not cost a system call, and a wake-up of the peer, of
// its own when data follows soon. TLS 1.2 sends its Finished with it, which cannot wait.
// False: the session ended.
bool Session::defer_tickets() {
  Output& output = worker_.output();
  if (SSL_version(ssl_.get()) != TLS1_3_VERSION || !to_crypt_.empty()) return flush_output();
  // Called again when the session had to wait for descriptors: what is deferred already stays.
  deferred_.insert(deferred_.end(), output.octets.data(), output.octets.data() + std::exchange(output.used, 0));
  return true;
}

void Session::send_tickets() {
  worker_.output().append(deferred_.data(), deferred_.size());
  deferred_ = {};
  flush_output();
}

// Sends what OpenSSL has written; keeps the rest. False: the session ended.
bool Session::flush_output() {
  Output& output = worker_.output();
  if (tx_done_) {
    // Behind our close_notify and FIN, while the peer goes on: OpenSSL answers its KeyUpdate, and there is no way to send that.
    output.used = 0;
    return phase_ != Phase::ended;
  }
  if (!deferred_.empty() && output.used > 0) {
    output.prepend(deferred_.data(), deferred_.size());
    deferred_ = {};
    if (phase_ == Phase::open && !ending_) worker_.timers().clear(timer_.node);
  }
  size_t at = 0;
  const size_t used = std::exchange(output.used, 0);
  while (at < used && to_crypt_.empty()) {
    const ssize_t n = send(crypt_.get(), output.octets.data() + at, used - at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      at += static_cast<size_t>(n);
      if (at == used) break;
    } else if (errno == EINTR) {
      continue;
    } else if (errno != EAGAIN && errno != ENOBUFS) {
      crypt_gone_ = true;
      if (phase_ == Phase::open) finish(tx_closing_ && plain_gone_ ? ClosedHow::closed : ClosedHow::reset, "the peer closed the connection");
      else if (in_handshake()) fail("PEER_CLOSED", "the connection broke during the handshake");
      return false;
    }
    break;
  }
  if (at < used) {
    to_crypt_.insert(to_crypt_.end(), output.octets.data() + at, output.octets.data() + used);
    arm(true, true);
    if (plain_gone_ && phase_ == Phase::open && !timer_.node.armed()) worker_.timers().set(timer_.node, worker_.now_ms(), worker_.options().stalled_ms);
  } else if (to_crypt_.empty()) {
    after_crypt_flushed();
  }
  return phase_ != Phase::ended;
}

bool Session::flush_crypt() {
  while (to_crypt_sent_ < to_crypt_.size()) {
    const ssize_t n = send(crypt_.get(), to_crypt_.data() + to_crypt_sent_, to_crypt_.size() - to_crypt_sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == ENOBUFS)) return false;
    if (n < 0) {
      crypt_gone_ = true;
      if (phase_ == Phase::open) finish(tx_closing_ && plain_gone_ ? ClosedHow::closed : ClosedHow::reset, "the peer closed the connection");
      else if (in_handshake()) fail("PEER_CLOSED", "the connection broke during the handshake");
      else end();
      return false;
    }
    to_crypt_sent_ += static_cast<size_t>(n);
    // A slow reader is not a stalled one.
    if (phase_ == Phase::open && plain_gone_ && closing_how_ == ClosedHow::closed) worker_.timers().set(timer_.node, worker_.now_ms(), worker_.options().stalled_ms);
  }
  to_crypt_ = {};
  to_crypt_sent_ = 0;
  piled_answers_ = 0;
  arm(true, false);
  after_crypt_flushed();
  return phase_ == Phase::open;
}

}  // namespace tlspool
