#include "listener.hh"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "session.hh"

namespace tlspool {

Listener::Listener(ListenerId id, UniqueFd fd, SelectorRef selector, std::shared_ptr<const Negotiation> negotiation)
    : id_(id), fd_(std::move(fd)), negotiation_(std::move(negotiation)), selector_(std::move(selector)) {
  local_ = local_endpoint(fd_.get());
  if (local_.address == "0.0.0.0" || local_.address == "::") local_ = {};
  if (!is_inet(fd_.get())) return;
  // Accepted sockets inherit both: no system call per connection. Failure costs speed only.
  const int on = 1;
  setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd_.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

SelectorRef Listener::selector() const {
  const std::lock_guard lock(mutex_);
  return selector_;
}

void Listener::set_selector(SelectorRef selector) {
  const std::lock_guard lock(mutex_);
  selector_.swap(selector);  // the old table is freed outside the lock, with `selector`
}

}  // namespace tlspool
