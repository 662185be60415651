// One TLS session: the protected stream on one side, the plain one on the other. Belongs to one worker thread
// from its first octet to its last; nobody else touches it.
//
//   handshake -> [asking] -> handshake -> [supplying] -> [connecting] -> open -> [lingering] -> ended
//
// asking: the owner decides on the ClientHello. supplying: the TLS handshake is done and the owner brings the plain side; nothing is
// read from the peer meanwhile. connecting: the backend's TCP handshake. lingering: everything is said, and the peer gets a moment
// to read it before the socket is closed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "context.hh"
#include "events.hh"
#include "fd.hh"
#include "ossl.hh"
#include "reauth.hh"
#include "record_bio.hh"
#include "selector.hh"
#include "timer_wheel.hh"

namespace tlspool {

class Worker;

// What both roles may be told; shared by all sessions of a listener.
struct Negotiation {
  std::string alpn;  // wire format of RFC 7301 section 3.1: each name behind its length octet, most preferred first
  std::optional<ClientAuth> client_auth;
  bool reject_unauthorized = true;
  bool ask = false;
  bool ask_plain = false;
  std::optional<sockaddr_storage> backend;
  socklen_t backend_length = 0;
};

struct SessionStart {
  UniqueFd cryptfd;
  UniqueFd plainfd;
  bool server = true;
  ListenerId listener = 0;
  SelectorRef selector;  // server role
  ContextRef context;    // client role
  std::shared_ptr<const Negotiation> negotiation;
  std::string remoteid;
  std::string servername;
  uint64_t handshake_ms = 0;
  Endpoint remote;
  Endpoint local;  // where it is known without asking the kernel
  std::string refusal;  // why an access rule refused the peer's certificate
};

enum class CloseRequest { orderly, abort, revoked, drained };

class Session {
 public:
  Session(Worker& worker, SessionId id, SessionStart start);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  static Session* of(const SSL* ssl) { return static_cast<Session*>(SSL_get_ex_data(ssl, 0)); }

  // False: nothing was set up; the caller drops the session, which has reported its failure.
  bool begin();
  void on_crypt(uint32_t epoll_events);
  void on_plain(uint32_t epoll_events);
  // Goes on where the last turn ended; for the worker's ready list.
  void pump();

  void decide(SelectorRef selector, UniqueFd plainfd, std::optional<std::string> alpn);  // null selector: refuse; alpn in wire format
  void decide_identity(ContextRef context, UniqueFd plainfd);  // client role
  void supply(UniqueFd plainfd);                               // none: make a socket pair
  void refuse_plain(const char* code, std::string text);
  void close(CloseRequest request);
  void answer_exporter(uint32_t request, const std::string& label, const std::optional<std::string>& context, size_t length);
  void answer_bindings(uint32_t request);
  void reauthenticate(uint32_t request, ReauthTerms terms);

  SessionId id() const { return id_; }
  bool ended() const { return phase_ == Phase::ended; }
  bool in_handshake() const { return phase_ == Phase::handshake || phase_ == Phase::asking || phase_ == Phase::supplying || phase_ == Phase::connecting; }
  static void on_timer(TimerNode& node) {
    const SessionTimer& timer = *reinterpret_cast<SessionTimer*>(&node);
    timer.reauth ? timer.session->on_reauth_deadline() : timer.session->on_deadline();
  }
  bool queued = false;  // on the worker's ready list

  // For the callbacks of tickets.cc, handshake.cc and reauth*.cc.
  const Context* context() const { return context_.get(); }
  int64_t peer_expiry() const { return peer_expiry_; }
  void set_peer_expiry(int64_t at_s) { peer_expiry_ = at_s; }
  void note_alert(bool received, int description) { (received ? alert_received_ : alert_sent_) = static_cast<int16_t>(description); }
  int on_client_hello(int* alert);
  int choose_alpn(const unsigned char** out, unsigned char* out_length, const unsigned char* offered, unsigned offered_length) const;
  int verify_peer(X509_STORE_CTX* store);
  int on_certificate_wanted();
  void on_handshake_start();
  void note_finished() {
    if (asked_) asked_->finished = true;
  }
  void note_no_renegotiation() {
    if (asked_) asked_->declined = true;
  }

 private:
  enum class Phase : uint8_t { handshake, asking, supplying, connecting, open, lingering, ended };
  enum class IdentityAnswer : uint8_t { none, given, refused };

  // handshake.cc
  bool begin_server();
  bool begin_client();
  bool apply_context(ContextRef chosen);
  void drive_handshake();
  void fail(const char* code, std::string text);
  void fail_handshake();
  void ask_owner();

  // established.cc
  void establish();
  void ask_for_plain();
  void await_supply();
  bool peer_left();
  bool make_plain_side(UniqueFd& application_end, std::string& problem);
  void wait_for_descriptors(const std::string& problem);
  void wait_and_try_again(const char* code, const std::string& problem);
  void connect_backend();
  void backend_connected();
  void open_plain(UniqueFd application_end);
  EstablishedEvent describe(UniqueFd application_end);
  PeerFacts describe_peer();
  const char* why_not_exported() const;

  // reauth.cc
  bool apply_reauth_terms();
  void ask_client();
  const char* ask_after_handshake();
  const char* ask_to_renegotiate();
  int on_renegotiation_hello(const std::string& name, int* alert);
  void settle_reauth();
  void conclude_reauth();
  void refuse_reauth(const char* code, std::string text);
  void end_reauth(ClosedHow how, const std::string& detail);
  void end_reauth_unanswered();
  void set_reauth_deadline();
  void on_reauth_deadline();
  std::string broken_reason();

  // reauth_answers.cc
  void offer_reauth();
  bool may_answer();
  bool is_same_server(const X509* leaf);
  bool can_renegotiate() const;
  void settle_answers();

  // session_io.cc
  enum class Received : uint8_t { some, nothing, end, broken };
  Received receive_crypt(size_t most);
  void park_input();
  bool reads_while_blocked() const;
  size_t turn_octets(bool towards_crypt, size_t last) const;
  void watch_for_stall();
  bool crypt_to_plain();
  bool plain_to_crypt();
  bool decrypt_all(size_t& plain_octets);
  void encrypt(const uint8_t* data, size_t length);
  void answer_key_update();
  void count_sent_records(size_t octets);

  // session_send.cc
  bool takes_nothing_now(int error);
  bool write_plain(const uint8_t* data, size_t length);
  bool flush_plain();
  bool flush_output();
  bool defer_tickets();
  void send_tickets();
  bool flush_crypt();

  // session_end.cc
  void after_crypt_flushed();
  void plain_ended();
  void peer_said_close();
  void crypt_ended();
  void shut_plain_if_flushed();
  void drain_lingering();

  // session.cc
  void on_deadline();
  void arm(bool crypt, bool want_write);
  void maybe_finish();
  void finish(ClosedHow how, std::string detail);
  void linger();
  void end();
  void leave_handshake(bool succeeded);

  Worker& worker_;
  const SessionId id_;
  UniqueFd crypt_, plain_;
  SslPtr ssl_;
  RecordIo io_;
  ContextRef context_;
  SelectorRef selector_;
  std::shared_ptr<const Negotiation> negotiation_;
  std::unique_ptr<SessionStart> start_;  // until established
  std::unique_ptr<ReauthAsked> asked_;      // server role
  std::unique_ptr<ReauthAnswers> answers_;  // client role
  ContextRef shown_;                        // client role: whose key pairs the owner chose, where it was asked
  std::string servername_;                  // server role, TLS 1.2: of the first handshake
  SessionTimer timer_;
  std::vector<uint8_t> held_;      // received, not yet given to OpenSSL
  std::vector<uint8_t> to_crypt_;  // records that the peer's socket did not take yet
  std::vector<uint8_t> deferred_;  // session tickets, sent with whatever we send next
  std::vector<uint8_t> to_plain_;  // octets that the plain side did not take yet
  size_t to_crypt_sent_ = 0, to_plain_sent_ = 0;
  uint64_t received_ = 0, sent_ = 0;
  uint32_t sent_records_ = 0, received_records_ = 0;  // under the current keys
  uint32_t last_turn_in_ = 0, last_turn_out_ = 0;
  uint32_t piled_answers_ = 0;  // octets in to_crypt_ that answer what the peer sent
  uint32_t since_idle_ = 0;  // octets sent since the last pause, for the record size
  uint64_t last_sent_ms_ = 0;
  uint64_t plain_wait_until_ms_ = 0;  // handshake done, no descriptors for the plain side yet
  int64_t peer_expiry_ = 0;  // when the client's chain expires; 0: no client certificate
  const ListenerId listener_;
  int16_t alert_received_ = -1, alert_sent_ = -1;
  Phase phase_ = Phase::handshake;
  IdentityAnswer identity_answer_ = IdentityAnswer::none;
  ClosedHow closing_how_ = ClosedHow::closed;
  const bool server_;
  bool crypt_inet_ = false, plain_inet_ = false, plain_packets_ = false;
  bool plain_backend_ = false;  // the plain side was connected here, and nobody else has it
  bool crypt_in_ = false, crypt_hup_ = false, crypt_armed_write_ = false;  // readiness as epoll reported it
  bool crypt_gone_ = false;  // nothing can or may be sent to the peer any more; a peer that only said FIN still reads
  bool plain_in_ = false, plain_hup_ = false, plain_gone_ = false, plain_armed_write_ = false, plain_always_write_ = false;
  bool rx_done_ = false;       // close_notify received
  bool tx_closing_ = false;    // close_notify handed to OpenSSL
  bool tx_done_ = false;       // ... and sent, with a FIN behind it
  bool plain_eof_ = false;     // nothing more comes from the plain side
  bool plain_shut_ = false;    // we said that nothing more goes there
  bool breaking_ = false;      // finish() once to_plain_ is flushed
  bool ending_ = false;        // the plain side ends where it has nothing more right now
  bool hello_seen_ = false;    // its name was decided upon
  bool plain_supplied_ = false;  // the owner was asked for the plain side, and answered
  bool laborious_ = false;     // the last turn brought hardly any data
  bool renegotiable_ = false;  // client role: a HelloRequest may be answered
  bool counted_handshake_ = true;
};

}  // namespace tlspool
