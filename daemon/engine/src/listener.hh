// A listening socket that a client handed over. Shared by all workers; each watches it with its own epoll.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "events.hh"
#include "fd.hh"
#include "selector.hh"

namespace tlspool {

struct Negotiation;

class Listener {
 public:
  Listener(ListenerId id, UniqueFd fd, SelectorRef selector, std::shared_ptr<const Negotiation> negotiation);

  ListenerId id() const { return id_; }
  int fd() const { return fd_.get(); }
  // Address of accepted sockets; none when the listener is bound to a wildcard address.
  const Endpoint& local() const { return local_; }
  const std::shared_ptr<const Negotiation>& negotiation() const { return negotiation_; }
  SelectorRef selector() const;
  void set_selector(SelectorRef selector);

  std::atomic<bool> paused{false};
  std::atomic<bool> failed{false};  // reported once
  std::atomic<unsigned> waits{0};   // in accept(2), until it was interrupted

 private:
  const ListenerId id_;
  const UniqueFd fd_;
  const std::shared_ptr<const Negotiation> negotiation_;
  Endpoint local_;
  mutable std::mutex mutex_;
  SelectorRef selector_;
};

}  // namespace tlspool
