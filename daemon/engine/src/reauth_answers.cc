// The client's side of a reauthentication: which requests of the server are answered, and the identity that is shown.
#include <algorithm>

#include "handshake.hh"
#include "session.hh"
#include "worker.hh"

namespace tlspool {
namespace {

// Each answer costs a signature, and a renegotiation a whole handshake: a server gets a few at once, and then one in ten seconds.
constexpr uint32_t most_answers = 32;
constexpr uint64_t answer_every_ms = 10'000;

int on_certificate(SSL* ssl, void*) {
  Session* session = Session::of(ssl);
  return session == nullptr ? 0 : session->on_certificate_wanted();
}

}  // namespace

// To be called before the handshake of a client.
void Session::offer_reauth() {
  SSL_set_post_handshake_auth(ssl_.get(), 1);
  SSL_set_cert_cb(ssl_.get(), on_certificate, nullptr);
}

bool Session::may_answer() {
  const uint64_t now = worker_.now_ms();
  if (!answers_) {
    answers_ = std::make_unique<ReauthAnswers>(worker_.timers(), this);
    answers_->left = most_answers;
    answers_->refilled_ms = now;
  }
  const uint64_t earned = (now - answers_->refilled_ms) / answer_every_ms;
  answers_->refilled_ms += earned * answer_every_ms;
  answers_->left = static_cast<uint32_t>(std::min<uint64_t>(most_answers, answers_->left + earned));
  if (answers_->left == 0) return false;
  --answers_->left;
  return true;
}

// OpenSSL is about to answer a CertificateRequest. 1: with what it has; 0: by ending the session; -1: not yet.
int Session::on_certificate_wanted() {
  // In a renegotiation it was decided with the HelloRequest.
  if (phase_ == Phase::open && SSL_version(ssl_.get()) != TLS1_3_VERSION) return 1;
  if (phase_ == Phase::open) {
    if (may_answer()) return 1;
    answers_->too_many = true;
    return 0;
  }
  if (!negotiation_->ask || identity_answer_ == IdentityAnswer::given) return 1;
  if (identity_answer_ == IdentityAnswer::refused) return 0;
  phase_ = Phase::asking;
  return -1;
}

void Session::decide_identity(ContextRef context, UniqueFd plainfd) {
  if (phase_ != Phase::asking) return;
  if (server_) return fail("BAD_ARGUMENT", "the owner answered the ClientHello by a context; a server is told its selector");
  if (!context->show(ssl_.get())) return fail("INTERNAL", "the key pairs of the identity cannot be used: " + take_reason("unknown reason"));
  identity_answer_ = IdentityAnswer::given;
  shown_ = std::move(context);
  if (plainfd) start_->plainfd = std::move(plainfd);
  phase_ = Phase::handshake;
  pump();
}

// In a client that is open, on TLS 1.2, this is a HelloRequest. Where the option stays, OpenSSL answers it by no_renegotiation.
void Session::on_handshake_start() {
  SSL* ssl = ssl_.get();
  if (server_ || phase_ != Phase::open || SSL_version(ssl) != TLS1_2_VERSION || !renegotiable_ || !may_answer()) return;
  const X509Ptr leaf(SSL_get1_peer_certificate(ssl));
  if (!leaf) return;
  answers_->leaf = der_of(leaf.get());
  answers_->under_way = true;
  answers_->deadline.set(worker_.now_ms(), worker_.options().handshake_ms);
  // OpenSSL would offer to resume the session of before, and a server that takes it up can ask for no certificate: this marks it as not resumable.
  SSL_CTX_remove_session(SSL_get_SSL_CTX(ssl), SSL_get_session(ssl));
  SSL_clear_options(ssl, SSL_OP_NO_RENEGOTIATION);
}

// Whether a certificate of the server is the one of the handshake before: a renegotiation does not change who the server is.
bool Session::is_same_server(const X509* leaf) {
  if (!answers_ || !answers_->under_way) return true;
  answers_->other_server = der_of(leaf) != answers_->leaf;
  return !answers_->other_server;
}

bool Session::can_renegotiate() const {
  SSL* ssl = ssl_.get();
  return SSL_version(ssl) == TLS1_2_VERSION && SSL_get_secure_renegotiation_support(ssl) == 1 && SSL_get_extms_support(ssl) == 1;
}

void Session::settle_answers() {
  if (!answers_->under_way) return;
  answers_->under_way = false;
  answers_->deadline.clear();
  answers_->leaf = {};
  SSL_set_options(ssl_.get(), SSL_OP_NO_RENEGOTIATION);
  renegotiable_ = can_renegotiate();
}

}  // namespace tlspool
