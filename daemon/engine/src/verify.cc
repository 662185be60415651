// Judging the certificate of the peer: its chain, the rules of the identity, and who may overlook what.
#include <openssl/x509_vfy.h>
#include <algorithm>
#include <ctime>

#include "handshake.hh"
#include "session.hh"

namespace tlspool {
namespace {

int64_t expiry_of(const X509* certificate) {
  tm parts{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &parts) != 1) return 1;
  return static_cast<int64_t>(timegm(&parts));
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

}  // namespace tlspool
