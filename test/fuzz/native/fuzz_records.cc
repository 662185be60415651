// libFuzzer: after a true handshake, a script of writes, records, alerts, ends and partial reads on both sides.
//
// What arrives is a prefix of what was sent. Whoever sees the end of the stream has got all of it, and the other end said
// close_notify. What nobody disturbed arrives to its end, without waiting for a deadline. Exporter and bindings are the peer's.
// Each session is reported closed once, and the way in which it closed is one that the script explains. No descriptor stays.
#include <sys/socket.h>
#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "input.hh"
#include "peer.hh"

namespace {

using namespace rig;
using tlspool::ClosedHow;

constexpr size_t most_octets = 1U << 20;  // each way
constexpr int quiet_rounds = 6;           // without any progress: nothing more will come
constexpr std::string_view label = "EXPERIMENTAL-fuzz";

struct Setting {
  bool tls12, server, tiny_buffer, plain_passed, packets, keep_copies, few_key_updates;
  explicit Setting(uint8_t octet)
      : tls12((octet & 1) != 0), server((octet & 2) == 0), tiny_buffer((octet & 4) != 0), plain_passed((octet & 8) != 0),
        packets((octet & 24) == 24), keep_copies((octet & 32) != 0), few_key_updates((octet & 64) != 0) {}
};

// Never destroyed: a fuzzer may end at any moment, and its threads are still at work then.
Rig& rig_of_process(bool few_key_updates) {
  const auto make = [](uint32_t records) {
    tlspool::Options options;
    options.linger_ms = options.stalled_ms = options.handshake_ms = 60'000;  // no deadline may be what ends a session
    options.key_update_records = records;
    return new Rig(options);
  };
  static Rig& often = *make(5);
  static Rig& seldom = *make(1U << 24);
  return few_key_updates ? seldom : often;
}

// Each octet of a stream tells its place, so that nothing can be lost, repeated or swapped unnoticed.
std::string octets_from(size_t place, size_t length) {
  std::string octets(length, '\0');
  for (size_t i = 0; i < length; ++i) octets[i] = static_cast<char>(((place + i) * 31) ^ ((place + i) >> 8));
  return octets;
}

class Run {
 public:
  explicit Run(const Setting& setting) : setting_(setting), rig_(rig_of_process(setting.few_key_updates)) {
    start();
    for (int i = 0; established_ == 0; ++i) {
      REQUIRE(i < 400, "an undisturbed handshake does not end");
      peer_->fetch();
      REQUIRE(peer_->handshake() != Peer::Handshake::failed, "an undisturbed handshake fails");
      exchange();
    }
  }

  void step(Script& script) {
    static constexpr size_t scales[] = {1, 1, 16, 257};
    const uint8_t what = script.octet();
    const size_t small = script.octet(), amount = small * scales[what / operations & 3];
    operate(what % operations, amount, script);
    if ((small & 1) != 0) exchange();
  }

  void end() {
    settle();
    judge();
    const size_t reported = closed_.size();
    peer_->close();
    app_.reset();
    rig_.await_idle();
    exchange();
    REQUIRE(closed_.size() == 1 && reported <= 1, "the session was reported closed " + std::to_string(closed_.size()) + " times");
    judge_how(closed_[0]);
    REQUIRE(expected_.empty() && asked_.empty(), "a request was not answered");
    // A copy outlives the session: nothing may lead from it to freed memory.
    closed_.clear();
    for (UniqueFd* kept : {&kept_crypt_, &kept_plain_})
      if (*kept) shutdown(kept->get(), SHUT_RDWR);
    if (kept_crypt_) rig_.barrier();
  }

 private:
  static constexpr uint8_t operations = 21;

  void start() {
    UniqueFd ours, theirs, passed;
    socket_pair(ours, theirs, setting_.tiny_buffer ? 1 : 0);
    if (setting_.packets) {
      int pair[2] = {-1, -1};
      REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "no socket pair");
      app_.reset(pair[0]);
      passed.reset(pair[1]);
    } else if (setting_.plain_passed) {
      socket_pair(app_, passed, setting_.tiny_buffer ? 1 : 0);
    }
    if (setting_.keep_copies) {
      kept_crypt_ = duplicate(theirs.get());
      if (passed) kept_plain_ = duplicate(passed.get());
    }
    tlspool::SessionStart session;
    session.server = setting_.server;
    session.negotiation = std::make_shared<const tlspool::Negotiation>();
    if (setting_.server) {
      static const tlspool::SelectorRef selector = make_selector(make_context({}));
      session.selector = selector;
    } else {
      static const tlspool::ContextRef context = make_client_context();
      session.context = context;
      session.remoteid = "server.test";
    }
    const tlspool::Refusal refusal = rig_.engine().start_tls(theirs.get(), passed.get(), std::move(session), id_);
    REQUIRE(!refusal, "the session is refused: " + refusal.text);
    theirs.release();
    passed.release();
    PeerOptions options;
    options.server = !setting_.server;
    options.version = setting_.tls12 ? TLS1_2_VERSION : TLS1_3_VERSION;
    peer_.emplace(std::move(ours), options);
    SSL_set_post_handshake_auth(peer_->ssl(), 1);
  }

  void operate(uint8_t what, size_t amount, Script& script) {
    switch (what) {
      case 0: return peer_writes(amount);
      case 1: return app_writes(amount);
      case 2: return spoil(script.text(amount));
      case 3: return spoil(std::string("\x17\x03\x03\x00\x30", 5) + octets_from(amount, 48));
      case 4: return key_update((amount & 2) != 0);
      case 5: return peer_says_close();
      case 6: return peer_ends();
      case 7: return owner_closes(static_cast<tlspool::CloseRequest>(amount >> 1 & 3));
      case 8: return app_reads(amount);
      case 9: return peer_reads(amount);
      case 10: return ask_exporter(1 + amount % 64);
      case 11: return app_says_end();
      case 12: return app_leaves();
      case 13: return exchange();
      case 14: return corrupt(amount, false);
      case 15: return corrupt(amount, true);
      case 16: return ask_bindings();
      case 17: return renegotiate();
      case 18: return peer_alerts();
      case 19: return ask_for_certificate();
      default: return peer_writes(amount * 64);
    }
  }

  void peer_writes(size_t amount) {
    amount = std::min(amount, most_octets - to_app_.size());
    const std::string octets = octets_from(to_app_.size(), amount);
    if (!peer_said_close_ && !peer_ended_ && !octets.empty() && peer_->write(octets)) to_app_ += octets;
  }
  void app_writes(size_t amount) {
    amount = std::min(amount, most_octets - to_peer_.size());
    if (!app_ || app_said_end_) return;
    const std::string octets = octets_from(to_peer_.size(), amount);
    const ssize_t sent = send(app_.get(), octets.data(), octets.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) to_peer_.append(octets, 0, static_cast<size_t>(sent));
  }
  void spoil(const std::string& octets) {
    if (octets.empty()) return;
    spoiled_ = true;
    put_output();
    peer_->send_raw(octets);
  }
  // Changes, or cuts off, octets of genuine records.
  void corrupt(size_t at, bool cut) {
    std::string octets = peer_->take_output();
    if (octets.empty()) return;
    spoiled_ = true;
    at %= octets.size();
    if (cut) octets.erase(at, 1 + at % 40);
    else octets[at] = static_cast<char>(octets[at] ^ 0x20);
    peer_->send_raw(octets);
  }
  void key_update(bool requested) {
    if (setting_.tls12 || peer_said_close_) return;
    if (SSL_key_update(peer_->ssl(), requested ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED) == 1) SSL_do_handshake(peer_->ssl());
    ERR_clear_error();
  }
  void peer_says_close() {
    if (peer_ended_) return;
    // Refused after a fatal alert, or while a renegotiation is on its way.
    if (SSL_shutdown(peer_->ssl()) >= 0) peer_said_close_ = true;
    ERR_clear_error();
  }
  void peer_ends() {
    put_output();
    peer_->flush();
    cut_ = cut_ || !peer_->idle();
    peer_ended_ = true;
    shutdown(peer_->fd(), SHUT_WR);
  }
  void owner_closes(tlspool::CloseRequest request) {
    exchange();  // what was written before is before
    if (!owner_closed_) written_before_close_ = to_peer_.size();
    aborted_ = aborted_ || request != tlspool::CloseRequest::orderly;
    owner_closed_ = true;
    rig_.engine().close(id_, request);
  }
  void app_reads(size_t amount) {
    while (app_ && amount > 0 && !app_saw_end_) {
      std::string buffer(setting_.packets ? 65536 : std::min<size_t>(amount, 65536), '\0');
      const ssize_t n = recv(app_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (n == 0) return app_sees_end();
      if (n < 0) return;
      at_app_.append(buffer, 0, static_cast<size_t>(n));
      moved_ = true;
      amount -= std::min(amount, static_cast<size_t>(n));
      REQUIRE(to_app_.compare(0, at_app_.size(), at_app_) == 0, "the application got octets that the peer did not send");
    }
  }
  // The descriptor of a closed event is kept here, so that only the engine can have ended this stream (promise 5).
  void app_sees_end() {
    app_saw_end_ = true;
    if (owner_closed_) return;
    REQUIRE(peer_said_close_, "an end of the stream that the peer did not declare");
    REQUIRE(at_app_ == to_app_, "an end of the stream after " + std::to_string(at_app_.size()) + " of " + std::to_string(to_app_.size()) + " octets");
  }
  void peer_reads(size_t amount) {
    if (peer_->fetch(amount)) moved_ = true;
    peer_->read();
    const std::string& got = peer_->received();
    REQUIRE(to_peer_.compare(0, got.size(), got) == 0, "the peer got octets that the application did not send");
    if (!peer_->saw_close_notify()) return;
    REQUIRE(app_said_end_ || owner_closed_, "a close_notify that the application did not ask for");
    const size_t due = owner_closed_ ? (aborted_ ? 0 : written_before_close_) : to_peer_.size();
    REQUIRE(got.size() >= due, "close_notify after " + std::to_string(got.size()) + " of " + std::to_string(due) + " octets");
  }
  void app_says_end() {
    if (!app_) return;
    shutdown(app_.get(), SHUT_WR);
    app_said_end_ = true;
  }
  void app_leaves() {
    app_.reset();
    app_said_end_ = app_left_ = true;
  }
  void ask_exporter(size_t length) {
    std::string octets(length, '\0');
    const int made = SSL_export_keying_material(peer_->ssl(), reinterpret_cast<unsigned char*>(octets.data()), length, label.data(), label.size(), nullptr, 0, 0);
    const uint32_t request = rig_.next_request();
    // A peer that renegotiates, or has failed, cannot say.
    expected_[request] = made == 1 && !spoiled_ ? std::optional(octets) : std::nullopt;
    rig_.engine().exporter(id_, request, std::string(label), std::nullopt, length);
  }
  void ask_bindings() {
    const uint32_t request = rig_.next_request();
    std::string finished(64, '\0');
    if (setting_.tls12) {
      // The client's Finished is the first one of a full handshake.
      finished.resize(setting_.server ? SSL_get_finished(peer_->ssl(), finished.data(), finished.size()) : SSL_get_peer_finished(peer_->ssl(), finished.data(), finished.size()));
    }
    expected_[request] = setting_.tls12 && !spoiled_ ? std::optional(finished) : std::nullopt;
    rig_.engine().bindings(id_, request);
  }
  void renegotiate() {
    if (!setting_.tls12 || peer_said_close_) return;
    spoiled_ = true;
    if (SSL_renegotiate(peer_->ssl()) == 1) SSL_do_handshake(peer_->ssl());
    ERR_clear_error();
  }
  // The peer has none. On TLS 1.3 that disturbs nothing; on TLS 1.2 a peer that writes meanwhile is lost, by its own OpenSSL.
  void ask_for_certificate() {
    const uint32_t request = rig_.next_request();
    if (setting_.tls12) spoiled_ = true;
    asked_.insert(request);
    rig_.engine().reauthenticate(id_, request, {false, nullptr, 0});
  }
  // The peer's OpenSSL is made to see garbage, and so to send a fatal alert, encrypted as it must be.
  void peer_alerts() {
    spoiled_ = true;
    peer_->feed(std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, 'x'));
    peer_->read();
  }

  void put_output() {
    const std::string output = peer_->take_output();
    if (!output.empty()) peer_->send_raw(output);
  }
  // Moves what the peer wants to send, and looks at what is reported.
  void exchange() {
    put_output();
    if (peer_->flush()) moved_ = true;
    rig_.barrier();
    for (tlspool::Event& event : rig_.events()) std::visit([this](auto& one) { on(one); }, event);
  }
  void on(tlspool::EstablishedEvent& event) {
    REQUIRE(++established_ == 1, "established twice");
    REQUIRE(static_cast<bool>(event.plainfd) != setting_.plain_passed && !(setting_.packets && event.plainfd), "the plain side is missing, or there are two");
    if (event.plainfd) app_ = std::move(event.plainfd);
  }
  void on(tlspool::ClosedEvent& event) {
    moved_ = true;
    closed_.push_back(std::move(event));
  }
  void on(tlspool::OctetsAnswer& answer) {
    const std::optional<std::string> expected = take(answer.request);
    REQUIRE(!expected || answer.octets == *expected, "the exporter's octets are not the peer's");
  }
  void on(tlspool::BindingsAnswer& answer) {
    const std::optional<std::string> expected = take(answer.request);
    REQUIRE(!expected || answer.tls_unique == expected, "tls-unique is not the peer's");
    REQUIRE(answer.tls_exporter && answer.tls_server_end_point, "a channel binding is missing");
  }
  void on(tlspool::ReauthenticatedEvent& event) {
    moved_ = true;
    REQUIRE(asked_.erase(event.request) == 1, "a reauthentication that nobody asked for, or a second answer");
    REQUIRE(event.outcome == tlspool::ReauthOutcome::refused && !event.peer.authorized, "the peer has no certificate, and is taken for somebody");
  }
  void on(tlspool::ErrorAnswer& answer) {
    if (asked_.erase(answer.request) == 1) return;
    take(answer.request);
    // A peer's renegotiation, which is marked as spoiled, may be under way.
    REQUIRE(!closed_.empty() || (setting_.tls12 && spoiled_), "a request to an open session is refused: " + answer.text);
  }
  template <typename Other>
  void on(Other&) {
    REQUIRE(false, "an event that cannot be");
  }
  std::optional<std::string> take(uint32_t request) {
    const auto found = expected_.find(request);
    REQUIRE(found != expected_.end(), "an answer that nobody asked for, or a second one");
    const std::optional<std::string> expected = found->second;
    expected_.erase(found);
    return expected;
  }

  // Everything that can move moves.
  void settle() {
    for (int quiet = 0; quiet < quiet_rounds; quiet = moved_ ? 0 : quiet + 1) {
      moved_ = false;
      peer_reads(65536);
      app_reads(most_octets);
      exchange();
    }
  }

  void judge() {
    const bool disturbed = spoiled_ || owner_closed_ || cut_;
    if (!disturbed && !app_left_)
      REQUIRE(at_app_ == to_app_, "the application has " + std::to_string(at_app_.size()) + " of " + std::to_string(to_app_.size()) + " octets, and nothing moves any more");
    if (disturbed || app_left_) return;
    if (!peer_ended_ || peer_said_close_)
      REQUIRE(peer_->received() == to_peer_, "the peer has " + std::to_string(peer_->received().size()) + " of " + std::to_string(to_peer_.size()) + " octets, and nothing moves any more");
    const bool peer_truncated = peer_ended_ && !peer_said_close_;
    const bool over = peer_truncated || (peer_said_close_ && app_said_end_);
    REQUIRE(closed_.size() == (over ? 1U : 0U), over ? "a session that is over is not reported closed" : "a session that goes on is reported closed");
    if (over) REQUIRE(closed_[0].how == (peer_truncated ? ClosedHow::truncated : ClosedHow::closed), "closed in another way: " + describe(closed_[0]));
    if (peer_said_close_) REQUIRE(app_saw_end_, "the application does not see the end of the stream");
    if (app_said_end_ && !peer_truncated) REQUIRE(peer_->saw_close_notify(), "the peer does not see the end of the stream");
  }

  void judge_how(const tlspool::ClosedEvent& event) {
    const std::string text = describe(event);
    REQUIRE(event.received <= to_app_.size() && event.sent <= to_peer_.size(), "counts more octets than there were: " + text);
    switch (event.how) {
      case ClosedHow::closed:
        if (!owner_closed_ && !app_left_ && app_saw_end_) REQUIRE(peer_said_close_ && event.received == to_app_.size(), "an end that only looks complete: " + text);
        break;
      case ClosedHow::alert:
      case ClosedHow::error:
        REQUIRE(spoiled_, "nobody spoiled anything: " + text);
        break;
      case ClosedHow::revoked:
      case ClosedHow::drained:
        REQUIRE(owner_closed_, "the owner did not ask for that: " + text);
        break;
      case ClosedHow::timeout:
        REQUIRE(false, "waited for a deadline: " + text);
        break;
      case ClosedHow::truncated:
      case ClosedHow::reset:
        break;  // end() closes both sides with no good-bye
    }
  }
  static std::string describe(const tlspool::ClosedEvent& event) {
    static constexpr const char* words[] = {"closed", "truncated", "reset", "alert", "error", "timeout", "revoked", "drained"};
    return std::string(words[static_cast<size_t>(event.how)]) + ", " + event.detail + ", received " + std::to_string(event.received) + ", sent " + std::to_string(event.sent);
  }

  const Setting setting_;
  Rig& rig_;
  tlspool::SessionId id_ = 0;
  std::optional<Peer> peer_;
  UniqueFd app_, kept_crypt_, kept_plain_;
  std::string to_app_, at_app_, to_peer_;
  std::vector<tlspool::ClosedEvent> closed_;
  std::map<uint32_t, std::optional<std::string>> expected_;  // what a request must be answered with; none: anything
  std::set<uint32_t> asked_;  // for a certificate
  size_t written_before_close_ = 0;
  int established_ = 0;
  bool moved_ = false, spoiled_ = false, cut_ = false, peer_said_close_ = false, peer_ended_ = false;
  bool app_said_end_ = false, app_left_ = false, app_saw_end_ = false, owner_closed_ = false, aborted_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Script script(data, std::min<size_t>(size, 1024));
  const Setting setting(script.octet());
  rig_of_process(true);
  const size_t before = open_fds();
  {
    Run run(setting);
    while (!script.empty()) run.step(script);
    run.end();
  }
  require_open_fds(before);
  return 0;
}
