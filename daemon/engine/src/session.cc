// The life of a session: beginning, deadlines, and the one way in which each kind of end is reported.
#include "discard.h"
#include "session.hh"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "worker.hh"

namespace tlspool {
namespace {

// close(2) then sends RST, so that whoever reads the other end sees an error and not an end (promise 5).
void reset_on_close(int fd) {
  const linger now{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

}  // namespace

Session::Session(Worker& worker, SessionId id, SessionStart start)
    : worker_(worker),
      id_(id),
      crypt_(std::move(start.cryptfd)),
      selector_(std::move(start.selector)),
      negotiation_(std::move(start.negotiation)),
      timer_{{}, this},
      listener_(start.listener),
      server_(start.server) {
  start_ = std::make_unique<SessionStart>(std::move(start));
  io_.output = &worker.output();
}

Session::~Session() { worker_.timers().clear(timer_.node); }

bool Session::begin() {
  crypt_inet_ = start_->remote.family != Endpoint::Family::unix_domain;
  if (!crypt_inet_) keep_in_line(crypt_.get());
  worker_.timers().set(timer_.node, worker_.now_ms(), start_->handshake_ms);
  ERR_clear_error();
  const bool made = server_ ? begin_server() : begin_client();
  if (phase_ != Phase::handshake) return !ended();
  BIO* bio = made ? new_record_bio(&io_) : nullptr;
  if (bio == nullptr || SSL_set_ex_data(ssl_.get(), 0, this) != 1) {
    BIO_free(bio);
    fail("INTERNAL", "the TLS session cannot be set up: " + take_reason("out of memory"));
    return !ended();
  }
  SSL_set_bio(ssl_.get(), bio, bio);
  server_ ? SSL_set_accept_state(ssl_.get()) : SSL_set_connect_state(ssl_.get());
  if (!worker_.watch(crypt_.get(), this, true, EPOLLIN | EPOLLRDHUP | EPOLLET, false)) {
    fail("SYSTEM", "the socket cannot be watched");
    return !ended();
  }
  if (!server_) pump();
  return !ended();
}

void Session::arm(bool crypt, bool want_write) {
  bool& armed = crypt ? crypt_armed_write_ : plain_armed_write_;
  const int fd = crypt ? crypt_.get() : plain_.get();
  if (armed == want_write || fd < 0 || (!crypt && plain_always_write_)) return;
  armed = want_write;
  // Changing the set reports what is ready now, so no edge is lost. Writability is asked for only while something is
  // blocked: a UNIX socket would else report it each time its reader takes anything.
  worker_.watch(fd, this, crypt, EPOLLIN | EPOLLRDHUP | EPOLLET | (want_write ? static_cast<uint32_t>(EPOLLOUT) : 0U), true);
}

void Session::leave_handshake(bool succeeded) {
  if (!counted_handshake_) return;
  counted_handshake_ = false;
  Stats& stats = worker_.stats();
  stats.handshakes.fetch_sub(1, std::memory_order_relaxed);
  (succeeded ? stats.handshakes_done : stats.handshakes_failed).fetch_add(1, std::memory_order_relaxed);
}

void Session::on_deadline() {
  if (phase_ == Phase::lingering) return end();
  if (plain_wait_until_ms_ != 0 && phase_ == Phase::handshake) return pump();
  if (phase_ == Phase::supplying) return refuse_plain("TIMEOUT", "the client that was asked for the plain-text side did not answer before the deadline");
  if (in_handshake()) return fail("HANDSHAKE_TIMEOUT", "the handshake did not finish before its deadline");
  if (!deferred_.empty() && !breaking_ && !ending_) return send_tickets();
  // A closing session whose other side takes nothing.
  finish(closing_how_ == ClosedHow::closed ? ClosedHow::timeout : closing_how_, "the last octets were not taken in time");
}

void Session::close(CloseRequest request) {
  if (ended() || phase_ == Phase::lingering) return;
  if (phase_ == Phase::supplying && request != CloseRequest::abort) return refuse_plain("ABORTED", "the session was ended before it had its plain-text side");
  if (in_handshake()) return fail("ABORTED", "the handshake was ended by its owner");
  if (request == CloseRequest::abort) {
    if (crypt_inet_) reset_on_close(crypt_.get());
    crypt_gone_ = true;
    return finish(ClosedHow::closed, "ended at once by its owner");
  }
  // The first deadline holds: a client must not prolong a revoked session by closing it again.
  if (ending_ && request != CloseRequest::revoked) return;
  if (request == CloseRequest::revoked) closing_how_ = ClosedHow::revoked;
  if (request == CloseRequest::drained) closing_how_ = ClosedHow::drained;
  // What the application wrote before it asked, or before it exited, is still sent; nothing more is delivered to it.
  plain_gone_ = true;
  plain_in_ = true;
  ending_ = true;
  worker_.timers().set(timer_.node, worker_.now_ms(), request == CloseRequest::revoked ? worker_.options().linger_ms : worker_.options().stalled_ms);
  pump();
}

// Both directions said close_notify, or ours did and nobody is left on the plain side to hear the rest.
void Session::maybe_finish() {
  if (phase_ != Phase::open || !tx_done_) return;
  if (rx_done_ ? (plain_shut_ || plain_gone_) : plain_gone_) finish(closing_how_, "");
}

// Reports the end exactly once and gives the plain side away: its receiver closes it when the owner was told.
void Session::finish(ClosedHow how, std::string detail) {
  if (phase_ != Phase::open) return;
  end_reauth(how, detail);
  if (plain_inet_ && how != ClosedHow::closed && how != ClosedHow::drained && how != ClosedHow::revoked) reset_on_close(plain_.get());
  if (plain_) worker_.unwatch(plain_.get());
  if (plain_backend_) plain_.reset();
  Stats& stats = worker_.stats();
  stats.octets_received.fetch_add(received_, std::memory_order_relaxed);
  stats.octets_sent.fetch_add(sent_, std::memory_order_relaxed);
  worker_.emit(ClosedEvent{id_, std::move(plain_), how, alert_received_, std::move(detail), received_, sent_},
               how == ClosedHow::closed ? Urgency::later : Urgency::now);
  to_plain_ = {};
  answers_.reset();
  // After close_notify both ways the peer has nothing left to say that a RST could answer.
  rx_done_ && tx_done_ ? end() : linger();
}

// Lets the last octets (an alert, close_notify) reach the peer: closing a TCP socket with unread input would send RST
// and might take them away again. Ends at once where there is nothing to wait for.
void Session::linger() {
  if (ended()) return;
  phase_ = Phase::lingering;
  worker_.timers().clear(timer_.node);
  if (!ssl_ || crypt_gone_ || !flush_output()) return end();
  if (to_crypt_.empty()) {
    shutdown(crypt_.get(), SHUT_WR);
    ssl_.reset();
  }
  held_ = {};
  worker_.timers().set(timer_.node, worker_.now_ms(), worker_.options().linger_ms);
  drain_lingering();
}

void Session::end() {
  if (ended()) return;
  phase_ = Phase::ended;
  // What OpenSSL wrote and nobody sent must not be sent by the next session of this worker.
  worker_.output().used = 0;
  // Somebody may have a copy, and the watch then outlives close(2), and would lead to a freed session: of a passed descriptor its sender,
  // of every one a child between fork(2) and execve(2) and a reader of /proc/PID/fd.
  if (crypt_) worker_.unwatch(crypt_.get());
  if (plain_) worker_.unwatch(plain_.get());
  crypt_.reset();
  plain_.reset();
  ssl_.reset();
  worker_.retire(*this);
}

}  // namespace tlspool
