// `stress SECONDS`: an engine with several workers under many peers at once, for the sanitizers (thread; address and undefined).
// The owner swaps identities, adds, pauses and removes listeners, asks for exporters and bindings, closes sessions in every way,
// begins sessions of its own, asks clients for certificates while they talk, and stops the engine in the middle of it all. What comes back from the echo is what was sent;
// nothing is established or closed twice; no descriptor and no memory stays.
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "peer.hh"

namespace {

using namespace rig;
using Clock = std::chrono::steady_clock;
using Random = std::minstd_rand;

constexpr int phases = 3, clients = 4, worker_threads = 3;
constexpr size_t most_octets = 20'000;  // fits the sockets' buffers, so that the echo never has to wait
constexpr size_t flood_octets = 900'000;

size_t below(Random& random, size_t limit) { return random() % limit; }
bool one_in(Random& random, size_t count) { return below(random, count) == 0; }

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = port;
  return address;
}

// A listening socket of which the engine gets copies.
struct Door {
  UniqueFd fd;
  sockaddr_in address{};
  Door() : fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    address = loopback(0);
    socklen_t length = sizeof address;
    REQUIRE(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length) == 0 && listen(fd.get(), 256) == 0, "no listening socket");
    getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length);
  }
  UniqueFd call() const {
    UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fd.reset();
    return fd;
  }
};

struct Totals {
  std::atomic<uint64_t> handshakes{0}, echoes{0}, established{0}, closed{0}, failed{0}, answers{0}, reauthenticated{0};
};

void drop_hard(int fd) {
  const linger now{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

// One connection of a client thread; it may be cut off by the owner at any moment, but what it gets is what it sent.
class Call {
 public:
  Call(UniqueFd fd, Random& random, const std::atomic<bool>& over) : random_(random), over_(over), peer_(std::move(fd), options(random)) {
    if (!one_in(random_, 4)) SSL_set_post_handshake_auth(peer_.ssl(), 1);
  }

  void run(Totals& totals) {
    if (one_in(random_, 12)) peer_.send_raw("no TLS at all");
    for (;;) {
      const Peer::Handshake state = peer_.handshake();
      peer_.flush();
      if (state == Peer::Handshake::failed) return;
      if (state == Peer::Handshake::done) break;
      if (one_in(random_, 60) || !wait()) return;
    }
    ++totals.handshakes;
    if (one_in(random_, 10)) return flood();
    for (size_t i = below(random_, 5); i > 0; --i) {
      if (!echo()) return;
      ++totals.echoes;
    }
    if (one_in(random_, 3)) return;
    SSL_shutdown(peer_.ssl());
    peer_.flush();
    while (!one_in(random_, 20) && !peer_.saw_end() && wait()) peer_.read();
  }

  ~Call() {
    if (one_in(random_, 4)) drop_hard(peer_.fd());
  }

 private:
  static PeerOptions options(Random& random) {
    static constexpr const char* names[] = {"", "server.test", "a.wild.test", "unknown.test"};
    PeerOptions options;
    options.version = one_in(random, 3) ? TLS1_2_VERSION : 0;
    options.servername = names[one_in(random, 10) ? 3 : below(random, 3)];
    options.certificate = one_in(random, 3);
    return options;
  }

  bool echo() {
    std::string octets(1 + below(random_, most_octets), '\0');
    for (char& c : octets) c = static_cast<char>(random_());
    sent_ += octets;
    if (updates_keys()) SSL_key_update(peer_.ssl(), SSL_KEY_UPDATE_REQUESTED);
    if (!peer_.write(octets)) return false;
    do {
      peer_.flush();
      peer_.read();
      REQUIRE(sent_.compare(0, peer_.received().size(), peer_.received()) == 0, "the echo is not what was sent");
      if (peer_.received().size() == sent_.size()) return true;
    } while (!peer_.broken() && !peer_.saw_close_notify() && wait());
    return false;
  }
  // More than a worker takes in one turn and than the application's socket holds, from a peer that may leave at any moment.
  void flood() {
    peer_.write(std::string(flood_octets, 'f'));
    while (!one_in(random_, 40) && (peer_.flush() || (!peer_.idle() && wait()))) {}
  }
  bool updates_keys() { return SSL_version(peer_.ssl()) == TLS1_3_VERSION && one_in(random_, 5); }

  bool wait() {
    pollfd watched{peer_.fd(), static_cast<short>(peer_.idle() ? POLLIN : POLLIN | POLLOUT), 0};
    if (peer_.saw_end() || over_.load() || poll(&watched, 1, 2000) <= 0) return false;
    if ((watched.revents & POLLIN) != 0) peer_.fetch();
    return true;
  }

  Random& random_;
  const std::atomic<bool>& over_;
  Peer peer_;
  std::string sent_;
};

void client(unsigned seed, const Door& door, const std::atomic<bool>& over, Totals& totals) {
  Random random(seed);
  while (!over.load()) {
    UniqueFd fd = door.call();
    if (!fd) continue;
    Call(std::move(fd), random, over).run(totals);
  }
  OPENSSL_thread_stop();
}

// The application and the daemon in one: echoes, decides, and disturbs.
class Owner {
 public:
  Owner(const Door& door, Totals& totals, unsigned seed) : door_(door), totals_(totals), random_(seed), rig_(options()) {
    for (uint32_t revision = 1; revision <= 2; ++revision)
      for (const bool retry : {false, true}) {
        ContextOptions context;
        context.revision = revision;
        context.hello_retry = retry;
        context.client_auth = retry ? tlspool::ClientAuth::request : tlspool::ClientAuth::none;
        selectors_.push_back(make_selector(make_context(context)));
      }
    listen();
    listen();
  }

  void run(Clock::time_point until) {
    while (Clock::now() < until) {
      echo();
      for (tlspool::Event& event : rig_.events()) std::visit([this](auto& one) { on(one); }, event);
      if (one_in(random_, 4)) disturb();
    }
    rig_.engine().stop();
    // What was reported until then still owns descriptors.
    for (tlspool::Event& event : rig_.events()) std::visit([this](auto& one) { on(one); }, event);
  }

 private:
  static tlspool::Options options() {
    tlspool::Options options;
    options.workers = worker_threads;
    options.linger_ms = 100;
    options.stalled_ms = 500;
    options.handshake_ms = 1000;
    options.key_update_records = 8;
    options.handshakes_max = 16;
    return options;
  }

  void listen() {
    UniqueFd copy = duplicate(door_.fd.get());
    tlspool::Negotiation negotiation;
    negotiation.ask = one_in(random_, 2);
    negotiation.ask_plain = one_in(random_, 2);
    tlspool::ListenerId id = 0;
    REQUIRE(!rig_.engine().listen(copy.get(), any_selector(), std::make_shared<const tlspool::Negotiation>(std::move(negotiation)), id), "the listener is refused");
    copy.release();
    listeners_.push_back(id);
  }
  const tlspool::SelectorRef& any_selector() { return selectors_[below(random_, selectors_.size())]; }
  tlspool::SessionId any_session() {
    if (sessions_.empty() || one_in(random_, 20)) return random_();  // a stranger's number
    auto at = sessions_.begin();
    std::advance(at, below(random_, sessions_.size()));
    return *at;
  }

  void disturb() {
    tlspool::Engine& engine = rig_.engine();
    const size_t place = below(random_, listeners_.size());
    switch (below(random_, 11)) {
      case 0:
        engine.set_selector(listeners_[place], any_selector());
        break;
      case 1:
        engine.pause_listener(listeners_[place], true);
        engine.pause_listener(listeners_[place], false);
        break;
      case 2:
        listen();
        engine.unlisten(listeners_[place]);
        listeners_.erase(listeners_.begin() + static_cast<std::ptrdiff_t>(place));
        break;
      case 3:
      case 4:
        engine.exporter(any_session(), rig_.next_request(), "EXPERIMENTAL-stress", std::nullopt, 32);
        break;
      case 5:
        engine.bindings(any_session(), rig_.next_request());
        break;
      case 6:
        if (one_in(random_, 3)) engine.close(any_session(), static_cast<tlspool::CloseRequest>(below(random_, 4)));
        break;
      case 7:
        begin_client();
        break;
      case 8:
      case 9:
        engine.reauthenticate(any_session(), rig_.next_request(), {one_in(random_, 4), one_in(random_, 3) ? strangers() : nullptr, 1 + below(random_, 300)});
        break;
      default:
        // A revision of the identity that nobody has seen before; the oldest goes.
        ContextOptions context;
        context.revision = ++revision_;
        selectors_.push_back(make_selector(make_context(context)));
        selectors_.erase(selectors_.begin());
    }
  }

  // The engine as a client of itself.
  void begin_client() {
    static const tlspool::ContextRef context = make_client_context();
    UniqueFd fd = door_.call();
    if (!fd) return;
    const UniqueFd copy = duplicate(fd.get());
    tlspool::SessionStart session;
    session.server = false;
    session.context = context;
    session.remoteid = session.servername = "server.test";
    tlspool::Negotiation negotiation;
    negotiation.ask_plain = one_in(random_, 2);
    negotiation.ask = one_in(random_, 2);
    session.negotiation = std::make_shared<const tlspool::Negotiation>(std::move(negotiation));
    tlspool::SessionId id = 0;
    if (rig_.engine().start_tls(fd.get(), -1, std::move(session), id)) return;
    fd.release();
    begun_.insert(id);
  }
  // Of another identity; its client certificates are as good.
  static const tlspool::ContextRef& strangers() {
    static const tlspool::ContextRef context = make_client_context();
    return context;
  }

  void echo() {
    std::vector<pollfd> watched;
    for (const auto& [fd, owned] : applications_) watched.push_back({fd, POLLIN, 0});
    poll(watched.data(), watched.size(), 1);
    for (const pollfd& one : watched) {
      if (one.revents == 0) continue;
      char buffer[65536];
      const ssize_t n = recv(one.fd, buffer, sizeof buffer, MSG_DONTWAIT);
      const bool leaves = n == 0 || (n < 0 && errno != EAGAIN) || one_in(random_, 100);
      if (n > 0 && !leaves) send(one.fd, buffer, static_cast<size_t>(n), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (leaves) applications_.erase(one.fd);
    }
  }
  void keep(UniqueFd fd, bool is_client) {
    // Two echoes behind each other would never end.
    if (is_client) {
      send(fd.get(), "hello", 5, MSG_NOSIGNAL | MSG_DONTWAIT);
      shutdown(fd.get(), SHUT_RDWR);
      return;
    }
    const int number = fd.get();
    applications_.emplace(number, std::move(fd));
  }

  void on(tlspool::HelloEvent& event) {
    UniqueFd passed, application;
    if (one_in(random_, 6)) return rig_.engine().decide(event.session, nullptr, {});
    if (one_in(random_, 4)) {
      socket_pair(application, passed);
      keep(std::move(application), false);
    }
    // An answer for the other role is a mistake of the owner.
    if (begun_.contains(event.session) != one_in(random_, 20)) return rig_.engine().decide_identity(event.session, strangers(), std::move(passed));
    rig_.engine().decide(event.session, any_selector(), std::move(passed));
  }
  void on(tlspool::EstablishedEvent& event) {
    if (event.waiting) return supply(event);
    ++totals_.established;
    REQUIRE(sessions_.insert(event.session).second, "established twice");
    if (event.plainfd) keep(std::move(event.plainfd), !event.server);
  }
  void on(tlspool::SuppliedEvent& event) {
    const auto waited = waiting_.find(event.session);
    REQUIRE(waited != waiting_.end(), "supplied, and nobody waited");
    ++totals_.established;
    REQUIRE(sessions_.insert(event.session).second, "supplied twice");
    if (event.plainfd) keep(std::move(event.plainfd), waited->second);
    waiting_.erase(waited);
  }
  // Every answer, no answer, two of them, and the session's end in between.
  void supply(const tlspool::EstablishedEvent& event) {
    const bool is_client = !event.server;
    REQUIRE(!event.plainfd && waiting_.emplace(event.session, is_client).second, "asked for its plain side twice");
    tlspool::Engine& engine = rig_.engine();
    if (one_in(random_, 8)) engine.close(event.session, static_cast<tlspool::CloseRequest>(below(random_, 4)));
    if (one_in(random_, 4)) engine.exporter(event.session, rig_.next_request(), "EXPERIMENTAL-stress", std::nullopt, 32);
    switch (below(random_, 6)) {
      case 0:
        return engine.refuse_plain(event.session);
      case 1:
        return engine.supply(event.session, duplicate(door_.fd.get()));  // no connected socket
      case 2:
        return;
      case 3:
        engine.supply(event.session, {});
        break;
      default:
        UniqueFd passed, application;
        socket_pair(application, passed);
        keep(std::move(application), is_client);
        engine.supply(event.session, std::move(passed));
    }
    if (one_in(random_, 4)) engine.supply(event.session, {});
  }
  void on(tlspool::ClosedEvent& event) {
    ++totals_.closed;
    REQUIRE(sessions_.erase(event.session) == 1, "closed, and not open");
  }
  void on(tlspool::FailedEvent& event) {
    ++totals_.failed;
    REQUIRE(!sessions_.contains(event.session), "failed, and open");
    waiting_.erase(event.session);
  }
  void on(tlspool::ReauthenticatedEvent& event) {
    ++totals_.reauthenticated;
    REQUIRE(sessions_.contains(event.session), "reauthenticated, and not open");
    REQUIRE(event.peer.authorized == (event.outcome == tlspool::ReauthOutcome::authenticated), "the outcome is not what is known of the peer");
    REQUIRE(event.peer.peer_certificates.empty() == (event.outcome == tlspool::ReauthOutcome::refused), "a refusal with a certificate, or none");
  }
  void on(tlspool::OctetsAnswer& answer) {
    ++totals_.answers;
    REQUIRE(answer.octets.size() == 32, "an exporter of another length");
  }
  void on(tlspool::BindingsAnswer&) { ++totals_.answers; }
  void on(tlspool::ErrorAnswer&) { ++totals_.answers; }
  void on(tlspool::ListenerEvent& event) { REQUIRE(false, "a listener failed: " + event.text); }
  // Events that only come to who asked for them, which nobody here does.
  template <typename Other>
  void on(const Other&) {
    REQUIRE(false, "an event that was not asked for");
  }

  const Door& door_;
  Totals& totals_;
  Random random_;
  Rig rig_;
  std::vector<tlspool::SelectorRef> selectors_;
  std::vector<tlspool::ListenerId> listeners_;
  std::set<tlspool::SessionId> sessions_;
  std::set<tlspool::SessionId> begun_;  // by ourselves, as clients
  std::map<tlspool::SessionId, bool> waiting_;  // for their plain side; whether they are clients
  std::map<int, UniqueFd> applications_;
  uint32_t revision_ = 2;
};

void run_phase(unsigned seed, std::chrono::milliseconds length, Totals& totals) {
  const Door door;
  std::atomic<bool> over{false};
  std::vector<std::thread> threads;
  {
    Owner owner(door, totals, seed);
    for (unsigned i = 0; i < clients; ++i) threads.emplace_back([&, i] { client(seed * 16 + i, door, over, totals); });
    owner.run(Clock::now() + length);
  }
  over.store(true);
  // Connections that nobody accepted any more: their clients are waiting.
  shutdown(door.fd.get(), SHUT_RDWR);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main(int count, char** arguments) {
  const int seconds = count == 2 ? atoi(arguments[1]) : 0;
  if (seconds < 1) {
    fprintf(stderr, "usage: stress SECONDS\n");
    return 2;
  }
  credentials();
  Totals totals;
  const size_t before = open_fds();
  for (unsigned phase = 1; phase <= phases; ++phase) run_phase(phase, std::chrono::milliseconds(seconds * 1000 / phases), totals);
  require_open_fds(before);
  const auto shown = [](const std::atomic<uint64_t>& number) { return static_cast<unsigned long long>(number.load()); };
  printf("stress: %llu handshakes, %llu echoes, %llu established, %llu closed, %llu failed, %llu answers, %llu reauthenticated\n", shown(totals.handshakes), shown(totals.echoes),
         shown(totals.established), shown(totals.closed), shown(totals.failed), shown(totals.answers), shown(totals.reauthenticated));
  // Each kind of thing did happen, or nothing was stressed.
  REQUIRE(totals.echoes > 0 && totals.closed > 0 && totals.failed > 0 && totals.answers > 0 && totals.reauthenticated > 0, "too little happened");
  return 0;
}
