#include "handshake.hh"

#include <netinet/in.h>
#include <openssl/x509v3.h>
#include <algorithm>

#include "session.hh"
#include "worker.hh"

namespace tlspool {
namespace {

constexpr size_t handshake_read_octets = 16 * 1024 + 2048;
constexpr size_t max_hello_names = 64;
// OpenSSL's client skips every HelloRequest in a handshake (RFC 5246 section 7.4.1.1): a server that sends them as fast as they are read
// must keep this thread neither from its other sessions nor from the deadline.
constexpr int handshake_turns = 8;

// host_name of RFC 6066 section 3: list length (2), type 0 (1), name length (2), name. Empty when absent. Returns the alert for
// a name that is malformed, as OpenSSL's own server would, or 0.
int read_servername(SSL* ssl, std::string& name) {
  const unsigned char* data = nullptr;
  size_t length = 0;
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &data, &length) != 1) return 0;
  if (length < 5) return SSL_AD_DECODE_ERROR;
  const size_t list = static_cast<size_t>(data[0]) << 8 | data[1];
  const size_t host = static_cast<size_t>(data[3]) << 8 | data[4];
  if (list + 2 != length || data[2] != TLSEXT_NAMETYPE_host_name || host + 5 > length) return SSL_AD_DECODE_ERROR;
  if (host > TLSEXT_MAXLEN_host_name) return SSL_AD_UNRECOGNIZED_NAME;
  name.assign(reinterpret_cast<const char*>(data) + 5, host);
  // A NUL would end the name early for whoever reads it as a C string.
  if (name.find('\0') == std::string::npos) return 0;
  name.clear();
  return SSL_AD_UNRECOGNIZED_NAME;
}

std::vector<std::string> read_alpn(SSL* ssl) {
  const unsigned char* data = nullptr;
  size_t length = 0;
  std::vector<std::string> names;
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &data, &length) != 1 || length < 2) return names;
  for (size_t at = 2; at < length && names.size() < max_hello_names;) {
    const size_t size = data[at];
    if (size == 0 || at + 1 + size > length) break;
    names.emplace_back(reinterpret_cast<const char*>(data) + at + 1, size);
    at += 1 + size;
  }
  return names;
}

int on_hello(SSL* ssl, int* alert, void*) {
  Session* session = Session::of(ssl);
  *alert = SSL_AD_INTERNAL_ERROR;
  return session == nullptr ? SSL_CLIENT_HELLO_ERROR : session->on_client_hello(alert);
}

int on_alpn(SSL* ssl, const unsigned char** out, unsigned char* out_length, const unsigned char* in, unsigned in_length, void*) {
  const Session* session = Session::of(ssl);
  return session == nullptr ? SSL_TLSEXT_ERR_ALERT_FATAL : session->choose_alpn(out, out_length, in, in_length);
}

int on_verify(X509_STORE_CTX* store, void*) {
  const SSL* ssl = static_cast<const SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  Session* session = ssl == nullptr ? nullptr : Session::of(ssl);
  return session == nullptr ? 0 : session->verify_peer(store);
}

void on_info(const SSL* ssl, int where, int value) {
  if (where != SSL_CB_HANDSHAKE_START && (where & SSL_CB_ALERT) == 0) return;
  Session* session = Session::of(ssl);
  if (session == nullptr) return;
  if (where == SSL_CB_HANDSHAKE_START) return session->on_handshake_start();
  const int description = value & 0xff;
  if (where == SSL_CB_READ_ALERT && description == SSL_AD_NO_RENEGOTIATION) session->note_no_renegotiation();
  // TLS 1.3 ignores the level: all but these two are fatal (RFC 8446 section 6). In TLS 1.2 a warning changes nothing.
  const bool fatal = value >> 8 == SSL3_AL_FATAL || (SSL_version(ssl) == TLS1_3_VERSION && description != SSL_AD_USER_CANCELLED);
  if (fatal && description != SSL_AD_CLOSE_NOTIFY) session->note_alert((where & SSL_CB_READ) != 0, description);
}

}  // namespace

void install_handshake_callbacks(SSL_CTX* ctx) {
  SSL_CTX_set_client_hello_cb(ctx, on_hello, nullptr);
  SSL_CTX_set_alpn_select_cb(ctx, on_alpn, nullptr);
  SSL_CTX_set_cert_verify_callback(ctx, on_verify, nullptr);
  SSL_CTX_set_info_callback(ctx, on_info);
}

bool Session::begin_server() {
  const ContextRef first = selector_ ? selector_->first() : nullptr;
  if (!first) {
    fail("IDENTITY_UNKNOWN", "no identity is published that could serve this connection");
    return false;
  }
  context_ = first;
  ssl_.reset(SSL_new(first->ctx()));
  return static_cast<bool>(ssl_);
}

bool Session::begin_client() {
  context_ = start_->context;
  ssl_.reset(SSL_new(context_->ctx()));
  if (!ssl_) return false;
  SSL* ssl = ssl_.get();
  SSL_set_verify(ssl, SSL_VERIFY_PEER, nullptr);
  offer_reauth();
  const std::string& remoteid = start_->remoteid;
  X509_VERIFY_PARAM* param = SSL_get0_param(ssl);
  X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  if (!remoteid.empty() && X509_VERIFY_PARAM_set1_ip_asc(param, remoteid.c_str()) != 1) {
    ERR_clear_error();
    if (X509_VERIFY_PARAM_set1_host(param, remoteid.data(), remoteid.size()) != 1) return false;
  }
  const std::string& alpn = negotiation_->alpn;
  if (!alpn.empty() && SSL_set_alpn_protos(ssl, reinterpret_cast<const unsigned char*>(alpn.data()), static_cast<unsigned>(alpn.size())) != 0) return false;
  return start_->servername.empty() || SSL_set_tlsext_host_name(ssl, start_->servername.c_str()) == 1;
}

// The identity's own mode is a floor: a listener may raise it, never lower it.
bool Session::apply_context(ContextRef chosen) {
  context_.swap(chosen);  // the context that the SSL was made from lives until adopt() has looked at it
  const ClientAuth floor = context_->client_auth();
  const ClientAuth mode = std::max(floor, negotiation_->client_auth.value_or(ClientAuth::none));
  const bool reject = negotiation_->reject_unauthorized || floor == ClientAuth::require;
  int flags = SSL_VERIFY_NONE;
  if (mode == ClientAuth::request) flags = SSL_VERIFY_PEER;
  if (mode == ClientAuth::require) flags = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL* ssl = ssl_.get();
  if (!context_->adopt(ssl) || !context_->bind_resumption(ssl, mode, reject)) return false;
  SSL_set_verify(ssl, flags, nullptr);
  return true;
}

int Session::on_client_hello(int* alert) {
  std::string name;
  if (const int fault = read_servername(ssl_.get(), name); fault != 0) {
    *alert = fault;
    return SSL_CLIENT_HELLO_ERROR;
  }
  if (!start_) return on_renegotiation_hello(name, alert);
  // RFC 8446 section 4.1.2: the ClientHello after a HelloRetryRequest names the same server. Else the owner would be asked
  // about one name, and another one served. OpenSSL does not compare them.
  if (std::exchange(hello_seen_, true) && name != start_->servername) {
    *alert = SSL_AD_ILLEGAL_PARAMETER;
    return SSL_CLIENT_HELLO_ERROR;
  }
  start_->servername = name;
  if (phase_ == Phase::handshake && negotiation_->ask && selector_ && !start_->context) {
    // OpenSSL calls again when the handshake goes on; decide() has set the selector by then.
    phase_ = Phase::asking;
    return SSL_CLIENT_HELLO_RETRY;
  }
  const ContextRef chosen = selector_ ? selector_->choose(name) : nullptr;
  if (!chosen) {
    *alert = SSL_AD_UNRECOGNIZED_NAME;
    return SSL_CLIENT_HELLO_ERROR;
  }
  return apply_context(chosen) ? SSL_CLIENT_HELLO_SUCCESS : SSL_CLIENT_HELLO_ERROR;
}

int Session::choose_alpn(const unsigned char** out, unsigned char* out_length, const unsigned char* offered, unsigned offered_length) const {
  const std::string& ours = negotiation_->alpn;
  if (ours.empty()) return SSL_TLSEXT_ERR_NOACK;
  unsigned char* chosen = nullptr;
  const int verdict = SSL_select_next_proto(&chosen, out_length, reinterpret_cast<const unsigned char*>(ours.data()),
                                            static_cast<unsigned>(ours.size()), offered, offered_length);
  *out = chosen;
  // No overlap is fatal (RFC 7301 section 3.2), or a client of one protocol could be made to talk to a server of another.
  return verdict == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

void Session::ask_owner() {
  HelloEvent event{id_, listener_, start_->servername, server_ ? read_alpn(ssl_.get()) : std::vector<std::string>(), start_->remote};
  worker_.emit(std::move(event));
}

void Session::decide(SelectorRef selector, UniqueFd plainfd, std::optional<std::string> alpn) {
  if (phase_ != Phase::asking) return;
  if (!server_ && selector) return fail("BAD_ARGUMENT", "the owner answered the request for a certificate by a selector; a client is told its context");
  phase_ = Phase::handshake;
  if (!server_) {
    identity_answer_ = IdentityAnswer::refused;  // OpenSSL ends the handshake then, with an alert
    return pump();
  }
  if (!selector) {
    selector_.reset();  // on_client_hello() refuses then, with an alert
  } else {
    selector_ = std::move(selector);
  }
  if (plainfd) start_->plainfd = std::move(plainfd);
  if (alpn) {
    auto own = std::make_shared<Negotiation>(*negotiation_);
    own->alpn = std::move(*alpn);
    negotiation_ = std::move(own);
  }
  start_->context = context_;  // marks that the owner was asked
  pump();
}

void Session::drive_handshake() {
  if (phase_ != Phase::handshake) return;
  if (!to_crypt_.empty()) flush_crypt();
  if (phase_ != Phase::handshake) return;
  for (int turn = 0; turn < handshake_turns; ++turn) {
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_.get());
    const int error = result == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl_.get(), result);
    if (error == SSL_ERROR_SSL || error == SSL_ERROR_SYSCALL) return fail_handshake();
    // The server's handshake ends by writing tickets, the client's by writing its Finished.
    // A peer that is gone by now fails the session in here: it must not be established after that.
    if (!(error == SSL_ERROR_NONE && server_ ? defer_tickets() : flush_output())) return;
    if (phase_ == Phase::handshake && error == SSL_ERROR_NONE) return establish();
    if (error == SSL_ERROR_WANT_CLIENT_HELLO_CB || error == SSL_ERROR_WANT_X509_LOOKUP) {
      park_input();
      return ask_owner();
    }
    switch (receive_crypt(handshake_read_octets)) {
      case Received::some:
        break;
      case Received::nothing:
        return;
      case Received::end:
        return fail("PEER_CLOSED", "the peer closed the connection during the handshake");
      case Received::broken:
        return fail("PEER_CLOSED", "the connection broke during the handshake");
    }
  }
  park_input();
  worker_.make_ready(*this);
}

void Session::fail_handshake() {
  const long verified = SSL_get_verify_result(ssl_.get());
  const bool refused_name = server_ && alert_sent_ == SSL_AD_UNRECOGNIZED_NAME;
  std::string reason = take_reason("unknown error");
  if (identity_answer_ == IdentityAnswer::refused) return fail("HANDSHAKE_FAILED", "the owner of the session gave it no identity when the server asked for a certificate");
  if (refused_name) return fail("NAME_REFUSED", start_->servername.empty() ? "the client sent no server name (SNI) and there is no default identity"
                                                                           : "the server name that the client asks for is not served here");
  if (start_ && !start_->refusal.empty())
    return fail("CERT_REJECTED", "an access rule of the identity " + *context_->localid() + " refused the certificate of the peer: " + start_->refusal);
  if (alert_sent_ >= 0 && verified != X509_V_OK)
    return fail("CERT_REJECTED", std::string("the certificate of the peer was not accepted: ") + verify_code_name(verified) + " (" +
                                     X509_verify_cert_error_string(verified) + ")");
  if (alert_received_ >= 0)
    return fail("HANDSHAKE_FAILED", std::string("the peer refused the handshake with the alert ") + SSL_alert_desc_string_long(alert_received_));
  fail("HANDSHAKE_FAILED", "the TLS handshake failed: " + reason);
}

void Session::fail(const char* code, std::string text) {
  FailedEvent event{id_, listener_, code, std::move(text), alert_received_ >= 0 ? alert_received_ : alert_sent_, {}, {}};
  if (start_) {
    event.remote = start_->remote;
    event.servername = server_ ? start_->servername : start_->remoteid;
  }
  leave_handshake(false);
  if (plain_) worker_.unwatch(plain_.get());  // a backend that was being connected
  plain_.reset();
  if (start_) start_->plainfd.reset();
  worker_.emit(std::move(event), listener_ == 0 ? Urgency::now : Urgency::later);
  linger();
}

}  // namespace tlspool
