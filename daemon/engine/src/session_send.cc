// How octets leave, towards either side. What a socket does not take is kept, and sent when it takes more.
#include <sys/socket.h>
#include <algorithm>
#include <cerrno>

#include "session.hh"
#include "worker.hh"

namespace tlspool {
namespace {

constexpr size_t packet_octets = 16 * 1024;  // for a plain side that keeps boundaries

}  // namespace

// Whether a socket that took nothing will take something later. What it is short of may be the kernel's memory: no event tells when
// there is some again.
bool Session::takes_nothing_now(int error) {
  if (error != ENOBUFS && error != ENOMEM) return error == EAGAIN;
  worker_.make_ready_later(*this);
  return true;
}

bool Session::write_plain(const uint8_t* data, size_t length) {
  size_t at = 0;
  if (!to_plain_.empty()) {  // reads_while_blocked()
    to_plain_.insert(to_plain_.end(), data, data + length);
    return false;
  }
  while (at < length && to_plain_.empty()) {
    // A packet socket keeps boundaries and takes all or nothing: a record's worth at a time.
    const size_t piece = plain_packets_ ? std::min(length - at, packet_octets) : length - at;
    const ssize_t n = send(plain_.get(), data + at, piece, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      at += static_cast<size_t>(n);
      if (static_cast<size_t>(n) == piece) continue;
    } else if (errno == EINTR) {
      continue;
    } else if (errno == EMSGSIZE) {
      finish(ClosedHow::error, "the plain-text side takes no packet of 16 KiB; do not lower the SO_SNDBUF of a packet socket");
      return false;
    } else if (!takes_nothing_now(errno)) {
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
    } else if (!takes_nothing_now(errno)) {
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
    if (n < 0 && takes_nothing_now(errno)) return false;
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
