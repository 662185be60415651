// Session ticket keys (RFC 5077, RFC 8446 section 4.6.1): random, never stored, rotated, shared by the contexts of one tag.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "ossl.hh"

namespace tlspool {

struct TicketKey {
  std::array<unsigned char, 16> name;
  std::array<unsigned char, 32> cipher;
  std::array<unsigned char, 32> mac;
  int64_t made_s;
};

class TicketKeys {
 public:
  // A key encrypts for `lifetime_s` and decrypts for twice as long.
  explicit TicketKeys(int64_t lifetime_s) : lifetime_s_(lifetime_s) {}
  ~TicketKeys();
  TicketKeys(const TicketKeys&) = delete;
  TicketKeys& operator=(const TicketKeys&) = delete;

  // False when the random generator failed: no ticket is issued then.
  bool current(TicketKey& out);
  // 0: unknown key, 1: use it, 2: use it and renew the ticket.
  int find(const unsigned char* name, TicketKey& out);

 private:
  bool rotate(int64_t now_s);

  std::mutex mutex_;
  const int64_t lifetime_s_;
  std::array<TicketKey, 2> keys_{};
  int count_ = 0;
};

// Ticket keys of a tag; the same object as long as anybody holds it.
std::shared_ptr<TicketKeys> ticket_keys_for(const std::string& tag, int64_t lifetime_s);

// The callbacks for SSL_CTX: key choice, and the expiry of the client's certificate inside the ticket.
void install_ticket_callbacks(SSL_CTX* ctx);

}  // namespace tlspool
