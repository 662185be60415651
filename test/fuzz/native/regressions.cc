// Standalone cases, one per defect that was found: `regressions NAME` fails (a FINDING, a sanitizer's report) while it is there.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cstdio>

#include "cases.hh"
#include "peer.hh"

namespace {

using namespace rig;

constexpr int rounds = 50;

struct Started {
  UniqueFd ours;  // the peer's end of the TLS side
  UniqueFd kept;  // the copy of the passed descriptor that its sender did not close
  tlspool::SessionId id = 0;
};

Started start(Rig& rig, tlspool::Negotiation negotiation = {}, const ContextOptions& context = {}, int send_octets = 0) {
  Started started;
  UniqueFd theirs;
  socket_pair(started.ours, theirs, send_octets);
  started.kept = duplicate(theirs.get());
  tlspool::SessionStart session;
  session.selector = make_selector(make_context(context));
  session.negotiation = std::make_shared<const tlspool::Negotiation>(std::move(negotiation));
  REQUIRE(!rig.engine().start_tls(theirs.get(), -1, std::move(session), started.id), "the session is refused");
  theirs.release();
  return started;
}

void rounds_of(Rig& rig, int count = rounds) {
  for (int i = 0; i < count; ++i) rig.barrier();
}

// A client keeps its copy of the descriptor: the kernel's watch outlives our close(2) of it and must not lead to freed memory.
void stale_watch() {
  Rig rig(soon_over());
  Started session = start(rig);
  send(session.ours.get(), "this is no TLS", 14, MSG_NOSIGNAL);
  rounds_of(rig, 3);
  shutdown(session.ours.get(), SHUT_WR);
  rig.await_idle();
  shutdown(session.kept.get(), SHUT_RDWR);
  rounds_of(rig);
}

// O_NONBLOCK belongs to the open file: whoever passed the socket can take it away again, and must not stop a worker with it.
void blocking_mode_taken_away() {
  Rig rig(soon_over());
  Started session = start(rig);
  rig.barrier();
  fcntl(session.kept.get(), F_SETFL, fcntl(session.kept.get(), F_GETFL) & ~O_NONBLOCK);
  // As much as one read takes, and the ClientHello is still not complete: the engine reads again.
  std::string hello("\x16\x03\x01\x40\x00\x01\x01\xff\xff\x03\x03", 11);
  hello.resize(16389, 'x');
  hello += std::string("\x16\x03\x01\x40\x00", 5);
  hello.resize(16 * 1024 + 2048, 'x');
  REQUIRE(send(session.ours.get(), hello.data(), hello.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(hello.size()), "short send");
  rounds_of(rig);
}

// A flight that the socket takes in parts is sent to its end during the handshake, too.
void blocked_flight() {
  Rig rig(soon_over());
  ContextOptions context;
  context.rsa_too = false;
  context.extra_certificates = 40;
  Started session = start(rig, {}, context, 1);
  Peer peer(std::move(session.ours), {});
  for (int i = 0; i < rounds * 200; ++i) {
    if (peer.handshake() == Peer::Handshake::done && peer.idle()) break;
    peer.flush();
    peer.fetch(512);
    rig.barrier();
  }
  REQUIRE(peer.handshake() == Peer::Handshake::done, "the server's flight does not arrive to its end");
}

// The owner allowed one name; a second ClientHello (after HelloRetryRequest) must not swap it for another.
void name_changed_after_asking() {
  Rig rig(soon_over());
  tlspool::Negotiation negotiation;
  negotiation.ask = true;
  ContextOptions context;
  context.hello_retry = true;
  Started session = start(rig, std::move(negotiation), context);
  PeerOptions as_allowed;
  as_allowed.servername = "server.test";
  Peer peer(std::move(session.ours), as_allowed);
  peer.handshake();
  peer.flush();
  const auto hello = await<tlspool::HelloEvent>(rig);
  SSL_set_tlsext_host_name(peer.ssl(), "other.wild.test");
  rig.engine().decide(hello.session, make_selector(make_context(context)), {});
  for (int i = 0; i < rounds; ++i) {
    peer.fetch();
    peer.handshake();
    peer.flush();
    rig.barrier();
    for (const tlspool::Event& event : rig.events()) {
      const auto* established = std::get_if<tlspool::EstablishedEvent>(&event);
      REQUIRE(established == nullptr || established->servername == hello.servername,
              "asked about " + hello.servername + ", serves " + (established == nullptr ? "" : established->servername));
    }
  }
}

// TLS 1.2: the client's last flight arrives, and the client is gone before ours can be sent. That handshake failed, and only that.
void client_gone_before_our_finished() {
  Rig rig(soon_over());
  Started session = start(rig);
  PeerOptions tls12;
  tls12.version = TLS1_2_VERSION;
  Peer peer(std::move(session.ours), tls12);
  peer.handshake();
  peer.flush();
  for (int i = 0; i < rounds && !peer.fetch(); ++i) rig.barrier();
  // As if the peer had gone between the engine's reading and its writing.
  shutdown(session.kept.get(), SHUT_WR);
  peer.handshake();
  peer.flush();
  rig.barrier();
  peer.close();
  rig.await_idle();
  size_t failed = 0;
  for (const tlspool::Event& event : rig.events()) {
    REQUIRE(!std::holds_alternative<tlspool::EstablishedEvent>(event), "a handshake is reported as established whose end was never sent");
    failed += std::holds_alternative<tlspool::FailedEvent>(event) ? 1 : 0;
  }
  REQUIRE(failed == 1, "the failure was reported " + std::to_string(failed) + " times");
}

// Out of descriptors at the end of a handshake: the session goes on when there are some, with every record that it has written.
void descriptor_shortage() {
  Rig rig(soon_over());
  Started session = start(rig);
  Peer peer(std::move(session.ours), {});
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{3, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  for (int i = 0; i < rounds && peer.handshake() != Peer::Handshake::done; ++i) {
    peer.flush();
    rig.barrier();
    peer.fetch();
  }
  peer.flush();
  rounds_of(rig, 5);
  REQUIRE(rig.events().empty(), "the descriptors did not run out");
  setrlimit(RLIMIT_NOFILE, &before);
  // Octets of the peer wake the session before its timer does.
  peer.write("x");
  peer.flush();
  auto established = await<tlspool::EstablishedEvent>(rig);
  send(established.plainfd.get(), "answer", 6, MSG_NOSIGNAL);
  for (int i = 0; i < rounds && peer.received().empty(); ++i) {
    rig.barrier();
    peer.fetch();
    peer.read();
    REQUIRE(!peer.broken(), "a record is missing from what the peer gets");
  }
  REQUIRE(peer.received() == "answer", "the answer does not arrive");
}

// A passed plain side is the application's, also on a listener that has a backend: it is told of the end, and a copy that it
// keeps does not lead to freed memory.
void passed_plain_side_beside_backend() {
  Rig rig(soon_over());
  UniqueFd ours, theirs, plain, passed;
  socket_pair(ours, theirs);
  socket_pair(plain, passed);
  const UniqueFd kept = duplicate(passed.get());
  tlspool::Negotiation negotiation;
  sockaddr_storage& backend = negotiation.backend.emplace();
  backend.ss_family = AF_UNIX;
  negotiation.backend_length = sizeof(sa_family_t);
  tlspool::SessionStart session;
  session.selector = make_selector(make_context({}));
  session.negotiation = std::make_shared<const tlspool::Negotiation>(std::move(negotiation));
  tlspool::SessionId id = 0;
  REQUIRE(!rig.engine().start_tls(theirs.get(), passed.get(), std::move(session), id), "the session is refused");
  theirs.release();
  passed.release();
  Peer peer(std::move(ours), {});
  await<tlspool::EstablishedEvent>(rig, &peer);
  peer.close();
  const auto closed = await<tlspool::ClosedEvent>(rig);
  REQUIRE(static_cast<bool>(closed.plainfd), "the application's descriptor is closed before the application is told how the session ended");
  rig.await_idle();
  send(plain.get(), "late", 4, MSG_NOSIGNAL);
  shutdown(kept.get(), SHUT_RDWR);
  rounds_of(rig);
}

// The peer says close_notify and leaves: nothing can be sent to it any more, so the application must not wait for ever.
void peer_gone_after_close_notify() {
  Rig rig(soon_over());
  Started session = start(rig);
  Peer peer(std::move(session.ours), {});
  session.kept.reset();
  const auto established = await<tlspool::EstablishedEvent>(rig, &peer);
  SSL_shutdown(peer.ssl());
  peer.flush();
  rounds_of(rig, 3);
  peer.close();
  const auto closed = await<tlspool::ClosedEvent>(rig);
  REQUIRE(closed.how == tlspool::ClosedHow::reset, "a connection that broke is not reported as such");
}

// A revoked session has linger_ms for its last octets; a later close by its owner must not give it more.
void revoked_then_closed() {
  Rig rig(soon_over());
  Started session = start(rig);
  Peer peer(std::move(session.ours), {});
  const auto established = await<tlspool::EstablishedEvent>(rig, &peer);
  const std::string block(65536, 'a');
  for (int i = 0; i < rounds; ++i) {
    send(established.plainfd.get(), block.data(), block.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    rig.barrier();
  }
  rig.engine().close(established.session, tlspool::CloseRequest::revoked);
  rig.engine().close(established.session, tlspool::CloseRequest::orderly);
  for (int i = 0; i < 50; ++i) {
    usleep(100'000);
    rig.barrier();
    for (const tlspool::Event& event : rig.events())
      if (const auto* closed = std::get_if<tlspool::ClosedEvent>(&event)) {
        REQUIRE(closed->how == tlspool::ClosedHow::revoked, "a revoked session is not reported as such");
        return;
      }
  }
  REQUIRE(false, "a revoked session lives on because its owner closed it");
}

// A packet socket whose send buffer takes no record: octets of the peer cannot be delivered, and that is no orderly end.
void packets_too_small_for_a_record() {
  Rig rig(soon_over());
  UniqueFd ours, theirs;
  socket_pair(ours, theirs);
  int pair[2] = {-1, -1};
  REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "no socket pair");
  UniqueFd plain(pair[0]);
  const int least = 1;
  setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &least, sizeof least);
  tlspool::SessionStart session;
  session.selector = make_selector(make_context({}));
  session.negotiation = std::make_shared<const tlspool::Negotiation>();
  tlspool::SessionId id = 0;
  REQUIRE(!rig.engine().start_tls(theirs.get(), pair[1], std::move(session), id), "the session is refused");
  theirs.release();
  Peer peer(std::move(ours), {});
  await<tlspool::EstablishedEvent>(rig, &peer);
  peer.write(std::string(16000, 'x'));
  SSL_shutdown(peer.ssl());
  peer.flush();
  rounds_of(rig, 5);
  plain.reset();
  const auto closed = await<tlspool::ClosedEvent>(rig);
  REQUIRE(closed.how == tlspool::ClosedHow::error, "16,000 octets were dropped, and the end looks like an orderly one");
}

// The application said its end; the peer goes on, and asks for new keys. OpenSSL answers that, which must not break the session.
void key_update_after_our_end() {
  Rig rig(soon_over());
  Started session = start(rig);
  Peer peer(std::move(session.ours), {});
  const auto established = await<tlspool::EstablishedEvent>(rig, &peer);
  shutdown(established.plainfd.get(), SHUT_WR);
  rig.barrier();
  for (int i = 0; i < 3; ++i) {
    REQUIRE(SSL_key_update(peer.ssl(), SSL_KEY_UPDATE_REQUESTED) == 1 && SSL_do_handshake(peer.ssl()) == 1, "no key update");
    peer.flush();
    rig.barrier();
  }
  peer.write("more");
  SSL_shutdown(peer.ssl());
  peer.flush();
  const auto closed = await<tlspool::ClosedEvent>(rig);
  REQUIRE(closed.how == tlspool::ClosedHow::closed && closed.received == 4, "a peer that asks for new keys breaks a half-closed session: " + closed.detail);
}

// The last record reaches the limit of the keys: the end of the stream is still declared.
void end_behind_key_update() {
  tlspool::Options each = soon_over();
  each.key_update_records = 1;
  Rig rig(each);
  Started session = start(rig);
  Peer peer(std::move(session.ours), {});
  const auto established = await<tlspool::EstablishedEvent>(rig, &peer);
  send(established.plainfd.get(), "last", 4, MSG_NOSIGNAL);
  rig.barrier();
  shutdown(established.plainfd.get(), SHUT_WR);
  for (int i = 0; i < rounds && !peer.saw_end(); ++i) {
    rig.barrier();
    peer.fetch();
    peer.read();
  }
  REQUIRE(peer.received() == "last" && peer.saw_close_notify(), "a FIN without close_notify behind a key update");
}

// A server's ticket comes in several records, and the application writes between them: its octets wait for the rest.
void write_amid_a_long_ticket() {
  Rig rig(soon_over());
  UniqueFd ours, theirs;
  socket_pair(ours, theirs);
  tlspool::SessionStart client;
  client.server = false;
  client.context = make_client_context();
  client.remoteid = "server.test";
  client.negotiation = std::make_shared<const tlspool::Negotiation>();
  tlspool::SessionId id = 0;
  REQUIRE(!rig.engine().start_tls(theirs.get(), -1, std::move(client), id), "the session is refused");
  theirs.release();
  PeerOptions as_server;
  as_server.server = true;
  Peer peer(std::move(ours), as_server);
  // The client's certificate makes the ticket long, the limit makes it several records.
  SSL_set_verify(peer.ssl(), SSL_VERIFY_PEER, [](int, X509_STORE_CTX*) { return 1; });
  SSL_set_max_send_fragment(peer.ssl(), 512);
  std::string tickets;
  for (int i = 0; i < rounds && tickets.empty(); ++i) {
    rig.barrier();
    peer.fetch();
    const bool done = peer.handshake() == Peer::Handshake::done;
    if (done) tickets = peer.take_output();
    peer.flush();
  }
  REQUIRE(tickets.size() > 600, "the ticket is not long enough");
  const size_t first_record = 5 + (static_cast<size_t>(static_cast<uint8_t>(tickets[3])) << 8 | static_cast<uint8_t>(tickets[4]));
  peer.send_raw(tickets.substr(0, first_record));
  peer.flush();
  const auto established = await<tlspool::EstablishedEvent>(rig);
  rounds_of(rig, 3);
  send(established.plainfd.get(), "between", 7, MSG_NOSIGNAL);
  rounds_of(rig, 3);
  peer.send_raw(tickets.substr(first_record));
  for (int i = 0; i < rounds && peer.received() != "between"; ++i) {
    peer.flush();
    rig.barrier();
    peer.fetch();
    peer.read();
    for (const tlspool::Event& event : rig.events())
      if (const auto* closed = std::get_if<tlspool::ClosedEvent>(&event)) REQUIRE(false, "the session ends: " + closed->detail);
  }
  REQUIRE(peer.received() == "between", "what the application wrote between the records of a ticket does not arrive");
}

// The peer stops reading, then the application goes: somebody has to end the session.
void stalled_after_application_left() {
  tlspool::Options soon = soon_over();
  soon.stalled_ms = 300;
  Rig rig(soon);
  Started session = start(rig);
  Peer peer(std::move(session.ours), {});
  auto established = await<tlspool::EstablishedEvent>(rig, &peer);
  const std::string block(65536, 'a');
  for (int i = 0; i < rounds; ++i) {
    send(established.plainfd.get(), block.data(), block.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    rig.barrier();
  }
  established.plainfd.reset();
  rounds_of(rig);
  for (int i = 0; i < 100 && rig.engine().stats().sessions.load() > 0; ++i) usleep(100'000);
  REQUIRE(rig.engine().stats().sessions.load() == 0, "a session without application waits for ever for a peer that takes nothing");
}

constexpr Case cases[] = {{"stale-watch", stale_watch},
                          {"blocking-mode-taken-away", blocking_mode_taken_away},
                          {"blocked-flight", blocked_flight},
                          {"name-changed-after-asking", name_changed_after_asking},
                          {"client-gone-before-our-finished", client_gone_before_our_finished},
                          {"descriptor-shortage", descriptor_shortage},
                          {"passed-plain-side-beside-backend", passed_plain_side_beside_backend},
                          {"peer-gone-after-close-notify", peer_gone_after_close_notify},
                          {"revoked-then-closed", revoked_then_closed},
                          {"packets-too-small-for-a-record", packets_too_small_for_a_record},
                          {"key-update-after-our-end", key_update_after_our_end},
                          {"end-behind-key-update", end_behind_key_update},
                          {"write-amid-a-long-ticket", write_amid_a_long_ticket},
                          {"stalled-after-application-left", stalled_after_application_left}};

}  // namespace

int main(int count, char** arguments) { return run_case("regressions", cases, count, arguments); }
