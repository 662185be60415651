// The data plane as its owner sees it: workers, listeners, sessions by number. Called from one thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "worker.hh"

namespace tlspool {

// Why a call was refused; empty code: it was not.
struct Refusal {
  const char* code = nullptr;
  std::string text;
  std::string field;
  explicit operator bool() const { return code != nullptr; }
};

class Engine {
 public:
  Engine(Options options, EventSink& sink);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  Refusal start();
  void stop();

  // The descriptor is taken only when there is no refusal.
  Refusal listen(int fd, SelectorRef selector, std::shared_ptr<const Negotiation> negotiation, ListenerId& id);
  bool set_selector(ListenerId id, SelectorRef selector);
  bool pause_listener(ListenerId id, bool paused);
  void unlisten(ListenerId id);
  Refusal start_tls(int cryptfd, int plainfd, SessionStart start, SessionId& id);

  void decide(SessionId id, SelectorRef selector, UniqueFd plainfd, std::optional<std::string> alpn = {});
  void decide_identity(SessionId id, ContextRef context, UniqueFd plainfd);
  void supply(SessionId id, UniqueFd plainfd);  // none: a socket pair
  void refuse_plain(SessionId id);
  void close(SessionId id, CloseRequest request);
  void exporter(SessionId id, uint32_t request, std::string label, std::optional<std::string> context, size_t length);
  void bindings(SessionId id, uint32_t request);
  void reauthenticate(SessionId id, uint32_t request, ReauthTerms terms);
  const Stats& stats() const { return shared_.stats; }

 private:
  // Runs on the session's worker; `missing` when the session is gone.
  void on_session(SessionId id, std::function<void(Session&)> task, std::function<void(Worker&)> missing);

  Shared shared_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::unordered_map<ListenerId, std::shared_ptr<Listener>> listeners_;
  ListenerId next_listener_ = 1;
  size_t next_worker_ = 0;
};

}  // namespace tlspool
