// The server's side of a reauthentication: the question, the answer, and what becomes of the session.
#include "reauth.hh"

#include <algorithm>

#include "handshake.hh"
#include "session.hh"
#include "worker.hh"

namespace tlspool {
namespace {

// Clients of OpenSSL end a session when they want to write in a renegotiation and meet application data before the ServerHello. So none is
// sent behind the HelloRequest, for as long as a client needs to begin its answer, and no longer: it may not mean to.
constexpr uint64_t quiet_ms = 1000;

// Only while an answer is awaited: OpenSSL has no other documented sign of the end of post-handshake authentication.
void on_message(int sent, int, int content_type, const void* data, size_t length, SSL* ssl, void*) {
  Session* session = Session::of(ssl);
  if (session == nullptr || sent != 0 || content_type != SSL3_RT_HANDSHAKE || length == 0) return;
  if (*static_cast<const uint8_t*>(data) == SSL3_MT_FINISHED) session->note_finished();
}

// The list of acceptable CAs in the CertificateRequest. Empty where the context has none: without one of its own, an SSL sends its identity's.
bool set_ca_list(SSL* ssl, SSL_CTX* from) {
  const STACK_OF(X509_NAME)* names = SSL_CTX_get_client_CA_list(from);
  STACK_OF(X509_NAME)* copy = names == nullptr ? sk_X509_NAME_new_null() : SSL_dup_CA_list(names);
  if (copy == nullptr) return false;
  SSL_set_client_CA_list(ssl, copy);
  return true;
}

}  // namespace

void Session::reauthenticate(uint32_t request, ReauthTerms terms) {
  const auto refuse = [&](const char* code, const char* text) { worker_.emit(ErrorAnswer{request, code, text}); };
  if (!server_) return refuse("REAUTH_UNAVAILABLE", "only the server of a session can ask for a certificate, and this is the client");
  if (phase_ != Phase::open || rx_done_ || tx_closing_ || ending_ || breaking_) return refuse("BAD_STATE", "the session is not open in both directions");
  const bool in_message = SSL_in_init(ssl_.get()) == 1;
  if (asked_ && (asked_->request || (asked_->sent && in_message))) return refuse("BAD_STATE", "the client was asked before, and its answer is awaited");
  if (!asked_) asked_ = std::make_unique<ReauthAsked>(worker_.timers(), this);
  asked_->request = request;
  // The mode of the identity is a floor, as it is in the handshake.
  asked_->require = terms.require || context_->client_auth() == ClientAuth::require;
  asked_->context = terms.context ? std::move(terms.context) : context_;
  asked_->due_ms = worker_.now_ms() + (terms.timeout_ms == 0 ? worker_.options().handshake_ms : terms.timeout_ms);
  // A client that was asked before and is late may still answer: there is no second question, and the new terms hold.
  if (!asked_->sent && !in_message) ask_client();
  else if (asked_->sent && !apply_reauth_terms()) finish(ClosedHow::error, "the terms of a reauthentication cannot be changed: " + take_reason("out of memory"));
  if (phase_ != Phase::open) return;
  set_reauth_deadline();
  flush_output();
}

void Session::set_reauth_deadline() {
  if (!asked_) return;
  const uint64_t now = worker_.now_ms();
  const uint64_t next = asked_->quiet_until_ms == 0 ? asked_->due_ms : std::min(asked_->quiet_until_ms, asked_->due_ms);
  asked_->deadline.set(now, next > now ? next - now : 0);
}

bool Session::apply_reauth_terms() {
  SSL* ssl = ssl_.get();
  SSL_CTX* judge = asked_->context->ctx();
  SSL_set_verify(ssl, SSL_VERIFY_PEER | (asked_->require ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), nullptr);
  return SSL_set1_verify_cert_store(ssl, SSL_CTX_get_cert_store(judge)) == 1 && set_ca_list(ssl, judge);
}

void Session::refuse_reauth(const char* code, std::string text) {
  const auto asked = std::move(asked_);
  if (asked && asked->request) worker_.emit(ErrorAnswer{*asked->request, code, std::move(text)});
}

// Only between messages of the peer: in the middle of one, OpenSSL writes nothing.
void Session::ask_client() {
  SSL* ssl = ssl_.get();
  ERR_clear_error();
  if (!apply_reauth_terms()) return refuse_reauth("INTERNAL", "the client cannot be asked: " + take_reason("out of memory"));
  const char* problem = SSL_version(ssl) == TLS1_3_VERSION ? ask_after_handshake() : ask_to_renegotiate();
  ERR_clear_error();
  if (problem != nullptr) return refuse_reauth("REAUTH_UNAVAILABLE", problem);
  asked_->sent = true;
  // Promise 5: no ticket of this session carries an identity that was shown under terms which a later handshake does not know.
  peer_expiry_ = 1;
  SSL_set_msg_callback(ssl, on_message);
  if (SSL_do_handshake(ssl) != 1) finish(ClosedHow::error, "the request for a certificate cannot be made: " + take_reason("unknown error"));
}

const char* Session::ask_after_handshake() {
  if (SSL_verify_client_post_handshake(ssl_.get()) != 1)
    return ERR_GET_REASON(ERR_peek_error()) == SSL_R_EXTENSION_NOT_RECEIVED
               ? "the client did not offer post-handshake authentication (RFC 8446 section 4.2.6)"
               : "OpenSSL makes no request for a certificate in this session";
  SSL_set_num_tickets(ssl_.get(), 0);
  return nullptr;
}

const char* Session::ask_to_renegotiate() {
  SSL* ssl = ssl_.get();
  if (SSL_get_secure_renegotiation_support(ssl) != 1) return "the client does not support secure renegotiation (RFC 5746)";
  if (SSL_get_extms_support(ssl) != 1) return "the session has no extended master secret (RFC 7627), without which a renegotiation is not safe";
  // In a handshake that was resumed we showed none.
  asked_->ours = SSL_session_reused(ssl) == 1 ? nullptr : SSL_get_certificate(ssl);
  SSL_set_options(ssl, SSL_OP_NO_TICKET);
  SSL_clear_options(ssl, SSL_OP_NO_RENEGOTIATION);
  const bool begun = SSL_renegotiate(ssl) == 1;
  asked_->quiet_until_ms = worker_.now_ms() + quiet_ms;
  // OpenSSL keeps in mind that it asked, and takes one ClientHello; any other meets the option again.
  SSL_set_options(ssl, SSL_OP_NO_RENEGOTIATION);
  return begun ? nullptr : "OpenSSL begins no renegotiation in this session";
}

// The ClientHello of a renegotiation changes nothing of what was decided on the first one.
int Session::on_renegotiation_hello(const std::string& name, int* alert) {
  if (!asked_ || !asked_->sent) return SSL_CLIENT_HELLO_ERROR;  // cannot happen: OpenSSL refuses those that nobody asked for
  asked_->quiet_until_ms = 0;  // from here on OpenSSL sends nothing before the end
  if (name == servername_ || name.empty()) return SSL_CLIENT_HELLO_SUCCESS;
  *alert = SSL_AD_ILLEGAL_PARAMETER;
  return SSL_CLIENT_HELLO_ERROR;
}

// After OpenSSL has read what there was.
void Session::settle_reauth() {
  if (SSL_in_init(ssl_.get()) == 1) {
    // A late answer, which has to come to its end all the same.
    if (asked_ && asked_->sent && !asked_->request && !asked_->deadline.armed()) asked_->deadline.set(worker_.now_ms(), worker_.options().handshake_ms);
    return;
  }
  if (answers_) settle_answers();
  if (!asked_) return;
  if (asked_->finished) return conclude_reauth();
  if (asked_->sent) return;
  ask_client();
  if (phase_ != Phase::open) return;
  set_reauth_deadline();
  flush_output();
}

void Session::conclude_reauth() {
  SSL* ssl = ssl_.get();
  SSL_set_msg_callback(ssl, nullptr);
  if (asked_->ours != nullptr && asked_->ours != SSL_get_certificate(ssl))
    return finish(ClosedHow::error, "the client's renegotiation led to another certificate of the same identity");
  ReauthenticatedEvent event{};
  event.session = id_;
  event.request = asked_->request.value_or(0);
  event.peer = describe_peer();
  event.peer.authorized = event.peer.authorized && asked_->certificate;
  event.outcome = event.peer.authorized ? ReauthOutcome::authenticated : asked_->certificate ? ReauthOutcome::rejected : ReauthOutcome::refused;
  // OpenSSL has ended such a session already, unless its terms were stricter after they had been applied.
  if (asked_->require && !event.peer.authorized) return finish(ClosedHow::error, "the client did not authenticate");
  asked_.reset();
  worker_.emit(std::move(event));
}

// The peer said close_notify, and can answer no more.
void Session::end_reauth_unanswered() {
  if (!asked_) return;
  if (asked_->request && asked_->require) return finish(ClosedHow::error, "the client closed its side of the session and did not authenticate");
  refuse_reauth("BAD_STATE", "the client closed its side of the session before it answered");
}

// The session ends first.
void Session::end_reauth(ClosedHow how, const std::string& detail) {
  if (!asked_) return;
  const bool by_us = ending_ || how == ClosedHow::closed || how == ClosedHow::revoked || how == ClosedHow::drained;
  const bool failed = how == ClosedHow::error || how == ClosedHow::alert;
  if (!by_us && (failed || asked_->require)) return refuse_reauth("REAUTH_REFUSED", detail.empty() ? "the session ended before the client had authenticated" : detail);
  if (how == ClosedHow::timeout) return refuse_reauth("TIMEOUT", detail);
  refuse_reauth("SESSION_LOST", "the session ended before the client had answered");
}

void Session::on_reauth_deadline() {
  if (phase_ != Phase::open) return;
  const bool in_message = SSL_in_init(ssl_.get()) == 1;
  if (!asked_) {
    if (answers_ && answers_->under_way && in_message) finish(ClosedHow::timeout, "the server did not finish the renegotiation that it asked for");
    return;
  }
  asked_->quiet_until_ms = 0;
  if (asked_->request && worker_.now_ms() < asked_->due_ms) {
    set_reauth_deadline();
    return pump();
  }
  if (asked_->require) return finish(ClosedHow::timeout, "the client did not authenticate in time");
  // While one is under way nothing can be sent: that must not last for as long as the client likes.
  if (asked_->sent && in_message) return finish(ClosedHow::timeout, "the client did not finish its answer to the request for a certificate in time");
  if (!asked_->sent) return refuse_reauth("TIMEOUT", "the client did not finish a message that it had begun, so that it could not be asked");
  if (asked_->request) worker_.emit(ErrorAnswer{*asked_->request, "TIMEOUT", "the client did not answer the request for a certificate in time"});
  asked_->request.reset();
  pump();
}

// Why OpenSSL ended the session, in the words of a reauthentication where that was the cause.
std::string Session::broken_reason() {
  const bool none_shown = ERR_GET_REASON(ERR_peek_error()) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE;
  const std::string reason = "the TLS stream is broken: " + take_reason("unknown error");
  if (answers_ && answers_->other_server) return "the server showed another certificate in a renegotiation";
  if (answers_ && answers_->too_many) return "the server asks for a certificate too often";
  if (!asked_ || !asked_->sent) return reason;
  if (none_shown) return "the client showed no certificate";
  if (asked_->declined) return "the client refused to renegotiate (no_renegotiation), and the session cannot go on after that";
  if (!asked_->refusal.empty()) return "an access rule of the identity " + *asked_->context->localid() + " refused the certificate of the client: " + asked_->refusal;
  const long verified = SSL_get_verify_result(ssl_.get());
  if (!asked_->certificate || verified == X509_V_OK) return reason;
  return std::string("the certificate of the client was not accepted: ") + verify_code_name(verified) + " (" + X509_verify_cert_error_string(verified) + ")";
}

}  // namespace tlspool
