// What the kernel and a peer seldom do, made certain: `faults NAME` fails (a FINDING, a sanitizer's report) where the engine cannot stand it.
// The calls below take the place of the C library's in this program; without a plan they are the kernel's.
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <functional>

#include "cases.hh"
#include "peer.hh"

namespace {

std::atomic<int> send_fails_on{-1}, send_errno{0}, sends_failed{0};
std::atomic<int> accept_errno{0}, accepts_failed{0};
std::atomic<int> endless_fd{-1}, endless_reads{0};
std::atomic<int> counted_fd{-1};
std::atomic<size_t> taken_in_round{0}, most_in_round{0};

}  // namespace

extern "C" ssize_t send(int fd, const void* data, size_t length, int flags) {
  if (send_fails_on.load() == fd) {
    sends_failed.fetch_add(1);
    errno = send_errno.load();
    return -1;
  }
  return syscall(SYS_sendto, fd, data, length, flags, nullptr, 0);
}

extern "C" int accept4(int fd, struct sockaddr* address, socklen_t* length, int flags) {
  if (const int error = accept_errno.load(); error != 0) {
    accepts_failed.fetch_add(1);
    errno = error;
    return -1;
  }
  return static_cast<int>(syscall(SYS_accept4, fd, address, length, flags));
}

// Of the one worker: a round begins here.
extern "C" int epoll_wait(int fd, struct epoll_event* events, int most, int timeout_ms) {
  taken_in_round = 0;
  return static_cast<int>(syscall(SYS_epoll_wait, fd, events, most, timeout_ms));
}

// The engine reads a UNIX socket with it. An endless peer sends HelloRequests, and is never slower than whoever reads them.
extern "C" ssize_t recvmsg(int fd, struct msghdr* message, int flags) {
  static constexpr std::array<uint8_t, 9> hello_request = {22, 3, 3, 0, 4, 0, 0, 0, 0};
  static std::atomic<size_t> at{0};
  if (endless_fd.load() != fd) {
    const ssize_t n = syscall(SYS_recvmsg, fd, message, flags);
    if (counted_fd.load() == fd && n > 0) most_in_round = std::max(most_in_round.load(), taken_in_round += static_cast<size_t>(n));
    return n;
  }
  const size_t length = message->msg_iov[0].iov_len;
  const size_t from = at.fetch_add(length);
  for (size_t i = 0; i < length; ++i) static_cast<uint8_t*>(message->msg_iov[0].iov_base)[i] = hello_request[(from + i) % hello_request.size()];
  message->msg_controllen = 0;
  endless_reads.fetch_add(1);
  return static_cast<ssize_t>(length);
}

namespace {

using namespace rig;

constexpr int rounds = 50;

tlspool::Options impatient() {
  tlspool::Options options = soon_over();
  options.stalled_ms = 300;
  return options;
}

struct Started {
  UniqueFd ours, plain;
  int cryptfd = -1, plainfd = -1;  // the engine's
  tlspool::SessionId id = 0;
};

Started start(Rig& rig, bool server = true, uint64_t handshake_ms = 0) {
  Started started;
  UniqueFd theirs, passed;
  socket_pair(started.ours, theirs);
  socket_pair(started.plain, passed);
  tlspool::SessionStart session;
  session.server = server;
  session.handshake_ms = handshake_ms;
  if (server) session.selector = make_selector(make_context({}));
  else session.context = make_client_context();
  session.remoteid = "server.test";
  session.negotiation = std::make_shared<const tlspool::Negotiation>();
  started.cryptfd = theirs.release();
  started.plainfd = passed.release();
  REQUIRE(!rig.engine().start_tls(started.cryptfd, started.plainfd, std::move(session), started.id), "the session is refused");
  return started;
}

void until(Rig& rig, const std::function<bool()>& done, const char* text) {
  for (int i = 0; i < 500 && !done(); ++i) {
    rig.barrier();
    usleep(10'000);
  }
  REQUIRE(done(), text);
}

// RFC 5246 section 7.4.1.1: a client in a handshake ignores HelloRequest, and OpenSSL's does so for ever. Others are served meanwhile, and it ends at its deadline.
void endless_handshake() {
  Rig rig(impatient());
  Started other = start(rig);
  Started session = start(rig, false, 1000);
  Peer peer(std::move(other.ours), {});
  endless_fd = session.cryptfd;
  REQUIRE(send(session.ours.get(), "\x16\x03\x03\x00\x04\x00\x00\x00\x00", 9, MSG_NOSIGNAL) == 9, "short send");
  bool served = false, failed = false;
  until(rig, [&] {
    peer.fetch();
    peer.handshake();
    peer.flush();
    for (const tlspool::Event& event : rig.events()) {
      const auto* established = std::get_if<tlspool::EstablishedEvent>(&event);
      served = served || (established != nullptr && established->session == other.id);
      const auto* failure = std::get_if<tlspool::FailedEvent>(&event);
      if (failure == nullptr) continue;
      REQUIRE(failure->session == session.id && failure->code == std::string("HANDSHAKE_TIMEOUT"), std::string("a session failed as ") + failure->code);
      // From here on the peer's octets are only thrown away, for linger_ms.
      endless_fd = -1;
      failed = true;
    }
    return served && failed;
  }, "a handshake that never ends keeps others from theirs, or its deadline from coming");
  REQUIRE(endless_reads.load() > 10, "the peer is not endless");
}

// Each KeyUpdate costs what many KiB of data cost: one peer must not fill a round of the worker with them. Data behind them arrive whole.
void key_update_flood() {
  Rig rig(impatient());
  Started session = start(rig);
  Peer peer(std::move(session.ours), {});
  await<tlspool::EstablishedEvent>(rig, &peer);
  std::string flood;
  while (flood.size() < 1U << 20) {
    REQUIRE(SSL_key_update(peer.ssl(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1 && SSL_do_handshake(peer.ssl()) == 1, "no key update");
    flood += peer.take_output();
  }
  peer.send_raw(flood);
  most_in_round = 0;
  counted_fd = session.cryptfd;
  for (int unread = 1; !peer.idle() || unread > 0;) {
    peer.flush();
    rig.barrier();
    REQUIRE(ioctl(peer.fd(), SIOCOUTQ, &unread) == 0, "no count of what is unread");
  }
  counted_fd = -1;
  REQUIRE(most_in_round.load() > 0, "the flood is not read where it is counted");
  REQUIRE(most_in_round.load() <= 96 * 1024, "a round takes " + std::to_string(most_in_round.load()) + " octets of KeyUpdates");
  std::string got;
  constexpr size_t data_octets = 1 << 20;
  for (size_t at = 0; at < data_octets; at += 16384) peer.write(std::string(16384, 'a'));
  for (std::string buffer(65536, 0); got.size() < data_octets;) {
    peer.flush();
    const ssize_t n = recv(session.plain.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n > 0) got.append(buffer, 0, static_cast<size_t>(n));
    else rig.barrier();
  }
}

// A peer that asks for new keys one by one and reads no answer: what is kept for it is bounded, as it is not read any more. Once it reads, all goes on.
void unread_answers() {
  Rig rig(impatient());
  Started session = start(rig);
  const int least = 1;
  REQUIRE(setsockopt(session.cryptfd, SOL_SOCKET, SO_SNDBUF, &least, sizeof least) == 0 && setsockopt(session.ours.get(), SOL_SOCKET, SO_SNDBUF, &least, sizeof least) == 0, "no small buffers");
  Peer peer(std::move(session.ours), {});
  await<tlspool::EstablishedEvent>(rig, &peer);
  constexpr int most_answers = 64 * 1024 / 27 + 100;  // records of a KeyUpdate; those that are in the kernel come on top
  int asked = 0;
  for (; asked < most_answers && peer.idle(); ++asked) {
    REQUIRE(SSL_key_update(peer.ssl(), SSL_KEY_UPDATE_REQUESTED) == 1 && SSL_do_handshake(peer.ssl()) == 1, "no key update");
    peer.flush();
    rig.barrier();
  }
  REQUIRE(!peer.idle(), "answers pile up for a peer that does not read");
  REQUIRE(asked > 1000, "the engine stops reading after " + std::to_string(asked) + " requests");
  until(rig, [&] {
    peer.flush();
    peer.fetch();
    peer.read();
    return peer.idle();
  }, "the peer reads, and its requests are still not read");
  REQUIRE(peer.write("and data"), "the peer is broken");
  std::string got;
  until(rig, [&] {
    peer.flush();
    peer.fetch();
    peer.read();
    char buffer[64];
    if (const ssize_t n = recv(session.plain.get(), buffer, sizeof buffer, MSG_DONTWAIT); n > 0) got.append(buffer, static_cast<size_t>(n));
    return got == "and data";
  }, "data behind the requests do not arrive");
}

// No memory for what is sent, twice: the kernel reports the socket as writable the first time, and then never again.
void short_of_memory(bool crypt, int error) {
  Rig rig(impatient());
  Started session = start(rig);
  Peer peer(std::move(session.ours), {});
  await<tlspool::EstablishedEvent>(rig, &peer);
  rig.barrier();
  send_errno = error;
  sends_failed = 0;
  send_fails_on = crypt ? session.cryptfd : session.plainfd;
  if (crypt) REQUIRE(send(session.plain.get(), "octets", 6, MSG_NOSIGNAL) == 6, "short send");
  else peer.write("octets");
  peer.flush();
  until(rig, [] { return sends_failed.load() >= 3; }, "the engine does not try again");
  const int before = sends_failed.load();
  usleep(200'000);
  REQUIRE(sends_failed.load() - before < 40, "the engine tries without a pause");
  send_fails_on = -1;
  std::string got;
  const auto arrived = [&] {
    char buffer[64];
    if (crypt) {
      peer.fetch();
      peer.read();
      got = peer.received();
    } else if (const ssize_t n = recv(session.plain.get(), buffer, sizeof buffer, MSG_DONTWAIT); n > 0) {
      got.append(buffer, static_cast<size_t>(n));
    }
    return got == "octets";
  };
  until(rig, arrived, "what could not be sent for want of memory never arrives");
}

void short_of_memory_plain() {
  short_of_memory(false, ENOBUFS);
  short_of_memory(false, ENOMEM);
}

void short_of_memory_crypt() {
  short_of_memory(true, ENOBUFS);
  short_of_memory(true, ENOMEM);
}

// The session goes while it waits for memory.
void gone_while_short_of_memory() {
  Rig rig(impatient());
  Started session = start(rig);
  Peer peer(std::move(session.ours), {});
  await<tlspool::EstablishedEvent>(rig, &peer);
  send_errno = ENOBUFS;
  sends_failed = 0;
  send_fails_on = session.plainfd;
  peer.write("octets");
  peer.flush();
  until(rig, [] { return sends_failed.load() >= 2; }, "nothing is sent");
  rig.engine().close(session.id, tlspool::CloseRequest::abort);
  await<tlspool::ClosedEvent>(rig);
  send_fails_on = -1;
  usleep(200'000);  // past the moment of the next attempt, which must not meet freed memory
  rig.barrier();
  rig.await_idle();
}

// accept(2): errors of one connection, or of a firewall, are no end of the listening socket.
void accept_errors() {
  Rig rig(impatient());
  const int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socklen_t length = sizeof(sa_family_t);
  REQUIRE(bind(listening, reinterpret_cast<sockaddr*>(&address), length) == 0 && listen(listening, 8) == 0, "no listening socket");
  length = sizeof address;
  getsockname(listening, reinterpret_cast<sockaddr*>(&address), &length);
  tlspool::ListenerId id = 0;
  REQUIRE(!rig.engine().listen(listening, make_selector(make_context({})), std::make_shared<const tlspool::Negotiation>(), id), "the listener is refused");
  for (const int error : {EPERM, EPROTO, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH}) {
    accepts_failed = 0;
    accept_errno = error;
    UniqueFd client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    REQUIRE(connect(client.get(), reinterpret_cast<sockaddr*>(&address), length) == 0, "no connection");
    until(rig, [] { return accepts_failed.load() > 0; }, "nothing is accepted");
    const int before = accepts_failed.load();
    usleep(50'000);
    REQUIRE(accepts_failed.load() - before < 20, "the engine accepts without a pause");
    accept_errno = 0;
    Peer peer(std::move(client), {});
    for (bool done = false; !done;) {
      peer.fetch();
      peer.handshake();
      peer.flush();
      rig.barrier();
      for (const tlspool::Event& event : rig.events()) {
        REQUIRE(!std::holds_alternative<tlspool::ListenerEvent>(event), "the listener is given up for an error that passes");
        done = done || std::holds_alternative<tlspool::EstablishedEvent>(event);
      }
      usleep(5'000);
    }
  }
  // The twin: what does not pass is reported, once.
  accept_errno = EINVAL;
  UniqueFd client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  REQUIRE(connect(client.get(), reinterpret_cast<sockaddr*>(&address), length) == 0, "no connection");
  const auto lost = await<tlspool::ListenerEvent>(rig);
  REQUIRE(lost.listener == id, "another listener is reported");
  rig.engine().unlisten(id);
  rig.barrier();
  accept_errno = 0;
}

// An application that reads no more, and a peer that was slow once: who is quiet after that is not stalled.
void slow_once_then_quiet() {
  Rig rig(impatient());
  Started session = start(rig);
  Peer peer(std::move(session.ours), {});
  await<tlspool::EstablishedEvent>(rig, &peer);
  shutdown(session.plain.get(), SHUT_RD);
  peer.write("nobody reads this");
  peer.flush();
  rig.barrier();
  const std::string block(65536, 'a');
  size_t sent = 0;
  for (int i = 0; i < rounds; ++i) {
    const ssize_t n = send(session.plain.get(), block.data(), block.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) sent += static_cast<size_t>(n);
    rig.barrier();
  }
  until(rig, [&] {
    peer.fetch();
    peer.read();
    return peer.received().size() == sent;
  }, "what the application sent does not arrive");
  usleep(700'000);  // more than twice stalled_ms
  send(session.plain.get(), "b", 1, MSG_NOSIGNAL);
  until(rig, [&] {
    peer.fetch();
    peer.read();
    REQUIRE(!peer.saw_end(), "a session in which nothing is stalled is ended for that");
    return peer.received().size() == sent + 1;
  }, "the last octet does not arrive");
}

struct Backend {
  UniqueFd listening;
  tlspool::Negotiation negotiation;

  Backend() : listening(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_storage& address = negotiation.backend.emplace();
    address.ss_family = AF_UNIX;
    REQUIRE(bind(listening.get(), reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)) == 0 && listen(listening.get(), 0) == 0, "no backend");
    negotiation.backend_length = sizeof address;
    getsockname(listening.get(), reinterpret_cast<sockaddr*>(&address), &negotiation.backend_length);
  }

  UniqueFd connected() const {
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&*negotiation.backend), negotiation.backend_length) != 0) fd.reset();
    return fd;
  }

  UniqueFd accepted() const { return UniqueFd(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)); }
};

Peer start_for(Rig& rig, const Backend& backend) {
  UniqueFd ours, theirs;
  socket_pair(ours, theirs);
  tlspool::SessionStart session;
  session.selector = make_selector(make_context({}));
  session.negotiation = std::make_shared<const tlspool::Negotiation>(backend.negotiation);
  tlspool::SessionId id = 0;
  REQUIRE(!rig.engine().start_tls(theirs.release(), -1, std::move(session), id), "the session is refused");
  return Peer(std::move(ours), {});
}

// As one on TCP does, a backend on a UNIX socket that is busy for a moment makes its clients wait, and fails them only at the deadline.
void backend_queue_full() {
  for (const bool makes_room : {true, false}) {
    tlspool::Options each = impatient();
    each.handshake_ms = makes_room ? 10'000 : 300;
    Rig rig(each);
    const Backend backend;
    std::vector<UniqueFd> queued;
    for (UniqueFd one = backend.connected(); one; one = backend.connected()) queued.push_back(std::move(one));
    Peer peer = start_for(rig, backend);
    until(rig, [&] {
      peer.fetch();
      const bool done = peer.handshake() == Peer::Handshake::done;
      peer.flush();
      return done;
    }, "no handshake");
    for (int i = 0; i < rounds; ++i) rig.barrier();
    if (!makes_room) {
      const auto failed = await<tlspool::FailedEvent>(rig);
      REQUIRE(failed.code == std::string("BACKEND_FAILED"), std::string("it failed as ") + failed.code);
      continue;
    }
    REQUIRE(rig.events().empty(), "a connection is not kept for a backend that is busy");
    while (backend.accepted()) continue;
    await<tlspool::EstablishedEvent>(rig);
    REQUIRE(static_cast<bool>(backend.accepted()), "the backend has no connection");
  }
}

// Promise 7: out of descriptors, a connection waits for one for its backend as it does for its application.
void backend_without_descriptors() {
  Rig rig(impatient());
  const Backend backend;
  Peer peer = start_for(rig, backend);
  rig.barrier();
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{3, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  for (int i = 0; i < rounds; ++i) {
    peer.fetch();
    peer.handshake();
    peer.flush();
    rig.barrier();
  }
  setrlimit(RLIMIT_NOFILE, &before);
  for (const tlspool::Event& event : rig.events()) {
    const auto* failed = std::get_if<tlspool::FailedEvent>(&event);
    REQUIRE(failed == nullptr, "the handshake fails for want of a descriptor: " + failed->text);
  }
  await<tlspool::EstablishedEvent>(rig);
  REQUIRE(static_cast<bool>(backend.accepted()), "the backend has no connection");
}

constexpr Case cases[] = {{"endless-handshake", endless_handshake},
                          {"key-update-flood", key_update_flood},
                          {"unread-answers", unread_answers},
                          {"short-of-memory-plain", short_of_memory_plain},
                          {"short-of-memory-crypt", short_of_memory_crypt},
                          {"gone-while-short-of-memory", gone_while_short_of_memory},
                          {"accept-errors", accept_errors},
                          {"slow-once-then-quiet", slow_once_then_quiet},
                          {"backend-queue-full", backend_queue_full},
                          {"backend-without-descriptors", backend_without_descriptors}};

}  // namespace

int main(int count, char** arguments) { return run_case("faults", cases, count, arguments); }
