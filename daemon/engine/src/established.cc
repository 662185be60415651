// From a finished handshake to an open session: the plain side, and what the owner is told.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "handshake.hh"
#include "discard.h"
#include "session.hh"
#include "worker.hh"

namespace tlspool {
namespace {

// How long a session ticket may wait for data to travel with.
constexpr uint64_t ticket_wait_ms = 20;
constexpr uint64_t plain_again_ms = 100;

std::string system_text(const char* what, int error) { return std::string(what) + ": " + strerror(error); }

}  // namespace

void Session::establish() {
  UniqueFd application_end;
  std::string problem;
  park_input();
  if (negotiation_->ask_plain && !plain_supplied_ && !start_->plainfd) return ask_for_plain();
  if (start_->plainfd) {
    plain_ = std::move(start_->plainfd);
  } else if (negotiation_->backend) {
    return connect_backend();
  } else if (!make_plain_side(application_end, problem)) {
    return wait_for_descriptors(problem);
  }
  open_plain(std::move(application_end));
}

void Session::ask_for_plain() {
  phase_ = Phase::supplying;
  worker_.timers().set(timer_.node, worker_.now_ms(), start_->handshake_ms);
  EstablishedEvent event = describe({});
  event.waiting = true;
  worker_.emit(std::move(event));
  await_supply();
}

// What the peer sends stays in the kernel, which bounds it. It still has to get the end of our handshake, and it may leave.
void Session::await_supply() {
  if (!to_crypt_.empty()) flush_crypt();
  if (phase_ == Phase::supplying && peer_left()) fail("PEER_CLOSED", "the peer closed the connection before the session had its plain-text side");
}

// An end behind octets that nobody has read may be a half close with a request before it: the plain side will tell.
bool Session::peer_left() {
  if (crypt_gone_ && crypt_inet_) return true;
  if (!crypt_hup_ || !held_.empty()) return false;
  uint8_t octet = 0;
  const ssize_t n = recv(crypt_.get(), &octet, 1, MSG_PEEK | MSG_DONTWAIT);
  return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

void Session::supply(UniqueFd plainfd) {
  if (phase_ != Phase::supplying) return;
  // As after the owner's other decision, the handshake goes on: it is done, and leads to establish().
  phase_ = Phase::handshake;
  plain_supplied_ = true;
  start_->plainfd = std::move(plainfd);
  pump();
}

void Session::refuse_plain(const char* code, std::string text) {
  if (phase_ != Phase::supplying) return;
  SSL_shutdown(ssl_.get());
  fail(code, std::move(text));
}

// Out of descriptors: the peer is connected and authenticated, so it waits for some to be given back, as those in the
// kernel's queue do.
void Session::wait_for_descriptors(const std::string& problem) {
  worker_.rest_accepting();
  wait_and_try_again("SYSTEM", problem);
}

// For as long as a handshake may last.
void Session::wait_and_try_again(const char* code, const std::string& problem) {
  if (plain_wait_until_ms_ == 0) plain_wait_until_ms_ = worker_.now_ms() + start_->handshake_ms;
  if (worker_.now_ms() >= plain_wait_until_ms_) return fail(code, problem);
  worker_.timers().set(timer_.node, worker_.now_ms(), plain_again_ms);
}

bool Session::make_plain_side(UniqueFd& application_end, std::string& problem) {
  int pair[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
    problem = system_text("no socket pair for the plain-text side", errno);
    return false;
  }
  plain_.reset(pair[0], Origin::open);
  application_end.reset(pair[1]);
  return true;
}

void Session::connect_backend() {
  const sockaddr_storage& address = *negotiation_->backend;
  plain_.reset(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), address.ss_family == AF_UNIX ? Origin::open : Origin::made);
  if (!plain_) {
    const int error = errno;
    const std::string problem = system_text("no socket for the backend", error);
    return is_shortage(error) ? wait_for_descriptors(problem) : fail("BACKEND_FAILED", problem);
  }
  plain_backend_ = true;
  if (address.ss_family != AF_UNIX) {
    const int on = 1;
    setsockopt(plain_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  if (connect(plain_.get(), reinterpret_cast<const sockaddr*>(&address), negotiation_->backend_length) == 0) return open_plain({});
  if (errno == EAGAIN) {
    // The queue of a UNIX socket is full: its backend is busy. One on TCP would make us wait, and nothing tells when this one has room.
    const std::string problem = system_text("the backend accepts no connection in time", errno);
    plain_.reset();
    return wait_and_try_again("BACKEND_FAILED", problem);
  }
  if (errno != EINPROGRESS) return fail("BACKEND_FAILED", system_text("the backend cannot be connected", errno));
  phase_ = Phase::connecting;
  if (plain_wait_until_ms_ != 0) worker_.timers().set(timer_.node, worker_.now_ms(), plain_wait_until_ms_ - std::min(plain_wait_until_ms_, worker_.now_ms()));
  // TCP reports writability only after it was refused, so the watch can stay as it is from now on.
  plain_always_write_ = true;
  if (!worker_.watch(plain_.get(), this, false, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, false))
    fail("BACKEND_FAILED", "the backend's socket cannot be watched");
}

void Session::backend_connected() {
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(plain_.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error != 0) return fail("BACKEND_FAILED", system_text("the backend cannot be connected", error));
  open_plain({});
}

void Session::open_plain(UniqueFd application_end) {
  const bool watched = phase_ == Phase::connecting;
  const bool made_here = static_cast<bool>(application_end) || plain_backend_;
  if (!made_here && !set_nonblocking(plain_.get())) return fail("SYSTEM", "the plain-text side cannot be made non-blocking");
  if (!watched && !worker_.watch(plain_.get(), this, false, EPOLLIN | EPOLLRDHUP | EPOLLET, false))
    return fail("SYSTEM", "the plain-text side cannot be watched");
  plain_inet_ = made_here ? plain_backend_ && negotiation_->backend->ss_family != AF_UNIX : is_inet(plain_.get());
  plain_packets_ = !made_here && is_seqpacket(plain_.get());
  if (!plain_inet_) keep_in_line(plain_.get());
  phase_ = Phase::open;
  Event event = plain_supplied_ ? Event(SuppliedEvent{id_, std::move(application_end)}) : Event(describe(std::move(application_end)));
  if (server_ && SSL_session_reused(ssl_.get()) == 1) worker_.stats().handshakes_resumed.fetch_add(1, std::memory_order_relaxed);
  leave_handshake(true);
  worker_.timers().clear(timer_.node);
  if (!deferred_.empty()) worker_.timers().set(timer_.node, worker_.now_ms(), ticket_wait_ms);
  if (server_ && SSL_version(ssl_.get()) == TLS1_2_VERSION) servername_ = std::move(start_->servername);
  renegotiable_ = !server_ && can_renegotiate();
  start_.reset();
  selector_.reset();
  // An application waits for its descriptor; a backend waits for nobody.
  worker_.emit(std::move(event), plain_backend_ ? Urgency::later : Urgency::now);
}

EstablishedEvent Session::describe(UniqueFd application_end) {
  SSL* ssl = ssl_.get();
  EstablishedEvent event{};
  event.session = id_;
  event.listener = listener_;
  event.plainfd = std::move(application_end);
  event.server = server_;
  event.tls13 = SSL_version(ssl) == TLS1_3_VERSION;
  event.resumed = SSL_session_reused(ssl) == 1;
  const SSL_CIPHER* cipher = SSL_get_current_cipher(ssl);
  event.cipher = cipher == nullptr ? "" : SSL_CIPHER_standard_name(cipher);
  event.cipher_name = cipher == nullptr ? "" : SSL_CIPHER_get_name(cipher);
  const int group = static_cast<int>(SSL_get_negotiated_group(ssl));
  const char* group_name = group == 0 ? nullptr : SSL_group_to_name(ssl, group);
  if (group_name != nullptr) event.group = group_name;
  const unsigned char* alpn = nullptr;
  unsigned alpn_length = 0;
  SSL_get0_alpn_selected(ssl, &alpn, &alpn_length);
  if (alpn_length > 0) event.alpn.assign(reinterpret_cast<const char*>(alpn), alpn_length);
  event.servername = start_->servername;
  const Context& identity = shown_ ? *shown_ : *context_;
  event.localid = identity.localid();
  event.revision = identity.revision();
  event.local_certificate = identity.der_of(SSL_get_certificate(ssl));
  event.remote = start_->remote;
  event.local = start_->local.family == Endpoint::Family::none ? local_endpoint(crypt_.get()) : start_->local;
  event.peer = describe_peer();
  return event;
}

// In the middle of a renegotiation OpenSSL has the randoms of one session and the secret of another, or of none.
const char* Session::why_not_exported() const {
  if (phase_ != Phase::open && phase_ != Phase::supplying) return "the session is not established any more";
  if (SSL_version(ssl_.get()) == TLS1_2_VERSION && SSL_in_init(ssl_.get()) == 1) return "the session is being renegotiated; ask again when that is done";
  return nullptr;
}

void Session::answer_exporter(uint32_t request, const std::string& label, const std::optional<std::string>& context, size_t length) {
  if (const char* why = why_not_exported()) return worker_.emit(ErrorAnswer{request, "BAD_STATE", why});
  std::string octets(length, '\0');
  const auto* context_data = context ? reinterpret_cast<const unsigned char*>(context->data()) : nullptr;
  const int done = SSL_export_keying_material(ssl_.get(), reinterpret_cast<unsigned char*>(octets.data()), length, label.data(), label.size(),
                                              context_data, context ? context->size() : 0, context ? 1 : 0);
  if (done != 1) return worker_.emit(ErrorAnswer{request, "EXPORTER", "OpenSSL refuses the export: " + take_reason("unknown reason")});
  worker_.emit(OctetsAnswer{request, std::move(octets)});
}

void Session::answer_bindings(uint32_t request) {
  if (const char* why = why_not_exported()) return worker_.emit(ErrorAnswer{request, "BAD_STATE", why});
  SSL* ssl = ssl_.get();
  BindingsAnswer answer{request, {}, {}, {}};
  unsigned char octets[EVP_MAX_MD_SIZE];
  if (SSL_version(ssl) == TLS1_2_VERSION) {
    // tls-unique is the first Finished of the latest handshake: the client's, or the server's when resumed (RFC 5929 section 3.1).
    const bool ours = (SSL_session_reused(ssl) == 1) == server_;
    const size_t length = ours ? SSL_get_finished(ssl, octets, sizeof octets) : SSL_get_peer_finished(ssl, octets, sizeof octets);
    if (length > 0) answer.tls_unique.emplace(reinterpret_cast<char*>(octets), length);
  }
  const X509Ptr peer(server_ ? nullptr : SSL_get1_peer_certificate(ssl));
  const X509* server_certificate = server_ ? SSL_get_certificate(ssl) : peer.get();
  if (server_certificate != nullptr) {
    // RFC 5929 section 4.1: the hash of the certificate's signature, SHA-256 in place of MD5 and SHA-1.
    int digest_nid = NID_undef;
    const EVP_MD* digest = nullptr;
    if (OBJ_find_sigid_algs(X509_get_signature_nid(server_certificate), &digest_nid, nullptr) == 1 && digest_nid != NID_undef) {
      digest = digest_nid == NID_md5 || digest_nid == NID_sha1 ? EVP_sha256() : EVP_get_digestbynid(digest_nid);
    }
    unsigned length = 0;
    if (digest != nullptr && X509_digest(server_certificate, digest, octets, &length) == 1)
      answer.tls_server_end_point.emplace(reinterpret_cast<char*>(octets), length);
  }
  // RFC 9266 section 2; on TLS 1.2 only together with the extended master secret.
  static constexpr std::string_view label = "EXPORTER-Channel-Binding";
  const bool safe = SSL_version(ssl) == TLS1_3_VERSION || SSL_get_extms_support(ssl) == 1;
  if (safe && SSL_export_keying_material(ssl, octets, 32, label.data(), label.size(), octets, 0, 1) == 1)
    answer.tls_exporter.emplace(reinterpret_cast<char*>(octets), 32);
  ERR_clear_error();
  worker_.emit(std::move(answer));
}

}  // namespace tlspool
