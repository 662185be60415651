// Judging the certificate of the peer: its chain, the rules of the identity, who may overlook what; and what is told of it.
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <algorithm>
#include <ctime>
#include <string>
#include <vector>

#include "handshake.hh"
#include "session.hh"

namespace tlspool {
namespace {

int64_t expiry_of(const X509* certificate) {
  tm parts{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &parts) != 1) return 1;
  return static_cast<int64_t>(timegm(&parts));
}

// As many as a message carries, and a bound for a peer that sends hundreds.
constexpr size_t most_certificates = 16;

// A ticket holds the leaf alone, whose issuers are those that are trusted today.
ChainPtr known_issuers(SSL* ssl, X509* leaf) {
  ChainPtr issuers(sk_X509_new_null());
  const StoreCtxPtr lookup(X509_STORE_CTX_new());
  X509_STORE* trust = SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl));
  if (!issuers || !lookup || X509_STORE_CTX_init(lookup.get(), trust, nullptr, nullptr) != 1) return issuers;
  X509* last = leaf;
  while (sk_X509_num(issuers.get()) < static_cast<int>(most_certificates) && X509_check_issued(last, last) != X509_V_OK) {
    X509* issuer = nullptr;
    if (X509_STORE_CTX_get1_issuer(&issuer, lookup.get(), last) != 1) break;
    if (X509Ptr owned(issuer); sk_X509_push(issuers.get(), issuer) > 0) last = owned.release();
    else break;
  }
  return issuers;
}

// The issuers by which the leaf verified, up to the root, which peers leave out (RFC 8446 section 4.4.2).
ChainPtr issuers_of(SSL* ssl, X509* leaf) {
  const STACK_OF(X509)* verified = SSL_get0_verified_chain(ssl);
  if (verified == nullptr) return known_issuers(ssl, leaf);
  ChainPtr issuers(X509_chain_up_ref(const_cast<STACK_OF(X509)*>(verified)));
  if (issuers) X509_free(sk_X509_shift(issuers.get()));
  return issuers;
}

bool is_among(const STACK_OF(X509)* chain, const X509* certificate) {
  for (int i = 0; i < sk_X509_num(chain); ++i)
    if (X509_cmp(sk_X509_value(chain, i), certificate) == 0) return true;
  return false;
}

}  // namespace

const char* verify_code_name(long code) {
  switch (code) {
#define NAME(name) \
  case X509_V_ERR_##name: \
    return #name
    NAME(UNABLE_TO_GET_ISSUER_CERT);
    NAME(UNABLE_TO_GET_CRL);
    NAME(CERT_SIGNATURE_FAILURE);
    NAME(CERT_NOT_YET_VALID);
    NAME(CERT_HAS_EXPIRED);
    NAME(ERROR_IN_CERT_NOT_BEFORE_FIELD);
    NAME(ERROR_IN_CERT_NOT_AFTER_FIELD);
    NAME(DEPTH_ZERO_SELF_SIGNED_CERT);
    NAME(SELF_SIGNED_CERT_IN_CHAIN);
    NAME(UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
    NAME(UNABLE_TO_VERIFY_LEAF_SIGNATURE);
    NAME(CERT_CHAIN_TOO_LONG);
    NAME(CERT_REVOKED);
    NAME(INVALID_CA);
    NAME(PATH_LENGTH_EXCEEDED);
    NAME(INVALID_PURPOSE);
    NAME(CERT_UNTRUSTED);
    NAME(CERT_REJECTED);
    NAME(HOSTNAME_MISMATCH);
    NAME(IP_ADDRESS_MISMATCH);
    NAME(EE_KEY_TOO_SMALL);
    NAME(CA_KEY_TOO_SMALL);
    NAME(CA_MD_TOO_WEAK);
    NAME(UNHANDLED_CRITICAL_EXTENSION);
    NAME(PERMITTED_VIOLATION);
    NAME(EXCLUDED_VIOLATION);
#undef NAME
    default:
      return "CERT_VERIFICATION_FAILED";
  }
}

int Session::verify_peer(X509_STORE_CTX* store) {
  const int verdict = X509_verify_cert(store);
  X509* leaf = X509_STORE_CTX_get0_cert(store);
  if (!is_same_server(leaf)) {
    X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
    return 0;
  }
  if (asked_) asked_->certificate = true;
  const STACK_OF(X509)* chain = X509_STORE_CTX_get0_chain(store);
  if (server_ && !asked_ && verdict == 1 && chain != nullptr) {
    int64_t expiry = INT64_MAX;
    for (int i = 0; i < sk_X509_num(chain); ++i) expiry = std::min(expiry, expiry_of(sk_X509_value(chain, i)));
    peer_expiry_ = expiry;
  }
  // Asked while the session runs, and not required to: the session goes on, with a client that is not authorized.
  const int refused = asked_ && !asked_->require ? 1 : 0;
  if (const PeerRules* rules = asked_ ? asked_->context->peer_rules() : context_->peer_rules(); rules != nullptr) {
    // Also where the chain is bad and that may be overlooked: what a rule refuses is never let through.
    std::string refusal = rules->refusal(leaf);
    if (!refusal.empty()) {
      if (std::string* told = asked_ ? &asked_->refusal : start_ ? &start_->refusal : nullptr) *told = std::move(refusal);
      X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
      return refused;
    }
    if (verdict != 1 && rules->has_allow()) return refused;
  }
  if (verdict == 1) return 1;
  if (asked_) return refused;
  const bool lenient = !negotiation_->reject_unauthorized && !(server_ && context_->client_auth() == ClientAuth::require);
  if (lenient) {
    // Such a session must not be resumed as if its certificate had been checked again.
    if (server_) peer_expiry_ = 1;
    return 1;
  }
  return verdict;
}

PeerFacts Session::describe_peer() {
  SSL* ssl = ssl_.get();
  PeerFacts facts;
  const X509Ptr leaf(SSL_get1_peer_certificate(ssl));
  if (!leaf) return facts;
  const long verified = SSL_get_verify_result(ssl);
  facts.authorized = verified == X509_V_OK;
  if (!facts.authorized) facts.authorization_error = verify_code_name(verified);
  const auto tell = [&facts](const X509* certificate) {
    if (facts.peer_certificates.size() < most_certificates) facts.peer_certificates.push_back(der_of(certificate));
  };
  tell(leaf.get());
  // Of a chain that does not verify, an issuer would be one who bears the name and has signed nothing.
  const ChainPtr issuers(facts.authorized ? issuers_of(ssl, leaf.get()) : nullptr);
  for (int i = 0; i < sk_X509_num(issuers.get()); ++i) tell(sk_X509_value(issuers.get(), i));
  // The server's list leaves the leaf out, the client's holds it (SSL_get_peer_cert_chain).
  const STACK_OF(X509)* sent = SSL_get_peer_cert_chain(ssl);
  for (int i = server_ ? 0 : 1; i < std::min(sk_X509_num(sent), static_cast<int>(most_certificates)); ++i)
    if (!is_among(issuers.get(), sk_X509_value(sent, i))) tell(sk_X509_value(sent, i));
  ERR_clear_error();
  return facts;
}

}  // namespace tlspool
