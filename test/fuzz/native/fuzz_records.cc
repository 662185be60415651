// After a true handshake: a script of writes, records, alerts, ends and partial reads on both sides. What arrives is a prefix of
// what was sent, an end of the stream is never shown before the peer said close_notify, and each session is reported closed once.
#include <sys/socket.h>
#include <algorithm>
#include <cerrno>
#include <optional>

#include "peer.hh"

namespace {

using namespace rig;

Rig& shared_rig() {
  tlspool::Options options;
  options.linger_ms = 50;
  options.key_update_records = 5;
  static Rig& rig = *new Rig(options);
  return rig;
}

struct Script {
  const uint8_t* data;
  size_t left;
  uint8_t next() { return left == 0 ? 0 : (--left, *data++); }
};

class Run {
 public:
  explicit Run(bool tls12) {
    UniqueFd ours, theirs;
    socket_pair(ours, theirs);
    static const tlspool::SelectorRef selector = make_selector(make_context({}));
    tlspool::SessionStart start;
    start.selector = selector;
    start.negotiation = std::make_shared<const tlspool::Negotiation>();
    REQUIRE(!rig_.engine().start_tls(theirs.get(), -1, std::move(start), id_), "the session is refused");
    theirs.release();
    PeerOptions options;
    options.version = tls12 ? TLS1_2_VERSION : 0;
    options.servername = "server.test";
    peer_.emplace(std::move(ours), options);
    for (int i = 0; i < 50 && !app_; ++i) {
      peer_->fetch();
      REQUIRE(peer_->handshake() != Peer::Handshake::failed, "a true handshake fails");
      exchange();
    }
    REQUIRE(static_cast<bool>(app_), "a true handshake does not end");
  }

  void step(Script& script) {
    const uint8_t op = script.next();
    const size_t amount = static_cast<size_t>(script.next()) * (op & 0x80 ? 257 : 1);
    switch (op & 15) {
      case 0: case 1: peer_writes(amount); break;
      case 2: case 3: app_writes(amount); break;
      case 4: garbage(script, amount); break;
      case 5: peer_->send_raw(std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, static_cast<char>(amount))); spoiled_ = true; break;
      case 6:
        if (SSL_version(peer_->ssl()) == TLS1_3_VERSION && SSL_key_update(peer_->ssl(), amount & 1 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
          SSL_do_handshake(peer_->ssl());
        break;
      case 7: SSL_shutdown(peer_->ssl()); said_close_ = true; break;
      case 8: exchange(); peer_->finish_writing(); finished_ = true; break;
      case 9: if (app_) shutdown(app_.get(), SHUT_WR); app_ended_ = true; break;
      case 10: app_reads(amount); app_.reset(); app_ended_ = true; break;
      case 11: rig_.engine().close(id_, static_cast<tlspool::CloseRequest>(amount & 3)); asked_ = true; break;
      case 12: peer_->fetch(amount + 1); peer_->read(); break;
      case 13: app_reads(amount + 1); break;
      case 14: rig_.engine().exporter(id_, rig_.next_request(), "EXPERIMENTAL-fuzz", std::nullopt, amount % 64 + 1); break;
      default: exchange();
    }
    if (amount & 1) exchange();
  }

  void end() {
    for (int i = 0; i < 8; ++i) {
      peer_->fetch();
      peer_->read();
      app_reads(1U << 20);
      exchange();
    }
    REQUIRE(to_app_.compare(0, at_app_.size(), at_app_) == 0, "the application got octets that the peer did not send");
    REQUIRE(to_peer_.compare(0, peer_->received().size(), peer_->received()) == 0, "the peer got octets that the application did not send");
    if (!spoiled_ && !asked_ && !finished_ && !app_ended_ && !said_close_)
      REQUIRE(at_app_ == to_app_ && peer_->received() == to_peer_, "octets are missing in a session that goes on");
    peer_->close();
    app_.reset();
    rig_.await_idle();
    for (int i = 0; i < 20 && closed_ == 0; ++i) exchange();
    REQUIRE(closed_ == 1, "the session was reported closed " + std::to_string(closed_) + " times");
  }

 private:
  void peer_writes(size_t amount) {
    if (said_close_) return;
    const std::string octets(amount, static_cast<char>('a' + to_app_.size() % 26));
    if (!octets.empty() && peer_->write(octets)) to_app_ += octets;
  }

  void app_writes(size_t amount) {
    const std::string octets(amount, static_cast<char>('A' + to_peer_.size() % 26));
    const ssize_t sent = app_ && !app_ended_ ? send(app_.get(), octets.data(), octets.size(), MSG_NOSIGNAL) : -1;
    if (sent > 0) to_peer_.append(octets, 0, static_cast<size_t>(sent));
  }

  void garbage(Script& script, size_t amount) {
    std::string octets;
    for (size_t i = 0; i < amount && script.left > 0; ++i) octets += static_cast<char>(script.next());
    if (!octets.empty()) spoiled_ = true;
    peer_->send_raw(octets);
  }

  void app_reads(size_t amount) {
    std::string buffer(std::min<size_t>(amount, 65536), '\0');
    while (app_ && amount > 0) {
      const ssize_t n = recv(app_.get(), buffer.data(), std::min(buffer.size(), amount), 0);
      if (n == 0) REQUIRE(said_close_ || told_, "an end of the stream before close_notify");
      if (n <= 0) return;
      at_app_.append(buffer, 0, static_cast<size_t>(n));
      amount -= static_cast<size_t>(n);
    }
  }

  // Moves what can move, and looks at what is reported.
  void exchange() {
    const std::string output = peer_->take_output();
    if (!output.empty()) peer_->send_raw(output);
    peer_->flush();
    rig_.barrier();
    for (tlspool::Event& event : rig_.events()) {
      if (auto* established = std::get_if<tlspool::EstablishedEvent>(&event)) {
        REQUIRE(!app_, "a session is established twice");
        app_ = std::move(established->plainfd);
      }
      REQUIRE(std::get_if<tlspool::FailedEvent>(&event) == nullptr, "an established session is reported failed");
      if (std::get_if<tlspool::ClosedEvent>(&event) != nullptr) {
        ++closed_;
        app_reads(1U << 20);  // the plain side is still open here: it must not have ended before its owner could be told
        told_ = true;
      }
    }
  }

  Rig& rig_ = shared_rig();
  tlspool::SessionId id_ = 0;
  std::optional<Peer> peer_;
  UniqueFd app_;
  std::string to_app_, at_app_, to_peer_;
  int closed_ = 0;
  bool said_close_ = false, spoiled_ = false, finished_ = false, app_ended_ = false, asked_ = false, told_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1 || size > 512) return 0;
  static const size_t fds = (credentials(), shared_rig().barrier(), open_fds());
  {
    Script script{data + 1, size - 1};
    Run run((data[0] & 1) != 0);
    while (script.left > 0) run.step(script);
    run.end();
  }
  const size_t now = open_fds();
  // The fuzzer itself opens some, once.
  REQUIRE(now <= fds + 8, "descriptors leak: " + std::to_string(now) + " after " + std::to_string(fds));
  return 0;
}
