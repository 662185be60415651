// An immutable SSL_CTX with what belongs to it: {chains, keys, policy, trust, ticket keys}.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "events.hh"
#include "ossl.hh"
#include "peer_rules.hh"
#include "tickets.hh"

namespace tlspool {

enum class ClientAuth : uint8_t { none, request, require };

struct KeyPair {
  std::string chain;  // PEM
  std::string key;    // PEM; wiped by Context::make
};

struct ContextSpec {
  std::string localid;
  uint32_t revision = 0;
  std::vector<KeyPair> key_pairs;
  std::string trust;
  int min_version = TLS1_2_VERSION;
  int max_version = TLS1_3_VERSION;
  std::string ciphers;
  std::string ciphersuites;
  std::vector<std::string> groups;
  bool prefer_server_ciphers = false;
  ClientAuth client_auth = ClientAuth::none;
  PeerRuleList allowed_peers, denied_peers;
  int64_t ticket_lifetime_s = 3600;
  std::string ticket_tag;
};

class Context {
 public:
  // Null when the specification cannot be used; `problem` then says why and `field` where.
  static std::shared_ptr<const Context> make(ContextSpec& spec, std::string& problem, std::string& field);

  SSL_CTX* ctx() const { return ctx_.get(); }
  TicketKeys& tickets() const { return *tickets_; }
  ClientAuth client_auth() const { return client_auth_; }
  const SharedOctets& localid() const { return localid_; }
  uint32_t revision() const { return revision_; }
  // Null: whatever the chain verification accepts.
  const PeerRules* peer_rules() const { return peer_rules_.get(); }
  // DER of a certificate of ours; null when `certificate` is not one of this context.
  SharedOctets der_of(const X509* certificate) const;

  // Gives an SSL the key pairs of this context in place of its own, and nothing else of it.
  bool show(SSL* ssl) const;

  // Gives an SSL that was made from another context this context's credentials, trust and policy.
  // Only before the ClientHello has been acted on.
  bool adopt(SSL* ssl) const;
  // Binds resumption to this identity, its ticket tag and the way in which the client is authenticated.
  bool bind_resumption(SSL* ssl, ClientAuth mode, bool reject_unauthorized) const;

 private:
  Context() = default;
  bool build(ContextSpec& spec, std::string& problem, std::string& field);
  bool add_key_pair(KeyPair& pair, std::string& problem);
  bool set_policy(const ContextSpec& spec, std::string& problem, std::string& field);
  bool set_trust(const std::string& pem, std::string& problem);
  bool set_peer_rules(const ContextSpec& spec, std::string& problem, std::string& field);
  void set_fixed_behaviour(const ContextSpec& spec);

  SslCtxPtr ctx_;
  std::shared_ptr<TicketKeys> tickets_;
  std::shared_ptr<const PeerRules> peer_rules_;
  SharedOctets localid_;
  struct Certificate {
    X509Ptr leaf;
    PkeyPtr key;
    ChainPtr chain;
    SharedOctets der;
  };
  std::vector<Certificate> certificates_;
  std::string policy_;  // versions, suites and groups as one string: equal means nothing to change
  std::string ciphers_, ciphersuites_, groups_;
  int min_version_ = 0, max_version_ = 0;
  bool prefer_server_ciphers_ = false;
  std::array<unsigned char, 30> resumption_base_{};
  uint32_t revision_ = 0;
  ClientAuth client_auth_ = ClientAuth::none;

};

// Groups of `wanted` that the running OpenSSL knows, colon separated.
std::string known_groups(const std::vector<std::string>& wanted);

}  // namespace tlspool
