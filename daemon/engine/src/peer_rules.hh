// Which certificates an identity accepts from its peers, beyond a chain that verifies: lists of names and keys. Fails closed.
//
// A refusal by `deny` wins. An empty `allow` accepts what the chain verification accepts; any other must match with at least one entry.
// Only the leaf is looked at. A rule that cannot be parsed makes no rules at all, and a certificate whose names of a kind cannot be
// read is refused wherever that kind has a rule.
#pragma once

#include <openssl/x509.h>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tlspool {

// dns, uri, email, ip: subjectAltName of RFC 5280 section 4.2.1.6. cn, ou: attributes of the subject. spki: SHA-256 of SubjectPublicKeyInfo.
enum class PeerNameKind : uint8_t { dns, uri, email, ip, cn, ou, spki };
constexpr size_t peer_name_kinds = 7;
const char* peer_name_kind(size_t kind);

// Per kind: rules as they are written in the configuration, or parsed ones.
using PeerRuleList = std::array<std::vector<std::string>, peer_name_kinds>;

class PeerRules {
 public:
  // Null when a rule cannot be parsed; `problem` then says why and `field` which, such as `peers.deny.uri[1]`.
  static std::shared_ptr<const PeerRules> make(const PeerRuleList& allow, const PeerRuleList& deny, std::string& problem, std::string& field);

  // Empty: accepted. Otherwise why not, in words of ours: never text of the peer.
  std::string refusal(const X509* certificate) const;
  // Only certificates of a list are accepted: one whose chain was not verified proves none of its names.
  bool has_allow() const { return has_allow_; }

 private:
  PeerRuleList allow_, deny_;
  bool has_allow_ = false;
};

}  // namespace tlspool
