// `reauth_peers NAME`: peers that misuse a reauthentication, as no ordinary program does. Each case fails by a FINDING or a sanitizer's report.
#include <openssl/pem.h>
#include <unistd.h>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>

#include "cases.hh"
#include "peer.hh"

namespace {

using namespace rig;

constexpr int rounds = 400;
constexpr uint64_t short_ms = 200;
constexpr int answers_at_once = 32;

// An engine's session and its peer, past the handshake.
class Pair {
 public:
  explicit Pair(bool engine_is_server, int version, tlspool::Options chosen = soon_over(), uint64_t peer_options = 0, const char* offers = "server.test") : rig_(chosen) {
    UniqueFd ours, theirs;
    socket_pair(ours, theirs);
    PeerOptions of_peer;
    of_peer.server = !engine_is_server;
    of_peer.version = version;
    of_peer.certificate = engine_is_server;
    of_peer.servername = engine_is_server ? offers : "";
    peer_ = std::make_unique<Peer>(std::move(ours), of_peer);
    SSL_set_options(peer_->ssl(), peer_options);
    SSL_set_info_callback(peer_->ssl(), note_alert);
    SSL_set_post_handshake_auth(peer_->ssl(), 1);
    tlspool::SessionStart session;
    session.server = engine_is_server;
    session.negotiation = std::make_shared<const tlspool::Negotiation>();
    if (engine_is_server) session.selector = make_selector(make_context({}));
    else session.context = make_client_context();
    session.remoteid = session.servername = engine_is_server ? "" : "server.test";
    REQUIRE(!rig_.engine().start_tls(theirs.get(), -1, std::move(session), id_), "the session is refused");
    theirs.release();
    for (int i = 0; i < rounds && !(peer_->handshake() == Peer::Handshake::done && established_); ++i) turn();
    REQUIRE(established_, "the handshake is not done");
    alert() = -1;
  }

  // What each side has is done and sent.
  void turn() {
    peer_->flush();
    rig_.barrier();
    peer_->fetch();
    for (tlspool::Event& event : rig_.events()) {
      if (auto* established = std::get_if<tlspool::EstablishedEvent>(&event)) application_ = std::move(established->plainfd), established_ = true;
      if (auto* done = std::get_if<tlspool::ReauthenticatedEvent>(&event)) outcome_ = done->outcome;
      if (auto* answer = std::get_if<tlspool::ErrorAnswer>(&event)) refused_ = answer->code;
      if (auto* closed = std::get_if<tlspool::ClosedEvent>(&event)) how_ = closed->how, detail_ = closed->detail;
    }
  }
  template <typename Done>
  void until(Done done, const char* what) {
    for (int i = 0; i < rounds * 20; ++i) {
      if (done()) return;
      peer_->read();
      turn();
      if (i > rounds) usleep(1000);
    }
    REQUIRE(false, std::string("waited in vain for ") + what + "; closed: " + detail_);
  }
  // Of the engine as a server.
  void ask(bool require = false) { rig_.engine().reauthenticate(id_, rig_.next_request(), {require, nullptr, 0}); }
  void until_closed() {
    until([this] { return how_.has_value(); }, "the end of the session");
  }
  // Of the engine as a client: true when the peer's renegotiation comes to its end, false when it is declined.
  bool renegotiate() {
    alert() = -1;
    REQUIRE(SSL_renegotiate(ssl()) == 1, "the peer begins no renegotiation");
    SSL_do_handshake(ssl());
    until([this] { return SSL_renegotiate_pending(ssl()) == 0 || alert() >= 0 || how_; }, "the end of a renegotiation");
    return alert() < 0 && !how_;
  }
  // A round trip of data, through both.
  void exchange() {
    const size_t before = peer_->received().size();
    REQUIRE(write(application_.get(), "ping", 4) == 4, "the application cannot write");
    until([&] { return peer_->received().size() == before + 4; }, "data to the peer");
    REQUIRE(peer_->write("pong"), "the peer cannot write");
    char got[4] = {};
    until([&] { return ::read(application_.get(), got, sizeof got) == 4; }, "data from the peer");
  }

  SSL* ssl() { return peer_->ssl(); }
  Peer& peer() { return *peer_; }
  const std::optional<tlspool::ClosedHow>& how() const { return how_; }
  const std::string& detail() const { return detail_; }
  const std::string& refused() const { return refused_; }
  const std::optional<tlspool::ReauthOutcome>& outcome() const { return outcome_; }
  // The last alert that the peer received; -1: none.
  static int& alert() {
    static int last = -1;
    return last;
  }

 private:
  static void note_alert(const SSL*, int where, int value) {
    if (where == SSL_CB_READ_ALERT) alert() = value & 0xff;
  }

  Rig rig_;
  std::unique_ptr<Peer> peer_;
  tlspool::SessionId id_ = 0;
  UniqueFd application_;
  bool established_ = false;
  std::optional<tlspool::ClosedHow> how_;
  std::optional<tlspool::ReauthOutcome> outcome_;
  std::string detail_, refused_;
};

void use_other_certificate(SSL* ssl, const tlspool::KeyPair& pair) {
  const tlspool::BioPtr chain(BIO_new_mem_buf(pair.chain.data(), -1)), key_text(BIO_new_mem_buf(pair.key.data(), -1));
  const tlspool::X509Ptr certificate(PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr));
  const tlspool::PkeyPtr key(PEM_read_bio_PrivateKey(key_text.get(), nullptr, nullptr, nullptr));
  SSL_certs_clear(ssl);
  REQUIRE(SSL_use_certificate(ssl, certificate.get()) == 1 && SSL_use_PrivateKey(ssl, key.get()) == 1, "the peer's other certificate is refused");
}

// The server decided on one name; the ClientHello of a renegotiation must not name another.
void other_name() {
  for (const char* name : {"server.test", "other.wild.test"}) {
    Pair pair(true, TLS1_2_VERSION);
    pair.ask();
    SSL_set_tlsext_host_name(pair.ssl(), name);
    if (strcmp(name, "server.test") == 0) {
      pair.until([&] { return pair.outcome().has_value(); }, "the answer of an honest client");
      pair.exchange();
      continue;
    }
    pair.until_closed();
    REQUIRE(pair.how() == tlspool::ClosedHow::error && pair.refused() == "REAUTH_REFUSED", "another server name is " + pair.refused());
    pair.until([] { return Pair::alert() == SSL_AD_ILLEGAL_PARAMETER; }, "illegal_parameter");
  }
}

// A client that takes another kind of signature now would make us show another certificate of the identity.
void other_certificate_of_ours() {
  Pair pair(true, TLS1_2_VERSION);
  pair.ask();
  SSL_set1_sigalgs_list(pair.ssl(), "RSA-PSS+SHA256:RSA+SHA256");
  SSL_set_cipher_list(pair.ssl(), "ECDHE-RSA-AES128-GCM-SHA256");
  pair.until_closed();
  REQUIRE(pair.how() == tlspool::ClosedHow::error && pair.refused() == "REAUTH_REFUSED", "it is " + pair.refused());
  REQUIRE(!pair.outcome(), "it was authenticated all the same");
}

// Nobody asked. OpenSSL's client takes the refusal for the end.
void unasked() {
  for (const bool after : {false, true}) {
    Pair pair(true, TLS1_2_VERSION);
    if (after) {
      pair.ask();
      pair.until([&] { return pair.outcome() && SSL_renegotiate_pending(pair.ssl()) == 0; }, "the answer, and the end of it at the client");
    }
    REQUIRE(!pair.renegotiate() && Pair::alert() == SSL_AD_NO_RENEGOTIATION, "a renegotiation of the client's own begins");
  }
}

// Whom a client talks to does not change, even to somebody whose certificate is as good.
void other_certificate_of_the_server() {
  Pair honest(false, TLS1_2_VERSION);
  REQUIRE(honest.renegotiate(), "the same certificate is refused: " + honest.detail());
  honest.exchange();
  Pair pair(false, TLS1_2_VERSION);
  use_other_certificate(pair.ssl(), credentials().rsa);
  REQUIRE(!pair.renegotiate(), "another certificate of the server is taken");
  pair.until_closed();
  REQUIRE(pair.detail() == "the server showed another certificate in a renegotiation", "the session ends otherwise: " + pair.detail());
  pair.until([] { return Pair::alert() == SSL_AD_BAD_CERTIFICATE; }, "bad_certificate");
}

void server_asks_too_often() {
  Pair old(false, TLS1_2_VERSION);
  for (int i = 0; i < answers_at_once; ++i) REQUIRE(old.renegotiate(), "number " + std::to_string(i) + " is not answered: " + old.detail());
  old.exchange();
  REQUIRE(!old.renegotiate() && Pair::alert() == SSL_AD_NO_RENEGOTIATION, "the next is answered, too");

  Pair pair(false, TLS1_3_VERSION);
  const auto ask = [&] {
    SSL_set_verify(pair.ssl(), SSL_VERIFY_PEER, [](int, X509_STORE_CTX*) { return 1; });
    REQUIRE(SSL_verify_client_post_handshake(pair.ssl()) == 1, "the peer cannot ask");
    const SSL_SESSION* before = SSL_get_session(pair.ssl());
    SSL_do_handshake(pair.ssl());
    pair.until([&] { return SSL_get_session(pair.ssl()) != before || pair.how(); }, "the client's Certificate");
  };
  for (int i = 0; i < answers_at_once; ++i) ask();
  pair.exchange();
  ask();
  REQUIRE(pair.how() == tlspool::ClosedHow::error && pair.detail() == "the server asks for a certificate too often", "it is " + pair.detail());
}

// Without the extended master secret a renegotiation is not safe, and the session is as good as before.
void server_without_extended_master_secret() {
  Pair pair(false, TLS1_2_VERSION, soon_over(), SSL_OP_NO_EXTENDED_MASTER_SECRET);
  pair.exchange();
  REQUIRE(!pair.renegotiate() && Pair::alert() == SSL_AD_NO_RENEGOTIATION, "it is answered");
}

// A server that asks, and then says nothing: what the client's application writes must not wait for ever.
void server_stops_in_the_middle() {
  tlspool::Options quick = soon_over();
  quick.handshake_ms = short_ms;
  Pair pair(false, TLS1_2_VERSION, quick);
  SSL_renegotiate(pair.ssl());
  SSL_do_handshake(pair.ssl());
  pair.peer().flush();
  for (int i = 0; i < rounds * 20 && !pair.how(); ++i) {
    pair.turn();  // the ClientHello is fetched, and never looked at
    usleep(1000);
  }
  REQUIRE(pair.how() == tlspool::ClosedHow::timeout, "the session goes on: " + pair.detail());
}

constexpr Case cases[] = {{"other-name", other_name},
                          {"other-certificate-of-ours", other_certificate_of_ours},
                          {"unasked", unasked},
                          {"other-certificate-of-the-server", other_certificate_of_the_server},
                          {"server-asks-too-often", server_asks_too_often},
                          {"server-without-extended-master-secret", server_without_extended_master_secret},
                          {"server-stops-in-the-middle", server_stops_in_the_middle}};

}  // namespace

int main(int count, char** arguments) { return run_case("reauth_peers", cases, count, arguments); }
