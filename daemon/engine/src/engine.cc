#include "engine.hh"

namespace tlspool {

Engine::Engine(Options options, EventSink& sink) {
  shared_.options = options;
  shared_.sink = &sink;
}

Engine::~Engine() { stop(); }

Refusal Engine::start() {
  const std::vector<unsigned>& cpus = shared_.options.worker_cpus;
  for (unsigned i = 0; i < shared_.options.workers; ++i) {
    workers_.push_back(std::make_unique<Worker>(shared_, i));
    if (!workers_.back()->start()) {
      stop();
      return {"SYSTEM", "the kernel refuses an epoll descriptor or a thread for the engine", "workers"};
    }
    if (cpus.empty()) continue;
    if (const unsigned cpu = cpus[i % cpus.size()]; !workers_.back()->bind(cpu)) {
      stop();
      return {"SYSTEM", "processor " + std::to_string(cpu) + " is not one that this process may use", "workerCpus"};
    }
  }
  return {};
}

void Engine::stop() {
  for (const auto& worker : workers_) worker->stop();
  workers_.clear();
  listeners_.clear();
}

Refusal Engine::listen(int fd, SelectorRef selector, std::shared_ptr<const Negotiation> negotiation, ListenerId& id) {
  if (workers_.empty()) return {"BAD_STATE", "the engine is stopped", ""};
  if (std::string problem = refuse_socket(fd, SocketUse::listening_stream); !problem.empty()) return {"FD_KIND", problem, "listenfd"};
  if (!set_nonblocking(fd)) return {"SYSTEM", "the listening socket cannot be made non-blocking", "listenfd"};
  id = next_listener_++;
  auto listener = std::make_shared<Listener>(id, UniqueFd(fd, Origin::passed), std::move(selector), std::move(negotiation));
  listeners_.emplace(id, listener);
  for (const auto& worker : workers_) worker->post([listener](Worker& own) { own.add_listener(listener); });
  return {};
}

bool Engine::set_selector(ListenerId id, SelectorRef selector) {
  const auto found = listeners_.find(id);
  if (found == listeners_.end()) return false;
  found->second->set_selector(std::move(selector));
  return true;
}

bool Engine::pause_listener(ListenerId id, bool paused) {
  const auto found = listeners_.find(id);
  if (found == listeners_.end()) return false;
  found->second->paused.store(paused, std::memory_order_relaxed);
  // An empty task: the worker looks at its listeners after each round.
  for (const auto& worker : workers_) worker->post([](Worker&) {});
  return true;
}

void Engine::unlisten(ListenerId id) {
  if (listeners_.erase(id) == 0) return;
  for (const auto& worker : workers_) worker->post([id](Worker& own) { own.remove_listener(id); });
}

Refusal Engine::start_tls(int cryptfd, int plainfd, SessionStart start, SessionId& id) {
  if (workers_.empty()) return {"BAD_STATE", "the engine is stopped", ""};
  if (std::string problem = refuse_socket(cryptfd, SocketUse::connected_stream); !problem.empty()) return {"FD_KIND", problem, "cryptfd"};
  if (plainfd >= 0) {
    if (std::string problem = refuse_socket(plainfd, SocketUse::connected_plain); !problem.empty()) return {"FD_KIND", problem, "plainfd"};
    if (start.negotiation->ask_plain) return {"BAD_ARGUMENT", "there is a plainfd; a session has one plain-text side, so leave out askPlain", "askPlain"};
    if (plainfd == cryptfd) return {"FD_KIND", "both sides are the same descriptor", "plainfd"};
  }
  if (shared_.stats.sessions.load() >= shared_.options.sessions_max) return {"LIMIT_SESSIONS", "the pool holds as many sessions as it may", ""};
  if (shared_.stats.handshakes.load() >= shared_.options.handshakes_max)
    return {"LIMIT_HANDSHAKES", "the pool does as many handshakes as it may; try again", ""};
  if (!set_nonblocking(cryptfd)) return {"SYSTEM", "the socket cannot be made non-blocking", "cryptfd"};
  if (start.handshake_ms == 0) start.handshake_ms = shared_.options.handshake_ms;
  start.cryptfd.reset(cryptfd, Origin::passed);
  start.plainfd.reset(plainfd, Origin::passed);
  start.remote = remote_endpoint(cryptfd);
  shared_.stats.sessions.fetch_add(1);
  shared_.stats.handshakes.fetch_add(1);
  Worker& worker = *workers_[next_worker_++ % workers_.size()];
  id = worker.new_session_id();
  // std::function wants to copy; the start can only be moved.
  auto boxed = std::make_shared<SessionStart>(std::move(start));
  worker.post([id, boxed](Worker& own) { own.start_session(id, std::move(*boxed)); });
  return {};
}

void Engine::on_session(SessionId id, std::function<void(Session&)> task, std::function<void(Worker&)> missing) {
  if (workers_.empty()) return;
  // A number that was never given out: some worker has to say that it is not known.
  const unsigned index = Worker::index_of(id);
  workers_[index < workers_.size() ? index : 0]->post([id, task = std::move(task), missing = std::move(missing)](Worker& own) {
    Session* session = own.find(id);
    if (session != nullptr && !session->ended()) {
      task(*session);
    } else if (missing) {
      missing(own);
    }
  });
}

void Engine::decide(SessionId id, SelectorRef selector, UniqueFd plainfd, std::optional<std::string> alpn) {
  auto boxed = std::make_shared<UniqueFd>(std::move(plainfd));
  if (*boxed && !refuse_socket(boxed->get(), SocketUse::connected_plain).empty()) {
    boxed->reset();
    selector.reset();
  }
  on_session(id, [selector, boxed, alpn = std::move(alpn)](Session& session) { session.decide(selector, std::move(*boxed), alpn); }, {});
}

void Engine::decide_identity(SessionId id, ContextRef context, UniqueFd plainfd) {
  auto boxed = std::make_shared<UniqueFd>(std::move(plainfd));
  if (*boxed && !refuse_socket(boxed->get(), SocketUse::connected_plain).empty()) return decide(id, nullptr, {});
  on_session(id, [context = std::move(context), boxed](Session& session) { session.decide_identity(context, std::move(*boxed)); }, {});
}

void Engine::supply(SessionId id, UniqueFd plainfd) {
  std::string problem = plainfd ? refuse_socket(plainfd.get(), SocketUse::connected_plain) : "";
  if (!problem.empty()) return on_session(id, [problem](Session& session) { session.refuse_plain("FD_KIND", problem); }, {});
  auto boxed = std::make_shared<UniqueFd>(std::move(plainfd));
  on_session(id, [boxed](Session& session) { session.supply(std::move(*boxed)); }, {});
}

void Engine::refuse_plain(SessionId id) {
  on_session(id, [](Session& session) { session.refuse_plain("PLAINSIDE_REFUSED", "the client gave the session no plain-text side"); }, {});
}

void Engine::close(SessionId id, CloseRequest request) {
  on_session(id, [request](Session& session) { session.close(request); }, {});
}

void Engine::exporter(SessionId id, uint32_t request, std::string label, std::optional<std::string> context, size_t length) {
  on_session(
      id, [=](Session& session) { session.answer_exporter(request, label, context, length); },
      [request](Worker& own) { own.emit(ErrorAnswer{request, "CTLKEY_UNKNOWN", "the session has ended"}); });
}

void Engine::bindings(SessionId id, uint32_t request) {
  on_session(
      id, [=](Session& session) { session.answer_bindings(request); },
      [request](Worker& own) { own.emit(ErrorAnswer{request, "CTLKEY_UNKNOWN", "the session has ended"}); });
}

void Engine::reauthenticate(SessionId id, uint32_t request, ReauthTerms terms) {
  on_session(
      id, [request, terms = std::move(terms)](Session& session) { session.reauthenticate(request, terms); },
      [request](Worker& own) { own.emit(ErrorAnswer{request, "CTLKEY_UNKNOWN", "the session has ended"}); });
}

}  // namespace tlspool
