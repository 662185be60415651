// The data path. Each turn reads as much as one side has, turns it into the other side's form and writes it with one
// call. What a side does not take is kept (and nothing more is read for it) until it is taken.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <algorithm>
#include <cerrno>

#include "discard.h"
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
// A turn that brings less than this part of what was read in octets for the application was work for OpenSSL: KeyUpdates, tickets, records of
// an octet. Each may cost as much as many KiB of data, so such a peer gets small turns, one per round.
constexpr size_t plain_part = 8;
constexpr size_t few_octets = 4096;
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
    if (plain_gone_) watch_for_stall();
    if (plain_gone_ && plain_eof_) maybe_finish();
    if (!progress) return;
    if (laborious_) break;
  }
  // Edge-triggered: nobody will report again what is still there.
  worker_.make_ready(*this);
}

// The peer stopped reading, or in the middle of a message, before the application left: somebody has to end this. An application that only
// shut its reading side may be quiet for as long as it likes once the peer goes on.
void Session::watch_for_stall() {
  const bool stalled = !to_crypt_.empty() || SSL_in_init(ssl_.get()) == 1;
  if (stalled && !timer_.node.armed()) worker_.timers().set(timer_.node, worker_.now_ms(), worker_.options().stalled_ms);
  if (!stalled && !ending_ && !breaking_ && deferred_.empty()) worker_.timers().clear(timer_.node);
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
  const ssize_t n = crypt_inet_ ? recv(crypt_.get(), buffer, most, MSG_DONTWAIT) : receive_octets(crypt_.get(), buffer, most, MSG_DONTWAIT);
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
  switch (receive_crypt(blocked || laborious_ ? message_octets : turn_octets(false, last_turn_in_))) {
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
  laborious_ = last_turn_in_ > few_octets && plain_octets * plain_part < last_turn_in_;
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
  uint8_t* buffer = worker_.plain_scratch();
  // MSG_TRUNC: a packet that does not fit is told with its true length.
  const ssize_t n = plain_inet_ ? recv(plain_.get(), buffer, most, MSG_DONTWAIT) : receive_octets(plain_.get(), buffer, most, plain_packets_ ? MSG_DONTWAIT | MSG_TRUNC : MSG_DONTWAIT);
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
    encrypt(buffer, static_cast<size_t>(n));
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

}  // namespace tlspool
