#include "tickets.hh"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <cstring>
#include <ctime>
#include <unordered_map>

#include "context.hh"
#include "session.hh"

namespace tlspool {
namespace {

int64_t seconds_now() { return static_cast<int64_t>(time(nullptr)); }

// Fetched once: an implicit fetch per ticket costs more than the encryption.
const EVP_CIPHER* ticket_cipher() {
  static const CipherPtr cipher(EVP_CIPHER_fetch(nullptr, "AES-256-CBC", nullptr));
  return cipher.get();
}

// OpenSSL: 0 = no ticket or unknown key, 1 = go on, 2 = go on and renew, -1 = fatal.
int choose_key(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac, int encrypt) {
  Session* session = Session::of(ssl);
  if (session == nullptr || session->context() == nullptr || ticket_cipher() == nullptr) return encrypt != 0 ? -1 : 0;
  TicketKeys& keys = session->context()->tickets();
  TicketKey key;
  int verdict = 1;
  if (encrypt != 0) {
    if (!keys.current(key) || RAND_bytes(iv, EVP_CIPHER_get_iv_length(ticket_cipher())) != 1) return -1;
    memcpy(name, key.name.data(), key.name.size());
  } else {
    verdict = keys.find(name, key);
    if (verdict == 0) return 0;
  }
  char digest[] = "SHA256";
  OSSL_PARAM params[] = {OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key.mac.data(), key.mac.size()),
                         OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
  const bool ready = EVP_MAC_CTX_set_params(mac, params) == 1 &&
                     EVP_CipherInit_ex(cipher, ticket_cipher(), nullptr, key.cipher.data(), iv, encrypt) == 1;
  OPENSSL_cleanse(&key, sizeof key);
  return ready ? verdict : -1;
}

// The moment at which the client's chain expires travels in the ticket, so that a resumed session never outlives it.
int ticket_made(SSL* ssl, void*) {
  Session* session = Session::of(ssl);
  SSL_SESSION* state = SSL_get_session(ssl);
  if (session == nullptr || state == nullptr) return 0;
  const int64_t expiry = session->peer_expiry();
  return SSL_SESSION_set1_ticket_appdata(state, &expiry, sizeof expiry);
}

SSL_TICKET_RETURN ticket_read(SSL* ssl, SSL_SESSION* state, const unsigned char*, size_t, SSL_TICKET_STATUS status, void*) {
  if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) {
    return status == SSL_TICKET_EMPTY || status == SSL_TICKET_NO_DECRYPT ? SSL_TICKET_RETURN_IGNORE_RENEW : SSL_TICKET_RETURN_ABORT;
  }
  Session* session = Session::of(ssl);
  void* data = nullptr;
  size_t length = 0;
  int64_t expiry = 0;
  if (session == nullptr || SSL_SESSION_get0_ticket_appdata(state, &data, &length) != 1 || length != sizeof expiry)
    return SSL_TICKET_RETURN_IGNORE_RENEW;
  memcpy(&expiry, data, sizeof expiry);
  if (expiry != 0 && expiry <= seconds_now()) return SSL_TICKET_RETURN_IGNORE_RENEW;
  // The tag of the ticket keys changes with the rules; this holds without that, too.
  const PeerRules* rules = session->context() == nullptr ? nullptr : session->context()->peer_rules();
  const X509* peer = SSL_SESSION_get0_peer(state);
  if (rules != nullptr && peer != nullptr && !rules->refusal(peer).empty()) return SSL_TICKET_RETURN_IGNORE_RENEW;
  session->set_peer_expiry(expiry);
  return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

}  // namespace

TicketKeys::~TicketKeys() { OPENSSL_cleanse(keys_.data(), sizeof keys_); }

bool TicketKeys::rotate(int64_t now_s) {
  TicketKey fresh;
  fresh.made_s = now_s;
  if (RAND_bytes(fresh.name.data(), fresh.name.size()) != 1 || RAND_priv_bytes(fresh.cipher.data(), fresh.cipher.size()) != 1 ||
      RAND_priv_bytes(fresh.mac.data(), fresh.mac.size()) != 1)
    return false;
  keys_[1] = keys_[0];
  keys_[0] = fresh;
  if (count_ < 2) ++count_;
  OPENSSL_cleanse(&fresh, sizeof fresh);
  return true;
}

bool TicketKeys::current(TicketKey& out) {
  const std::lock_guard lock(mutex_);
  const int64_t now = seconds_now();
  if ((count_ == 0 || now - keys_[0].made_s >= lifetime_s_) && !rotate(now)) return false;
  out = keys_[0];
  return true;
}

int TicketKeys::find(const unsigned char* name, TicketKey& out) {
  const std::lock_guard lock(mutex_);
  const int64_t now = seconds_now();
  for (int i = 0; i < count_; ++i) {
    const TicketKey& key = keys_[static_cast<size_t>(i)];
    if (CRYPTO_memcmp(name, key.name.data(), key.name.size()) != 0) continue;
    const int64_t age = now - key.made_s;
    if (age >= 2 * lifetime_s_) return 0;
    out = key;
    return i == 0 && age < lifetime_s_ ? 1 : 2;
  }
  return 0;
}

std::shared_ptr<TicketKeys> ticket_keys_for(const std::string& tag, int64_t lifetime_s) {
  static std::mutex mutex;
  static std::unordered_map<std::string, std::weak_ptr<TicketKeys>> known;
  const std::lock_guard lock(mutex);
  std::erase_if(known, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<TicketKeys>& slot = known[tag];
  std::shared_ptr<TicketKeys> keys = slot.lock();
  if (!keys) slot = keys = std::make_shared<TicketKeys>(lifetime_s);
  return keys;
}

void install_ticket_callbacks(SSL_CTX* ctx) {
  SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, choose_key);
  SSL_CTX_set_session_ticket_cb(ctx, ticket_made, ticket_read, nullptr);
}

}  // namespace tlspool
