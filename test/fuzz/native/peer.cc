#include "peer.hh"

#include <openssl/pem.h>
#include <sys/socket.h>
#include <cerrno>

namespace rig {
namespace {

tlspool::BioPtr memory(const std::string& text) { return tlspool::BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

void use(SSL_CTX* ctx, const tlspool::KeyPair& pair) {
  const tlspool::X509Ptr certificate(PEM_read_bio_X509(memory(pair.chain).get(), nullptr, nullptr, nullptr));
  const tlspool::PkeyPtr key(PEM_read_bio_PrivateKey(memory(pair.key).get(), nullptr, nullptr, nullptr));
  REQUIRE(SSL_CTX_use_certificate(ctx, certificate.get()) == 1 && SSL_CTX_use_PrivateKey(ctx, key.get()) == 1, "the peer's certificate is refused");
}

// One per kind of peer and per thread that makes peers: a context costs more than a handshake.
SSL_CTX* context_of(const PeerOptions& options) {
  enum Kind { anonymous, certified, strange, serving, kinds };
  thread_local tlspool::SslCtxPtr known[kinds];
  const Kind kind = options.server ? serving : !options.certificate ? anonymous : options.stranger ? strange : certified;
  tlspool::SslCtxPtr& ctx = known[kind];
  if (ctx) return ctx.get();
  ctx.reset(SSL_CTX_new(TLS_method()));
  SSL_CTX_set_verify(ctx.get(), SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set1_groups_list(ctx.get(), "X25519:P-256");
  SSL_CTX_set_session_cache_mode(ctx.get(), SSL_SESS_CACHE_OFF);
  if (kind == serving) use(ctx.get(), credentials().ecdsa);
  if (kind == certified) use(ctx.get(), credentials().client);
  if (kind == strange) use(ctx.get(), credentials().stranger);
  return ctx.get();
}

}  // namespace

Peer::Peer(UniqueFd fd, const PeerOptions& options) : fd_(std::move(fd)), ssl_(SSL_new(context_of(options))) {
  in_ = BIO_new(BIO_s_mem());
  out_ = BIO_new(BIO_s_mem());
  BIO_set_mem_eof_return(in_, -1);  // empty means later, not end
  SSL_set_bio(ssl_.get(), in_, out_);
  options.server ? SSL_set_accept_state(ssl_.get()) : SSL_set_connect_state(ssl_.get());
  if (options.version != 0) {
    SSL_set_min_proto_version(ssl_.get(), options.version);
    SSL_set_max_proto_version(ssl_.get(), options.version);
  }
  if (!options.alpn.empty()) SSL_set_alpn_protos(ssl_.get(), reinterpret_cast<const unsigned char*>(options.alpn.data()), static_cast<unsigned>(options.alpn.size()));
  if (!options.servername.empty()) SSL_set_tlsext_host_name(ssl_.get(), options.servername.c_str());
}

Peer::Handshake Peer::handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  if (result == 1) return Handshake::done;
  return SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_READ ? Handshake::going_on : Handshake::failed;
}

std::string Peer::take_output() {
  std::string octets(BIO_ctrl_pending(out_), '\0');
  if (!octets.empty()) BIO_read(out_, octets.data(), static_cast<int>(octets.size()));
  return octets;
}

bool Peer::flush() {
  pending_ += take_output();
  if (pending_.empty() || !fd_) return false;
  const ssize_t n = send(fd_.get(), pending_.data(), pending_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0 && errno != EAGAIN && errno != EINTR) pending_.clear();  // nobody listens any more
  if (n <= 0) return false;
  pending_.erase(0, static_cast<size_t>(n));
  return true;
}

bool Peer::fetch(size_t most) {
  if (!fd_ || end_ || most == 0) return false;
  std::string buffer(most, '\0');
  const ssize_t n = recv(fd_.get(), buffer.data(), most, MSG_DONTWAIT);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) end_ = true;
  if (n <= 0) return false;
  BIO_write(in_, buffer.data(), static_cast<int>(n));
  return true;
}

void Peer::read() {
  char buffer[16384];
  while (!broken_ && !close_notify_) {
    size_t n = 0;
    ERR_clear_error();
    const int result = SSL_read_ex(ssl_.get(), buffer, sizeof buffer, &n);
    if (result == 1) {
      received_.append(buffer, n);
      continue;
    }
    const int error = SSL_get_error(ssl_.get(), result);
    close_notify_ = error == SSL_ERROR_ZERO_RETURN;
    broken_ = error == SSL_ERROR_SSL || error == SSL_ERROR_SYSCALL;
    return;
  }
}

bool Peer::write(const std::string& octets) {
  size_t written = 0;
  ERR_clear_error();
  return octets.empty() || SSL_write_ex(ssl_.get(), octets.data(), octets.size(), &written) == 1;
}

void Peer::finish_writing() {
  flush();
  if (fd_) shutdown(fd_.get(), SHUT_WR);
}

}  // namespace rig
