// An engine in this process, as the fuzzers and the stress driver use it: certificates made at the start, events collected,
// and a barrier in place of sleeping.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine.hh"

namespace rig {

using tlspool::UniqueFd;

// A broken promise ends the process: the fuzzer keeps the input, the tests see the text.
[[noreturn]] void finding(const char* file, int line, const std::string& text);
#define REQUIRE(condition, text) ((condition) ? void(0) : rig::finding(__FILE__, __LINE__, (text)))

struct Credentials {
  std::string ca;
  tlspool::KeyPair ecdsa, rsa, client, stranger;  // `stranger` was issued by nobody that is trusted
};

// Made once per process.
const Credentials& credentials();

struct ContextOptions {
  std::string localid = "server";
  bool rsa_too = true;
  bool hello_retry = false;  // knows P-256 only, so that a client that guessed X25519 gets a HelloRetryRequest
  tlspool::ClientAuth client_auth = tlspool::ClientAuth::none;
  uint32_t revision = 1;
  int extra_certificates = 0;  // sent behind the leaf, to make a long flight
};
tlspool::ContextRef make_context(const ContextOptions& options);
// The engine's side of outgoing sessions: trusts the CA, holds the client's certificate.
tlspool::ContextRef make_client_context();
// Serves server.test, *.wild.test and clients that name nobody.
tlspool::SelectorRef make_selector(const tlspool::ContextRef& context);

// Keeps the events of all workers until they are taken.
class Collector : public tlspool::EventSink {
 public:
  void post(std::vector<tlspool::Event>& batch) override;
  // Waits for the answer to `request`; a finding when none comes in 30 seconds.
  void await_answer(uint32_t request);
  std::vector<tlspool::Event> take();

 private:
  std::mutex mutex_;
  std::condition_variable posted_;
  std::vector<tlspool::Event> events_;
  uint32_t answered_ = 0;
};

// For tests: lingering sessions end soon.
tlspool::Options soon_over();

class Rig {
 public:
  explicit Rig(const tlspool::Options& options);
  ~Rig();

  // Returns when each worker has done a round that began after this call: what could be done by then is done and reported.
  void barrier();
  // Everything reported since the last call, in order; answers to barrier() left out.
  std::vector<tlspool::Event> events();
  // The sockets of all sessions are closed by now: they end without waiting for any deadline.
  void await_idle();
  // Requests of barrier() are odd, so a caller's own requests are even.
  uint32_t next_request() { return requests_ += 2; }

  tlspool::Engine& engine() { return engine_; }

 private:
  Collector sink_;
  tlspool::Engine engine_;
  const unsigned workers_;
  uint32_t barriers_ = 1, requests_ = 0;
};

// Both ends non-blocking and CLOEXEC. `send_octets`: SO_SNDBUF of both, 0 for the kernel's own.
void socket_pair(UniqueFd& ours, UniqueFd& theirs, int send_octets = 0);
UniqueFd duplicate(int fd);
size_t open_fds();
// Soon: what was passed to the engine is closed by another thread.
void require_open_fds(size_t expected);

}  // namespace rig
