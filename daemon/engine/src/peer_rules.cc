#include "peer_rules.hh"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>

#include "ossl.hh"

namespace tlspool {
namespace {

// Allowing is narrow: the certificate's name must lie within the rule. Denying is wide: it is enough that the two have a name in common.
enum class Purpose : uint8_t { allow, deny };

using GeneralNamesPtr = std::unique_ptr<GENERAL_NAMES, Deleter<GENERAL_NAMES_free>>;

// Not tolower(): names on the wire are ASCII, whatever the locale is.
std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

bool is_printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

std::string_view parent_of(std::string_view name) {
  const size_t dot = name.find('.');
  return dot == std::string_view::npos ? std::string_view() : name.substr(dot + 1);
}

// ---- dns: lower case, no final dot; `*.` in front stands for one label, here and in certificates.

std::optional<std::string> read_dns(std::string_view raw) {
  std::string name = lower(raw);
  if (!name.empty() && name.back() == '.') name.pop_back();
  const bool wildcard = name.starts_with("*.");
  const std::string_view bare = std::string_view(name).substr(wildcard ? 2 : 0);
  // An empty label is in no host name, and `b*.example` is not a name that anybody can judge.
  const bool good = !bare.empty() && name.size() <= 253 && is_printable(bare) && bare.find('*') == std::string_view::npos &&
                    bare.front() != '.' && bare.back() != '.' && bare.find("..") == std::string_view::npos;
  return good ? std::optional(name) : std::nullopt;
}

bool match_dns(const std::string& rule, const std::string& name, Purpose purpose) {
  if (rule == name) return true;
  if (rule.starts_with("*.") && parent_of(name) == parent_of(rule)) return true;
  return purpose == Purpose::deny && name.starts_with("*.") && parent_of(rule) == parent_of(name);
}

// ---- uri: split at slashes; scheme and authority in lower case. In rules, below the authority, `*` is one segment and a final `**` the rest.

size_t end_of_authority(std::string_view uri) {
  const size_t colon = uri.find(':');
  if (colon == std::string_view::npos || colon == 0) return 0;
  if (uri.substr(colon + 1, 2) != "//") return colon + 1;
  const size_t end = uri.find_first_of("/?#", colon + 3);
  return end == std::string_view::npos ? uri.size() : end;
}

std::vector<std::string_view> segments_of(std::string_view path) {
  std::vector<std::string_view> segments;
  for (size_t at = 0;;) {
    const size_t slash = path.find('/', at);
    segments.push_back(path.substr(at, slash == std::string_view::npos ? slash : slash - at));
    if (slash == std::string_view::npos) return segments;
    at = slash + 1;
  }
}

// Fails closed on what means the same as another spelling (RFC 3986 section 6.2.2): dot segments, empty segments, percent-encoding.
// SPIFFE IDs have none of these.
std::optional<std::string> read_uri(std::string_view raw) {
  const size_t head = end_of_authority(raw);
  if (head == 0 || raw.size() > 2048 || !is_printable(raw) || raw.find('%') != std::string_view::npos) return std::nullopt;
  const std::vector<std::string_view> segments = segments_of(raw.substr(head));
  for (size_t i = 0; i < segments.size(); ++i) {
    // The first is what stands before the first slash, the last is empty when the URI ends in one.
    const bool inner = i > 0 && i + 1 < segments.size();
    if (segments[i] == "." || segments[i] == ".." || (inner && segments[i].empty())) return std::nullopt;
  }
  return lower(raw.substr(0, head)) + std::string(raw.substr(head));
}

std::optional<std::string> read_uri_rule(std::string_view raw) {
  std::optional<std::string> uri = read_uri(raw);
  if (!uri) return std::nullopt;
  const size_t head = end_of_authority(*uri);
  if (uri->find('*') < head) return std::nullopt;
  const std::vector<std::string_view> segments = segments_of(std::string_view(*uri).substr(head));
  for (size_t i = 0; i < segments.size(); ++i) {
    if (segments[i].find('*') == std::string_view::npos) continue;
    const bool last = i + 1 == segments.size();
    if (i == 0 || !(segments[i] == "*" || (last && segments[i] == "**"))) return std::nullopt;
  }
  return uri;
}

// Denying `a/**` denies `a` as well, and a final slash makes no difference to it.
bool match_uri(const std::string& rule, const std::string& name, Purpose purpose) {
  const size_t head = end_of_authority(rule);
  if (end_of_authority(name) != head || name.compare(0, head, rule, 0, head) != 0) return false;
  std::vector<std::string_view> wanted = segments_of(std::string_view(rule).substr(head));
  std::vector<std::string_view> seen = segments_of(std::string_view(name).substr(head));
  if (purpose == Purpose::deny) {
    if (wanted.size() > 1 && wanted.back().empty()) wanted.pop_back();
    if (seen.size() > 1 && seen.back().empty()) seen.pop_back();
  }
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (i >= seen.size()) return purpose == Purpose::deny && wanted[i] == "**";
    const bool any = wanted[i] == "*" || wanted[i] == "**";
    if (any ? seen[i].empty() : seen[i] != wanted[i]) return false;
    if (wanted[i] == "**") return true;
  }
  return wanted.size() == seen.size();
}

// ---- email: the local part is the recipient's own business (RFC 5321 section 2.4), the domain is a host name.

std::optional<std::string> read_email(std::string_view raw) {
  const size_t at = raw.rfind('@');
  if (at == std::string_view::npos || at == 0 || raw.size() > 320 || !is_printable(raw)) return std::nullopt;
  const std::optional<std::string> domain = read_dns(raw.substr(at + 1));
  if (!domain || domain->starts_with('*')) return std::nullopt;
  return std::string(raw.substr(0, at + 1)) + *domain;
}

// ---- ip: 4 or 16 octets; rules have one more, the length of the prefix. ::ffff:a.b.c.d is a.b.c.d (RFC 4291 section 2.5.5.2).

constexpr std::string_view mapped_prefix("\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);

std::optional<std::string> read_ip(std::string_view raw) {
  if (raw.size() == 16 && raw.starts_with(mapped_prefix)) raw.remove_prefix(12);
  if (raw.size() != 4 && raw.size() != 16) return std::nullopt;
  return std::string(raw);
}

bool has_bits_beyond(const std::string& octets, unsigned prefix) {
  for (size_t bit = prefix; bit < octets.size() * 8; ++bit) {
    if ((static_cast<unsigned char>(octets[bit / 8]) & (0x80U >> (bit % 8))) != 0) return true;
  }
  return false;
}

std::optional<std::string> read_ip_rule(std::string_view raw) {
  const size_t slash = raw.find('/');
  const std::string address(raw.substr(0, slash));
  unsigned char octets[16];
  const size_t length = inet_pton(AF_INET, address.c_str(), octets) == 1 ? 4 : inet_pton(AF_INET6, address.c_str(), octets) == 1 ? 16 : 0;
  if (length == 0 || address.find('\0') != std::string::npos) return std::nullopt;
  unsigned prefix = static_cast<unsigned>(length * 8);
  if (slash != std::string_view::npos) {
    const std::string_view digits = raw.substr(slash + 1);
    if (digits.empty() || digits.size() > 3 || !std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; }))
      return std::nullopt;
    const auto given = static_cast<unsigned>(std::stoul(std::string(digits)));
    if (given > prefix) return std::nullopt;
    prefix = given;
  }
  std::string rule(reinterpret_cast<char*>(octets), length);
  if (has_bits_beyond(rule, prefix)) return std::nullopt;
  if (rule.starts_with(mapped_prefix) && rule.size() == 16 && prefix >= 96) {
    rule.erase(0, 12);
    prefix -= 96;
  }
  rule.push_back(static_cast<char>(prefix));
  return rule;
}

bool match_ip(const std::string& rule, const std::string& name, Purpose) {
  if (rule.size() != name.size() + 1) return false;
  const auto prefix = static_cast<unsigned char>(rule.back());
  for (size_t bit = 0; bit < prefix; ++bit) {
    const unsigned mask = 0x80U >> (bit % 8);
    if (((static_cast<unsigned char>(rule[bit / 8]) ^ static_cast<unsigned char>(name[bit / 8])) & mask) != 0) return false;
  }
  return true;
}

// ---- cn, ou: octet by octet, in UTF-8. spki: 32 octets.

std::optional<std::string> read_text(std::string_view raw) {
  return raw.empty() || raw.size() > 1024 ? std::nullopt : std::optional<std::string>(raw);
}

std::optional<std::string> read_spki_rule(std::string_view raw) {
  constexpr std::string_view scheme = "sha256:";
  constexpr size_t text_length = 44;
  if (!raw.starts_with(scheme) || raw.size() != scheme.size() + text_length) return std::nullopt;
  const std::string text(raw.substr(scheme.size()));
  unsigned char octets[text_length], again[text_length + 1];
  if (EVP_DecodeBlock(octets, reinterpret_cast<const unsigned char*>(text.data()), text_length) != 33) return std::nullopt;
  // One spelling per digest: the decoder takes more than that.
  EVP_EncodeBlock(again, octets, 32);
  if (memcmp(again, text.data(), text_length) != 0) return std::nullopt;
  return std::string(reinterpret_cast<char*>(octets), 32);
}

std::optional<std::string> read_spki(std::string_view raw) { return raw.size() == 32 ? std::optional<std::string>(raw) : std::nullopt; }

bool match_exactly(const std::string& rule, const std::string& name, Purpose) { return rule == name; }

bool match_spki(const std::string& rule, const std::string& name, Purpose) {
  return rule.size() == name.size() && CRYPTO_memcmp(rule.data(), name.data(), rule.size()) == 0;
}

struct Kind {
  const char* name;
  std::optional<std::string> (*read_rule)(std::string_view);
  std::optional<std::string> (*read_name)(std::string_view);
  bool (*matches)(const std::string& rule, const std::string& name, Purpose);
  const char* allowed;
};

// In the order of PeerNameKind.
constexpr std::array<Kind, peer_name_kinds> kinds{{
  {"dns", read_dns, read_dns, match_dns, "a host name in ASCII, with at most one wildcard, a leading \"*.\""},
  {"uri", read_uri_rule, read_uri, match_uri, "an absolute URI without percent-encoding, \".\" and \"..\"; below the authority a segment may be *, and the last one **"},
  {"email", read_email, read_email, match_exactly, "an e-mail address in ASCII"},
  {"ip", read_ip_rule, read_ip, match_ip, "an IP address, or a network such as 10.0.0.0/8 without bits beyond its prefix"},
  {"cn", read_text, read_text, match_exactly, "text of 1 to 1024 octets"},
  {"ou", read_text, read_text, match_exactly, "text of 1 to 1024 octets"},
  {"spki", read_spki_rule, read_spki, match_spki, "sha256: and the base64 of a SHA-256 digest"},
}};

constexpr size_t index(PeerNameKind kind) { return static_cast<size_t>(kind); }

bool parse_rules(const PeerRuleList& texts, const char* side, PeerRuleList& out, std::string& problem, std::string& field) {
  for (size_t kind = 0; kind < peer_name_kinds; ++kind) {
    for (size_t i = 0; i < texts[kind].size(); ++i) {
      std::optional<std::string> rule = kinds[kind].read_rule(texts[kind][i]);
      if (!rule) {
        field = std::string("peers.") + side + '.' + kinds[kind].name + '[' + std::to_string(i) + ']';
        problem = field + " must be " + kinds[kind].allowed;
        return false;
      }
      out[kind].push_back(std::move(*rule));
    }
  }
  return true;
}

// What a certificate says of itself; `unreadable` where it cannot be told.
struct PeerNames {
  PeerRuleList names;
  std::array<bool, peer_name_kinds> unreadable{};

  void add(PeerNameKind kind, std::string_view raw) {
    std::optional<std::string> name = kinds[index(kind)].read_name(raw);
    if (name) {
      names[index(kind)].push_back(std::move(*name));
    } else {
      unreadable[index(kind)] = true;
    }
  }
};

std::string_view octets_of(const ASN1_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)), static_cast<size_t>(ASN1_STRING_length(text))};
}

void read_alternative_names(const X509* certificate, PeerNames& peer) {
  int found = 0;
  const GeneralNamesPtr names(static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, &found, nullptr)));
  if (!names) {
    // -1: there is none. Otherwise there are two of them, or octets that are no names.
    if (found == -1) return;
    for (const PeerNameKind kind : {PeerNameKind::dns, PeerNameKind::uri, PeerNameKind::email, PeerNameKind::ip}) peer.unreadable[index(kind)] = true;
    return;
  }
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    int type = 0;
    const void* value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names.get(), i), &type);
    if (value == nullptr) continue;
    const auto* text = static_cast<const ASN1_STRING*>(value);
    if (type == GEN_DNS) peer.add(PeerNameKind::dns, octets_of(text));
    if (type == GEN_URI) peer.add(PeerNameKind::uri, octets_of(text));
    if (type == GEN_EMAIL) peer.add(PeerNameKind::email, octets_of(text));
    if (type == GEN_IPADD) peer.add(PeerNameKind::ip, octets_of(text));
  }
}

void read_subject(const X509* certificate, int nid, PeerNameKind kind, PeerNames& peer) {
  const X509_NAME* subject = X509_get_subject_name(certificate);
  for (int at = X509_NAME_get_index_by_NID(subject, nid, -1); at >= 0; at = X509_NAME_get_index_by_NID(subject, nid, at)) {
    unsigned char* data = nullptr;
    const int length = ASN1_STRING_to_UTF8(&data, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (length < 0) {
      peer.unreadable[index(kind)] = true;
      continue;
    }
    peer.add(kind, {reinterpret_cast<char*>(data), static_cast<size_t>(length)});
    OPENSSL_free(data);
  }
}

void read_key(const X509* certificate, PeerNames& peer) {
  unsigned char* der = nullptr;
  const int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  const bool done = length > 0 && EVP_Digest(der, static_cast<size_t>(length), digest, &size, EVP_sha256(), nullptr) == 1;
  OPENSSL_free(der);
  peer.add(PeerNameKind::spki, done ? std::string_view(reinterpret_cast<char*>(digest), size) : std::string_view());
}

// The first rule that one of the names matches, such as `dns[0]`.
std::optional<std::string> matching(const PeerRuleList& rules, const PeerRuleList& names, Purpose purpose) {
  for (size_t kind = 0; kind < peer_name_kinds; ++kind) {
    for (size_t i = 0; i < rules[kind].size(); ++i) {
      const bool hit = std::any_of(names[kind].begin(), names[kind].end(),
                                   [&](const std::string& name) { return kinds[kind].matches(rules[kind][i], name, purpose); });
      if (hit) return std::string(kinds[kind].name) + '[' + std::to_string(i) + ']';
    }
  }
  return std::nullopt;
}

}  // namespace

const char* peer_name_kind(size_t kind) { return kinds[kind].name; }

std::shared_ptr<const PeerRules> PeerRules::make(const PeerRuleList& allow, const PeerRuleList& deny, std::string& problem, std::string& field) {
  auto rules = std::make_shared<PeerRules>();
  if (!parse_rules(allow, "allow", rules->allow_, problem, field) || !parse_rules(deny, "deny", rules->deny_, problem, field)) return nullptr;
  rules->has_allow_ = std::any_of(rules->allow_.begin(), rules->allow_.end(), [](const auto& list) { return !list.empty(); });
  return rules;
}

std::string PeerRules::refusal(const X509* certificate) const {
  if (certificate == nullptr) return "there is no certificate to judge";
  PeerNames peer;
  read_alternative_names(certificate, peer);
  read_subject(certificate, NID_commonName, PeerNameKind::cn, peer);
  read_subject(certificate, NID_organizationalUnitName, PeerNameKind::ou, peer);
  read_key(certificate, peer);
  ERR_clear_error();
  for (size_t kind = 0; kind < peer_name_kinds; ++kind) {
    if (peer.unreadable[kind] && !(allow_[kind].empty() && deny_[kind].empty()))
      return std::string("there are rules on ") + kinds[kind].name + ", and what the certificate has of that kind cannot be read";
  }
  if (const auto rule = matching(deny_, peer.names, Purpose::deny)) return "peers.deny." + *rule + " matches it";
  if (has_allow_ && !matching(allow_, peer.names, Purpose::allow)) return "nothing in peers.allow matches it";
  return {};
}

}  // namespace tlspool
