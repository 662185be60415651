#include "context.hh"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <algorithm>

#include "handshake.hh"

namespace tlspool {
namespace {

// A passphrase prompt on the daemon's terminal would hang it: an encrypted key is an error.
int no_passphrase(char*, int, int, void*) { return -1; }

BioPtr memory(const std::string& text) { return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

bool end_of_pem() {
  const unsigned long code = ERR_peek_last_error();
  const bool ended = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
  if (ended) ERR_clear_error();
  return ended;
}

constexpr uint64_t fixed_options = SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_SSLv3 | SSL_OP_PRIORITIZE_CHACHA |
                                   SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION;

// Where the first group is a hybrid one (OpenSSL 3.5 and later). As a server: a slash ends the list that it stands in, so that a client which
// has it but sent no share of it gets a HelloRetryRequest; in one list, any share that came along would win over it. As a client: we send
// a share of the first group, and many servers do not have that yet, so one of X25519 goes along (an asterisk marks both); else those
// would need a HelloRetryRequest.
std::string with_hybrid_first(SSL_CTX* probe, const std::string& known) {
  const size_t end = known.find(':');
  if (end == std::string::npos || known.find("MLKEM") > end) return known;
  std::string marked = '*' + known;
  if (const size_t second = known.find(":X25519:"); second != std::string::npos) marked.insert(second + 2, 1, '*');
  marked[end + 1] = '/';
  if (SSL_CTX_set1_groups_list(probe, marked.c_str()) == 1) return marked;
  ERR_clear_error();
  return known;
}

}  // namespace

std::string known_groups(const std::vector<std::string>& wanted) {
  std::string known;
  const SslCtxPtr probe(SSL_CTX_new(TLS_method()));
  for (const std::string& name : wanted) {
    if (!probe || name.find(':') != std::string::npos || SSL_CTX_set1_groups_list(probe.get(), name.c_str()) != 1) {
      ERR_clear_error();
      continue;
    }
    if (!known.empty()) known += ':';
    known += name;
  }
  return with_hybrid_first(probe.get(), known);
}

std::shared_ptr<const Context> Context::make(ContextSpec& spec, std::string& problem, std::string& field) {
  ERR_clear_error();
  std::shared_ptr<Context> context(new Context);
  const bool built = context->build(spec, problem, field);
  for (KeyPair& pair : spec.key_pairs) OPENSSL_cleanse(pair.key.data(), pair.key.size());
  ERR_clear_error();
  return built ? context : nullptr;
}

bool Context::build(ContextSpec& spec, std::string& problem, std::string& field) {
  ctx_.reset(SSL_CTX_new(TLS_method()));
  if (!ctx_) {
    problem = take_reason("out of memory");
    return false;
  }
  localid_ = std::make_shared<const std::string>(spec.localid);
  revision_ = spec.revision;
  client_auth_ = spec.client_auth;
  tickets_ = ticket_keys_for(spec.ticket_tag, spec.ticket_lifetime_s);
  set_fixed_behaviour(spec);
  if (!set_policy(spec, problem, field) || !set_peer_rules(spec, problem, field)) return false;
  for (size_t i = 0; i < spec.key_pairs.size(); ++i) {
    field = "keyPairs[" + std::to_string(i) + "]";
    if (!add_key_pair(spec.key_pairs[i], problem)) return false;
  }
  field = "trust";
  if (!spec.trust.empty() && !set_trust(spec.trust, problem)) return false;
  field.clear();
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  const std::string base = spec.localid + '\0' + spec.ticket_tag;
  if (EVP_Digest(base.data(), base.size(), digest, &length, EVP_sha256(), nullptr) != 1) {
    problem = take_reason("digest failed");
    return false;
  }
  std::copy_n(digest, resumption_base_.size(), resumption_base_.begin());
  return true;
}

void Context::set_fixed_behaviour(const ContextSpec& spec) {
  SSL_CTX* ctx = ctx_.get();
  SSL_CTX_set_app_data(ctx, this);
  // 112 bits: RSA of 2048 and curves of 224, for peers too, as for keys of our own. OpenSSL's own default was 1 until 3.2: RSA of 1024.
  SSL_CTX_set_security_level(ctx, 2);
  SSL_CTX_set_options(ctx, fixed_options | (spec.prefer_server_ciphers ? SSL_OP_CIPHER_SERVER_PREFERENCE : 0));
  // A session holds a record buffer only while a record is being read or written.
  SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_timeout(ctx, spec.ticket_lifetime_s);
  // One ticket: a client that opens connections in parallel gets one with each of them.
  SSL_CTX_set_num_tickets(ctx, 1);
  SSL_CTX_set_verify_depth(ctx, 10);
  install_ticket_callbacks(ctx);
  install_handshake_callbacks(ctx);
}

bool Context::set_policy(const ContextSpec& spec, std::string& problem, std::string& field) {
  min_version_ = spec.min_version;
  max_version_ = spec.max_version;
  ciphers_ = spec.ciphers;
  ciphersuites_ = spec.ciphersuites;
  prefer_server_ciphers_ = spec.prefer_server_ciphers;
  groups_ = known_groups(spec.groups);
  policy_ = std::to_string(min_version_) + '/' + std::to_string(max_version_) + '/' + ciphers_ + '/' + ciphersuites_ + '/' + groups_ +
            (prefer_server_ciphers_ ? "/s" : "/c");
  SSL_CTX* ctx = ctx_.get();
  if (SSL_CTX_set_min_proto_version(ctx, min_version_) != 1 || SSL_CTX_set_max_proto_version(ctx, max_version_) != 1 ||
      min_version_ > max_version_) {
    field = "minVersion";
    problem = "no TLS version is left between minVersion and maxVersion";
  } else if (groups_.empty() || SSL_CTX_set1_groups_list(ctx, groups_.c_str()) != 1) {
    field = "groups";
    problem = "this OpenSSL knows none of the groups";
  } else if (!ciphers_.empty() && SSL_CTX_set_cipher_list(ctx, ciphers_.c_str()) != 1) {
    field = "ciphers";
    problem = "no usable TLS 1.2 cipher suite in the list";
  } else if (SSL_CTX_set_ciphersuites(ctx, ciphersuites_.c_str()) != 1) {
    field = "ciphersuites";
    problem = "unknown TLS 1.3 cipher suite in the list";
  } else {
    return true;
  }
  ERR_clear_error();
  return false;
}

bool Context::set_peer_rules(const ContextSpec& spec, std::string& problem, std::string& field) {
  const auto is_empty = [](const auto& list) { return list.empty(); };
  if (std::all_of(spec.allowed_peers.begin(), spec.allowed_peers.end(), is_empty) &&
      std::all_of(spec.denied_peers.begin(), spec.denied_peers.end(), is_empty))
    return true;
  peer_rules_ = PeerRules::make(spec.allowed_peers, spec.denied_peers, problem, field);
  return peer_rules_ != nullptr;
}

bool Context::add_key_pair(KeyPair& pair, std::string& problem) {
  const BioPtr chain = memory(pair.chain);
  X509Ptr leaf(PEM_read_bio_X509_AUX(chain.get(), nullptr, no_passphrase, nullptr));
  if (!leaf) {
    problem = "the certificate chain is no PEM certificate: " + take_reason("no certificate found");
    return false;
  }
  const BioPtr key_bio = memory(pair.key);
  PkeyPtr key(PEM_read_bio_PrivateKey(key_bio.get(), nullptr, no_passphrase, nullptr));
  if (!key) {
    problem = "the private key is no unencrypted PEM private key: " + take_reason("no key found");
    return false;
  }
  if (X509_check_private_key(leaf.get(), key.get()) != 1) {
    problem = "the private key does not belong to the certificate";
    return false;
  }
  if (SSL_CTX_use_certificate(ctx_.get(), leaf.get()) != 1 || SSL_CTX_use_PrivateKey(ctx_.get(), key.get()) != 1) {
    problem = "OpenSSL refuses the certificate or its key: " + take_reason("unknown reason");
    return false;
  }
  SSL_CTX_clear_chain_certs(ctx_.get());
  while (X509* issuer = PEM_read_bio_X509(chain.get(), nullptr, no_passphrase, nullptr)) {
    const X509Ptr owned(issuer);
    if (SSL_CTX_add1_chain_cert(ctx_.get(), issuer) != 1) {
      problem = "OpenSSL refuses a certificate of the chain: " + take_reason("unknown reason");
      return false;
    }
  }
  if (!end_of_pem()) {
    problem = "the certificate chain has a part that is no certificate: " + take_reason("unknown reason");
    return false;
  }
  STACK_OF(X509)* issuers = nullptr;
  SSL_CTX_get0_chain_certs(ctx_.get(), &issuers);
  ChainPtr chain_kept(issuers == nullptr ? nullptr : X509_chain_up_ref(issuers));
  auto octets = std::make_shared<const std::string>(tlspool::der_of(leaf.get()));
  certificates_.push_back({std::move(leaf), std::move(key), std::move(chain_kept), std::move(octets)});
  return true;
}

bool Context::set_trust(const std::string& pem, std::string& problem) {
  const BioPtr bio = memory(pem);
  X509_STORE* store = SSL_CTX_get_cert_store(ctx_.get());
  size_t count = 0;
  while (X509* root = PEM_read_bio_X509_AUX(bio.get(), nullptr, no_passphrase, nullptr)) {
    const X509Ptr owned(root);
    if (X509_STORE_add_cert(store, root) != 1 || SSL_CTX_add_client_CA(ctx_.get(), root) != 1) {
      problem = "OpenSSL refuses a root certificate: " + take_reason("unknown reason");
      return false;
    }
    ++count;
  }
  if (!end_of_pem() || count == 0) {
    problem = "the trust is no list of PEM certificates: " + take_reason("no certificate found");
    return false;
  }
  // A long list (the system's roots) would make a CertificateRequest of 20 KiB; RFC 8446 section 4.2.4 allows to leave it out.
  if (count > 32) SSL_CTX_set_client_CA_list(ctx_.get(), nullptr);
  return true;
}

SharedOctets Context::der_of(const X509* certificate) const {
  for (const Certificate& held : certificates_) {
    if (held.leaf.get() == certificate) return held.der;
  }
  return nullptr;
}

bool Context::show(SSL* ssl) const {
  SSL_certs_clear(ssl);
  return std::all_of(certificates_.begin(), certificates_.end(), [ssl](const Certificate& held) {
    return SSL_use_cert_and_key(ssl, held.leaf.get(), held.key.get(), held.chain.get(), 1) == 1;
  });
}

bool Context::adopt(SSL* ssl) const {
  const SSL_CTX* before = SSL_get_SSL_CTX(ssl);
  if (before == ctx_.get()) return true;
  const Context* previous = static_cast<const Context*>(SSL_CTX_get_app_data(before));
  if (SSL_set_SSL_CTX(ssl, ctx_.get()) != ctx_.get()) return false;
  if (previous != nullptr && previous->policy_ == policy_) return true;
  // SSL_set_SSL_CTX takes over the certificate and nothing of the policy.
  SSL_clear_options(ssl, SSL_OP_CIPHER_SERVER_PREFERENCE);
  if (prefer_server_ciphers_) SSL_set_options(ssl, SSL_OP_CIPHER_SERVER_PREFERENCE);
  return SSL_set_min_proto_version(ssl, min_version_) == 1 && SSL_set_max_proto_version(ssl, max_version_) == 1 &&
         (ciphers_.empty() || SSL_set_cipher_list(ssl, ciphers_.c_str()) == 1) &&
         SSL_set_ciphersuites(ssl, ciphersuites_.c_str()) == 1 && SSL_set1_groups_list(ssl, groups_.c_str()) == 1;
}

bool Context::bind_resumption(SSL* ssl, ClientAuth mode, bool reject_unauthorized) const {
  std::array<unsigned char, 32> id;
  std::copy(resumption_base_.begin(), resumption_base_.end(), id.begin());
  id[30] = static_cast<unsigned char>(mode);
  id[31] = reject_unauthorized ? 1 : 0;
  return SSL_set_session_id_context(ssl, id.data(), id.size()) == 1;
}

}  // namespace tlspool
