// Reauthentication of the client while a session runs: what is remembered of it on either side.
//
// TLS 1.3: post-handshake authentication (RFC 8446 section 4.6.2). TLS 1.2: a renegotiation (RFC 5746), and only where the first handshake
// had the extended master secret (RFC 7627 section 1: without it, a man in the middle can splice one session onto another).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "ossl.hh"
#include "selector.hh"
#include "timer_wheel.hh"

namespace tlspool {

class Session;

// A deadline of a session. `reauth`: of its reauthentication, else of the session itself.
struct SessionTimer {
  TimerNode node;  // first: Session::on_timer() relies on it
  Session* session;
  bool reauth = false;
};

class ReauthDeadline {
 public:
  ReauthDeadline(TimerWheel& wheel, Session* session) : wheel_(wheel), timer_{{}, session, true} {}
  ~ReauthDeadline() { clear(); }
  ReauthDeadline(const ReauthDeadline&) = delete;
  ReauthDeadline& operator=(const ReauthDeadline&) = delete;
  void set(uint64_t now_ms, uint64_t delay_ms) { wheel_.set(timer_.node, now_ms, delay_ms); }
  void clear() { wheel_.clear(timer_.node); }
  bool armed() const { return timer_.node.armed(); }

 private:
  TimerWheel& wheel_;
  SessionTimer timer_;
};

struct ReauthTerms {
  bool require = false;
  ContextRef context;       // whose trust, peer rules and CA list decide; null: the session's own
  uint64_t timeout_ms = 0;  // 0: that of a handshake
};

// Server role: from the question to the client's answer, which may come after nobody waits for it any more.
struct ReauthAsked {
  ReauthAsked(TimerWheel& wheel, Session* session) : deadline(wheel, session) {}
  ReauthDeadline deadline;
  std::optional<uint32_t> request;  // none: its time is over
  uint64_t due_ms = 0;              // when it is
  uint64_t quiet_until_ms = 0;      // TLS 1.2: nothing of the application is sent before, or before the client has begun its answer
  bool require = false;
  ContextRef context;
  bool sent = false;           // CertificateRequest or HelloRequest
  bool certificate = false;    // the client showed one, and it was judged
  bool finished = false;       // the client's Finished has come
  bool declined = false;       // by no_renegotiation
  std::string refusal;         // why an access rule refused the certificate
  const X509* ours = nullptr;  // our certificate in the handshake before, where it was shown; only compared
};

// Client role: from the first time that the server asks.
struct ReauthAnswers {
  ReauthAnswers(TimerWheel& wheel, Session* session) : deadline(wheel, session) {}
  ReauthDeadline deadline;
  uint32_t left = 0;  // how many may follow without a pause
  uint64_t refilled_ms = 0;
  bool under_way = false;  // a renegotiation
  bool too_many = false, other_server = false;  // and the session was ended for it
  std::string leaf;        // DER of the server's certificate in the handshake before
};

}  // namespace tlspool
