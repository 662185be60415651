// A non-blocking TLS 1.3 client connection, pinned to one suite and one group so that every server does the same cryptography.
#pragma once

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <array>
#include <memory>

#include "util.h"

namespace bench {

inline std::string opensslReason(const char* what) {
  char text[256] = "no OpenSSL error; the connection was closed or reset";
  if (const unsigned long code = ERR_get_error(); code != 0) ERR_error_string_n(code, text, sizeof text);
  return std::string(what) + ": " + text;
}

/// TLS 1.3, TLS_AES_128_GCM_SHA256, X25519, no resumption. The certificate's signature is checked, its chain is not: that costs only us.
class TlsContext {
 public:
  TlsContext() : context_(SSL_CTX_new(TLS_client_method()), SSL_CTX_free) {
    SSL_CTX* context = context_.get();
    if (context == nullptr || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") != 1 || SSL_CTX_set1_groups_list(context, "X25519") != 1) {
      fail(opensslReason("client context"));
    }
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    // Fewer recv calls per octet here, so that the load generator is not what is measured.
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, 128 * 1024);
  }
  SSL* session() const {
    SSL* ssl = SSL_new(context_.get());
    if (ssl == nullptr || SSL_set_tlsext_host_name(ssl, "localhost") != 1) fail(opensslReason("SSL_new"));
    SSL_set_connect_state(ssl);
    return ssl;
  }

 private:
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_;
};

enum class Io { ok, blocked, ended };

class TlsClient {
 public:
  /// Starts to connect; the descriptor is to be put into a loop by the caller.
  TlsClient(const TlsContext& context, uint16_t port)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)), ssl_(context.session(), SSL_free), startNs_(nowNs()) {
    if (fd_.get() < 0) failErrno("socket");
    setNoDelay(fd_.get());
    const sockaddr_in address = loopback(port);
    if (connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 && errno != EINPROGRESS) failErrno("connect");
    if (SSL_set_fd(ssl_.get(), fd_.get()) != 1) fail(opensslReason("SSL_set_fd"));
  }
  int fd() const { return fd_.get(); }
  uint64_t startNs() const { return startNs_; }

  /// Before the handshake: what has come of a line in plain text is added; true when it has ended. Takes nothing behind it.
  bool readPlainLine(std::string& line) {
    for (;;) {
      std::array<char, 512> scratch;
      const ssize_t seen = recv(fd_.get(), scratch.data(), scratch.size(), MSG_PEEK);
      if (seen < 0 && (errno == EAGAIN || errno == ENOTCONN)) return false;
      if (seen <= 0) fail("the server ended a connection in plain text");
      const auto* end = static_cast<const char*>(std::memchr(scratch.data(), '\n', static_cast<size_t>(seen)));
      const ssize_t taken = recv(fd_.get(), scratch.data(), end == nullptr ? static_cast<size_t>(seen) : static_cast<size_t>(end - scratch.data() + 1), 0);
      if (taken <= 0) failErrno("recv");
      line.append(scratch.data(), static_cast<size_t>(taken));
      if (end != nullptr) return true;
    }
  }
  /// Before the handshake; what is said there fits into any socket buffer.
  void writePlain(std::string_view text) {
    if (::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) failErrno("send");
  }

  /// True when the handshake is done; fails when it is not the one that was asked for.
  bool handshake() {
    if (established_) return true;
    const int result = SSL_do_handshake(ssl_.get());
    if (result != 1) {
      if (!wouldBlock(result)) fail(opensslReason("handshake"));
      return false;
    }
    if (SSL_session_reused(ssl_.get()) != 0) fail("a session was resumed: this is to measure full handshakes");
    return established_ = true;
  }

  Io read(void* into, size_t room, size_t& count) {
    count = 0;
    const int result = SSL_read_ex(ssl_.get(), into, room, &count);
    if (result == 1) return Io::ok;
    if (wouldBlock(result)) return Io::blocked;
    return Io::ended;
  }

  Io write(const void* from, size_t size, size_t& count) {
    count = 0;
    const int result = SSL_write_ex(ssl_.get(), from, size, &count);
    if (result == 1) return Io::ok;
    if (wouldBlock(result)) return Io::blocked;
    return Io::ended;
  }

  /// close_notify and end of stream from our side; the caller reads on until `ended`.
  void sendEnd() {
    SSL_shutdown(ssl_.get());
    ERR_clear_error();
    shutdown(fd_.get(), SHUT_WR);
  }

 private:
  bool wouldBlock(int result) {
    const int error = SSL_get_error(ssl_.get(), result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
  }

  UniqueFd fd_;
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl_;
  uint64_t startNs_;
  bool established_ = false;
};

}  // namespace bench
