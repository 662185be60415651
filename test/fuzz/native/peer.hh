// The other end of a TLS session: plain OpenSSL over memory, so that a test can look at and change each octet on its way.
#pragma once

#include <unistd.h>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <variant>

#include "rig.hh"

namespace rig {

struct PeerOptions {
  bool server = false;
  int version = 0;  // 0: the highest of both
  bool certificate = false, stranger = false;
  std::string alpn;  // wire format; client only
  std::string servername;
};

class Peer {
 public:
  Peer(UniqueFd fd, const PeerOptions& options);

  enum class Handshake { going_on, done, failed };
  Handshake handshake();
  // What OpenSSL wants to send, and forgets; send_raw() puts octets on their way.
  std::string take_output();
  void send_raw(const std::string& octets) { pending_ += octets; }
  // Sends what the socket takes. True: something moved.
  bool flush();
  // Receives up to `most` octets and gives them to OpenSSL. True: something moved.
  bool fetch(size_t most = 65536);
  // Gives octets to OpenSSL as if the other end had sent them.
  void feed(const std::string& octets) { BIO_write(in_, octets.data(), static_cast<int>(octets.size())); }
  // Decrypts what was fetched into received().
  void read();
  // False: OpenSSL refuses; the session is over for this peer.
  bool write(const std::string& octets);

  SSL* ssl() { return ssl_.get(); }
  int fd() const { return fd_.get(); }
  const std::string& received() const { return received_; }
  bool idle() const { return pending_.empty(); }
  bool saw_close_notify() const { return close_notify_; }
  bool saw_end() const { return end_; }      // FIN or RST of the socket
  bool broken() const { return broken_; }    // OpenSSL reported an error while reading
  void finish_writing();                     // shutdown(SHUT_WR), after what is pending was tried
  void close() { fd_.reset(); }
  UniqueFd take_fd() { return std::move(fd_); }

 private:
  UniqueFd fd_;
  tlspool::SslPtr ssl_;
  BIO* in_ = nullptr;   // both owned by ssl_
  BIO* out_ = nullptr;
  std::string pending_, received_;
  bool close_notify_ = false, end_ = false, broken_ = false;
};

// The next event of this kind, for which those before it are dropped; the peer's handshake goes on meanwhile. A finding when none comes in 5 seconds.
template <typename Wanted>
Wanted await(Rig& rig, Peer* peer = nullptr) {
  for (int i = 0; i < 5000; ++i) {
    if (peer != nullptr) {
      peer->fetch();
      peer->handshake();
      peer->flush();
    }
    rig.barrier();
    for (tlspool::Event& event : rig.events())
      if (auto* wanted = std::get_if<Wanted>(&event)) return std::move(*wanted);
    usleep(1000);
  }
  REQUIRE(false, "an event that has to come does not come");
  abort();
}

}  // namespace rig
