// Standalone cases, one per defect that was found: `regressions NAME` fails (a FINDING, a sanitizer's report) while it is there.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cstdio>
#include <cstring>

#include "peer.hh"

namespace {

using namespace rig;

constexpr int rounds = 50;

tlspool::Options options() {
  tlspool::Options options;
  options.linger_ms = 100;
  return options;
}

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

template <typename Wanted>
Wanted await(Rig& rig, Peer* peer = nullptr) {
  for (int i = 0; i < rounds; ++i) {
    if (peer != nullptr) {
      peer->fetch();
      peer->handshake();
      peer->flush();
    }
    rig.barrier();
    for (tlspool::Event& event : rig.events())
      if (auto* wanted = std::get_if<Wanted>(&event)) return std::move(*wanted);
  }
  REQUIRE(false, "an event that has to come does not come");
  abort();
}

// A client keeps its copy of the descriptor: the kernel's watch outlives our close(2) of it and must not lead to freed memory.
void stale_watch() {
  Rig rig(options());
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
  Rig rig(options());
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
  Rig rig(options());
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
  Rig rig(options());
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

// The peer stops reading, then the application goes: somebody has to end the session.
void stalled_after_application_left() {
  Rig rig(options());
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
  printf("stalled: the session must now have a deadline of 60 s; waiting 64 s for its end\n");
  for (int i = 0; i < 640 && rig.engine().stats().sessions.load() > 0; ++i) usleep(100'000);
  REQUIRE(rig.engine().stats().sessions.load() == 0, "a session without application waits for ever for a peer that takes nothing");
}

struct Case {
  const char* name;
  void (*run)();
};
constexpr Case cases[] = {{"stale-watch", stale_watch},
                          {"blocking-mode-taken-away", blocking_mode_taken_away},
                          {"blocked-flight", blocked_flight},
                          {"name-changed-after-asking", name_changed_after_asking},
                          {"stalled-after-application-left", stalled_after_application_left}};

}  // namespace

int main(int count, char** arguments) {
  for (const Case& one : cases) {
    if (count != 2 || strcmp(arguments[1], one.name) != 0) continue;
    one.run();
    return 0;
  }
  fprintf(stderr, "usage: regressions NAME, one of:\n");
  for (const Case& one : cases) fprintf(stderr, "  %s\n", one.name);
  return 2;
}
