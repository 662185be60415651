// libFuzzer: a handshake under every setting, with octets of the fuzzer as the peer, or with a live peer whose octets are changed
// on their way. A session ends with `established` or `failed`, exactly once; each `established` has one `closed`; no octets of
// the fuzzer's own make an established session; a live handshake that nobody disturbed ends as expected(); no descriptor stays.
#include <sys/socket.h>
#include <cstdio>
#include <map>

#include "input.hh"
#include "peer.hh"

namespace {

using namespace rig;
using tlspool::ClientAuth;

constexpr int most_rounds = 400;  // a silent live handshake over a tiny send buffer needs about 100

enum class Decision : uint8_t { serve, serve_with_plain_side, refuse, close_instead };
constexpr const char* names[] = {"", "server.test", "a.wild.test", "unknown.test"};
const std::string h2("\x02h2", 3), http11("\x08http/1.1", 9);

struct Plan {
  bool live, server, ask, hello_retry, tiny_buffer, keep_copy, plain_passed, reject;
  ClientAuth floor, raised;
  bool certificate, stranger;
  std::string ours, offered;  // ALPN
  const char* name;
  Decision decision;
  int version;
};

Plan read_plan(Script& script) {
  const uint8_t a = script.octet(), b = script.octet(), c = script.octet();
  Plan plan{};
  plan.live = script.flag(a, 0);
  plan.server = !script.flag(a, 1);
  plan.ask = plan.server && script.flag(a, 2);
  plan.hello_retry = plan.server && script.flag(a, 3);
  plan.tiny_buffer = script.flag(a, 4);
  plan.keep_copy = script.flag(a, 5);
  plan.plain_passed = script.flag(a, 6);
  plan.reject = !script.flag(a, 7);
  plan.floor = static_cast<ClientAuth>((b & 3) % 3);
  plan.raised = static_cast<ClientAuth>((b >> 2 & 3) % 3);
  plan.certificate = script.flag(b, 4);
  plan.stranger = script.flag(b, 5);
  plan.ours = script.flag(b, 6) ? h2 : "";
  plan.offered = script.flag(b, 7) ? (script.flag(c, 0) ? h2 : http11) : "";
  plan.name = names[c >> 1 & 3];
  // The addon refuses to begin such a client.
  if (!plan.server && plan.reject && plan.name == names[0]) plan.name = names[1];
  plan.decision = static_cast<Decision>(c >> 3 & 3);
  plan.version = script.flag(c, 5) ? (script.flag(c, 6) ? TLS1_2_VERSION : TLS1_3_VERSION) : 0;
  return plan;
}

// What a live, undisturbed handshake comes to. The table of promises, written without a look at the engine.
bool expected(const Plan& plan) {
  // As a client the engine verifies the name: the peer has a certificate for server.test and *.wild.test.
  if (!plan.server) return plan.name == names[1] || plan.name == names[2] || !plan.reject;
  if (plan.name == names[3]) return false;
  if (plan.ask && (plan.decision == Decision::refuse || plan.decision == Decision::close_instead)) return false;
  if (!plan.ours.empty() && !plan.offered.empty() && plan.ours != plan.offered) return false;
  const ClientAuth mode = std::max(plan.floor, plan.raised);
  if (mode == ClientAuth::none) return true;
  if (!plan.certificate) return mode == ClientAuth::request;
  return !plan.stranger || (!plan.reject && plan.floor != ClientAuth::require);
}

tlspool::SelectorRef selector_of(const Plan& plan) {
  static std::map<std::pair<bool, ClientAuth>, tlspool::SelectorRef> known;
  tlspool::SelectorRef& selector = known[{plan.hello_retry, plan.floor}];
  if (!selector) {
    ContextOptions options;
    options.hello_retry = plan.hello_retry;
    options.client_auth = plan.floor;
    selector = make_selector(make_context(options));
  }
  return selector;
}

// Never destroyed: a fuzzer may end at any moment, and its threads are still at work then.
Rig& rig_of_process() {
  static Rig& made = *new Rig([] {
    tlspool::Options options;
    options.linger_ms = 60'000;  // no deadline may be what ends a session
    options.handshake_ms = 60'000;
    return options;
  }());
  return made;
}

// One session from its start to its end, and what was reported about it.
class Run {
 public:
  explicit Run(Plan plan) : plan_(std::move(plan)), rig_(rig_of_process()) { start(); }

  void raw(Script& script) {
    while (!script.empty()) {
      const size_t length = script.octet();
      const std::string octets = script.text(length == 255 ? script.word() : length);
      if (send(ours_.get(), octets.data(), octets.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) break;
      step();
    }
    for (char rest[4096]; recv(ours_.get(), rest, sizeof rest, MSG_DONTWAIT) > 0;) {}
  }

  // Returns whether nothing was changed on the way.
  bool live(Script& script) {
    PeerOptions options;
    options.server = !plan_.server;
    options.version = plan_.version;
    options.certificate = plan_.certificate;
    options.stranger = plan_.stranger;
    options.alpn = plan_.offered;
    if (plan_.server) options.servername = plan_.name;
    Peer peer(std::move(ours_), options);
    bool changed = false;
    int idle = 0;
    for (int round = 0; idle < 4; ++round) {
      REQUIRE(round < most_rounds, "a handshake does not come to an end");
      peer.handshake();
      std::string flight = peer.take_output();
      if (!flight.empty()) changed = change(flight, script) || changed;
      peer.send_raw(flight);
      const bool sent = peer.flush(), got = peer.fetch(plan_.tiny_buffer ? 700 : 65536);
      step();
      idle = sent || got || !flight.empty() ? 0 : idle + 1;
    }
    ours_ = peer.take_fd();
    return !changed;
  }

  void finish(bool exact) {
    const size_t established = established_;
    if (plan_.keep_copy && established_ > 0) rig_.engine().close(id_, tlspool::CloseRequest::abort);
    ours_.reset();
    plain_.reset();
    application_.reset();
    // A decision that did not come ends the session, too.
    rig_.engine().close(id_, tlspool::CloseRequest::orderly);
    rig_.await_idle();
    // The copy outlives the session: nothing may lead from it to freed memory.
    if (kept_) shutdown(kept_.get(), SHUT_RDWR);
    if (kept_) rig_.barrier();
    kept_.reset();
    step();
    REQUIRE(established_ + failed_ == 1, "established " + std::to_string(established_) + " times, failed " + std::to_string(failed_) + " times");
    REQUIRE(closed_ == established_, "established " + std::to_string(established_) + " times, closed " + std::to_string(closed_) + " times");
    REQUIRE(established == established_, "established although its peer had gone");
    if (!plan_.live) REQUIRE(established_ == 0, "octets of nobody who knows a key made an established session");
    if (plan_.live && exact) REQUIRE(expected(plan_) == (established_ == 1), "established: " + std::to_string(established_) + ", where " + (expected(plan_) ? "a session" : "a refusal") + " was due; " + reason_);
  }

 private:
  void start() {
    UniqueFd theirs, passed;
    socket_pair(ours_, theirs, plan_.tiny_buffer ? 1 : 0);
    if (plan_.plain_passed) socket_pair(plain_, passed);
    if (plan_.keep_copy) kept_ = duplicate(theirs.get());
    tlspool::Negotiation negotiation;
    negotiation.alpn = plan_.server ? plan_.ours : "";
    negotiation.ask = plan_.ask;
    negotiation.reject_unauthorized = plan_.reject;
    if (plan_.raised != ClientAuth::none) negotiation.client_auth = plan_.raised;
    tlspool::SessionStart session;
    session.server = plan_.server;
    session.negotiation = std::make_shared<const tlspool::Negotiation>(std::move(negotiation));
    if (plan_.server) {
      session.selector = selector_of(plan_);
    } else {
      static const tlspool::ContextRef context = make_client_context();
      session.context = context;
      session.remoteid = plan_.name;
      session.servername = plan_.name;
    }
    const tlspool::Refusal refusal = rig_.engine().start_tls(theirs.get(), passed.get(), std::move(session), id_);
    REQUIRE(!refusal, "the session is refused: " + refusal.text);
    theirs.release();
    passed.release();
    rig_.barrier();
  }

  void step() {
    rig_.barrier();
    for (tlspool::Event& event : rig_.events()) std::visit([this](auto& one) { on(one); }, event);
  }

  void on(tlspool::HelloEvent& event) {
    REQUIRE(plan_.ask && event.session == id_, "nobody asked to be asked");
    REQUIRE(++asked_ == 1, "the owner is asked twice");
    if (plan_.live && unchanged_) REQUIRE(event.servername == plan_.name, "asked about another name: " + event.servername);
    asked_about_ = event.servername;
    UniqueFd passed;
    switch (plan_.decision) {
      case Decision::close_instead:
        return rig_.engine().close(id_, tlspool::CloseRequest::orderly);
      case Decision::refuse:
        return rig_.engine().decide(id_, nullptr, {});
      case Decision::serve_with_plain_side:
        socket_pair(application_, passed);
        break;
      case Decision::serve:
        break;
    }
    rig_.engine().decide(id_, selector_of(plan_), std::move(passed));
  }
  void on(tlspool::EstablishedEvent& event) {
    ++established_;
    REQUIRE(event.session == id_ && event.server == plan_.server, "another session");
    const bool has_plain_side = plan_.plain_passed || (plan_.ask && plan_.decision == Decision::serve_with_plain_side);
    REQUIRE(static_cast<bool>(event.plainfd) != has_plain_side, "the plain side is missing, or there are two");
    if (plan_.server) {
      REQUIRE(!plan_.ask || event.servername == asked_about_, "asked about " + asked_about_ + ", serves " + event.servername);
      // Changed octets of a ClientHello never get this far: Finished covers them.
      REQUIRE(event.servername == plan_.name, "another name: " + event.servername);
      REQUIRE(event.alpn == (plan_.ours.empty() || plan_.offered.empty() ? "" : plan_.ours.substr(1)), "another application protocol: " + event.alpn);
      const bool asked_for_certificate = std::max(plan_.floor, plan_.raised) != ClientAuth::none;
      REQUIRE(event.peer.authorized == (asked_for_certificate && plan_.certificate && !plan_.stranger), "authorized is wrong");
    }
    if (plan_.version != 0) REQUIRE(event.tls13 == (plan_.version == TLS1_3_VERSION), "another version");
  }
  void on(tlspool::FailedEvent& event) {
    ++failed_;
    reason_ = std::string(event.code) + ": " + event.text;
  }
  void on(tlspool::ClosedEvent&) { ++closed_; }
  template <typename Other>
  void on(Other&) {
    REQUIRE(false, "an event that nobody asked for");
  }

  // A script octet per flight: mostly nothing; else one octet is flipped, or the flight is cut or gets something added.
  bool change(std::string& flight, Script& script) {
    const uint8_t how = script.octet();
    if (how < 160) return false;
    const size_t at = script.word() % flight.size();
    if (how < 220) flight[at] = static_cast<char>(flight[at] ^ (script.octet() | 1));
    else if (how < 240) flight.erase(at);
    else flight.insert(at, script.text(1 + script.octet()) + '\0');
    unchanged_ = false;
    return true;
  }

  const Plan plan_;
  Rig& rig_;
  UniqueFd ours_, plain_, kept_, application_;
  tlspool::SessionId id_ = 0;
  size_t asked_ = 0, established_ = 0, failed_ = 0, closed_ = 0;
  std::string asked_about_, reason_;
  bool unchanged_ = true;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  rig_of_process();
  Script script(data, size);
  const Plan plan = read_plan(script);
  const size_t before = open_fds();
  {
    Run run(plan);
    bool exact = false;
    if (plan.live) exact = run.live(script);
    else run.raw(script);
    run.finish(exact);
  }
  require_open_fds(before);
  return 0;
}
