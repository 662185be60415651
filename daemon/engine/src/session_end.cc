// How each direction ends: close_notify and FIN from either side, a stream that is cut off, and the last moments of a socket.
#include <sys/socket.h>
#include <cerrno>

#include "discard.h"
#include "session.hh"
#include "worker.hh"

namespace tlspool {
namespace {

constexpr int drain_turns = 4;

}  // namespace

void Session::after_crypt_flushed() {
  if (!tx_closing_ || tx_done_) return;
  tx_done_ = true;
  // When the peer has said its close_notify already, close(2) follows at once and sends the FIN.
  // What was passed is closed a moment later.
  if (listener_ == 0 || !rx_done_ || !(plain_shut_ || plain_gone_)) shutdown(crypt_.get(), SHUT_WR);
  maybe_finish();
}

// End of the plain side: close_notify, then FIN; the other direction stays open (RFC 8446 section 6.1).
void Session::plain_ended() {
  plain_in_ = false;
  plain_eof_ = true;
  if (tx_closing_) return;
  tx_closing_ = true;
  SSL_shutdown(ssl_.get());
  flush_output();
}

void Session::peer_said_close() {
  end_reauth_unanswered();
  shut_plain_if_flushed();
  maybe_finish();
}

void Session::shut_plain_if_flushed() {
  if (!rx_done_ || plain_shut_ || !to_plain_.empty()) return;
  plain_shut_ = true;
  // Nothing is left to say either way: the descriptor is about to be closed.
  if (!(tx_done_ && plain_backend_)) shutdown(plain_.get(), SHUT_WR);
  maybe_finish();
}

// FIN without close_notify: what was received may have been cut off by somebody in between.
void Session::crypt_ended() {
  crypt_in_ = false;
  crypt_hup_ = true;
  closing_how_ = tx_closing_ && plain_gone_ ? ClosedHow::closed : ClosedHow::truncated;
  breaking_ = true;
  if (to_plain_.empty() || plain_gone_) return finish(closing_how_, closing_how_ == ClosedHow::closed ? "" : "the peer sent no close_notify");
  worker_.timers().set(timer_.node, worker_.now_ms(), worker_.options().linger_ms);
}

void Session::drain_lingering() {
  if (!to_crypt_.empty()) {
    if (!flush_crypt() && !to_crypt_.empty()) return;
    if (ended()) return;
    shutdown(crypt_.get(), SHUT_WR);
    ssl_.reset();
  }
  for (int turn = 0; turn < drain_turns; ++turn) {
    const ssize_t n = receive_octets(crypt_.get(), worker_.cipher_scratch(), Worker::max_turn_octets, MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return end();
  }
  worker_.make_ready(*this);
}

}  // namespace tlspool
