// What one connection of the load generator does, one class per kind of load.
#pragma once

#include <array>

#include "run.h"
#include "tls_client.h"

namespace bench {

/// Header of the backend's little protocol: one octet for what to do, seven for how many octets (big endian).
inline std::array<unsigned char, 8> backendHeader(char what, uint64_t octets) {
  std::array<unsigned char, 8> header{};
  header[0] = static_cast<unsigned char>(what);
  for (size_t i = 0; i < 7; ++i) header[7 - i] = static_cast<unsigned char>(octets >> (8 * i));
  return header;
}

struct Shared {
  const Options& options;
  const TlsContext& tls;
  Loop& loop;
  Run& run;
};

/// A connection that is made, used and, for some kinds of load, made again.
class Slot : public Handler {
 public:
  explicit Slot(const Shared& shared) : shared_(shared) { reconnect(); }

  bool onReady() final {
    if (!talk() || !client_->handshake()) return false;
    if (!started_) {
      started_ = true;
      begin();
    }
    if (!flush()) return false;
    return step();
  }

 protected:
  /// What is said in plain text before the handshake; true when it is over. Called again whenever something may have happened.
  virtual bool talk() { return true; }
  /// Called once per connection, after the handshake.
  virtual void begin() = 0;
  /// Called whenever something may have happened and all that was sent is out. True: another turn, please.
  virtual bool step() = 0;

  void reconnect() {
    started_ = false;
    unsent_.clear();
    client_ = std::make_unique<TlsClient>(shared_.tls, shared_.options.port);
    shared_.loop.add(client_->fd(), this);
  }

  void send(const void* data, size_t size) {
    unsent_.append(static_cast<const char*>(data), size);
    flush();
  }

  /// A read that may not meet the end of the stream.
  bool receive(void* into, size_t room, size_t& count) {
    const Io result = client_->read(into, room, count);
    if (result == Io::ended) fail(opensslReason("the server ended a connection that was in use"));
    return result == Io::ok;
  }

  bool flush() {
    while (!unsent_.empty()) {
      size_t count = 0;
      const Io result = client_->write(unsent_.data(), unsent_.size(), count);
      if (result == Io::ended) fail(opensslReason("the server closed while we sent"));
      if (result == Io::blocked) return false;
      unsent_.erase(0, count);
    }
    return true;
  }

  Shared shared_;
  std::unique_ptr<TlsClient> client_;

 private:
  bool started_ = false;
  std::string unsent_;
};

/// A full handshake, one octet from the backend, an orderly end; then again.
class HandshakeSlot : public Slot {
 public:
  using Slot::Slot;

 protected:
  void begin() override {
    const auto header = backendHeader('S', 1);
    send(header.data(), header.size());
    answered_ = false;
  }
  bool step() override {
    std::array<char, 64> scratch;
    for (;;) {
      size_t count = 0;
      const Io result = client_->read(scratch.data(), scratch.size(), count);
      if (result == Io::blocked) return false;
      if (result == Io::ended) break;
      if (!answered_) {
        answered_ = true;
        shared_.run.firstOctet(client_->startNs());
        client_->sendEnd();
      }
    }
    if (!answered_) fail(opensslReason("the server ended a connection before the first octet"));
    ERR_clear_error();
    shared_.run.complete(1);
    if (!shared_.run.finished()) reconnect();
    return true;
  }

 private:
  bool answered_ = false;
};

/// Asks for one octet and then keeps still.
class IdleSlot : public Slot {
 public:
  using Slot::Slot;

 protected:
  void begin() override {
    const auto header = backendHeader('S', 1);
    send(header.data(), header.size());
  }
  bool step() override {
    char octet = 0;
    size_t count = 0;
    if (receive(&octet, 1, count)) {
      shared_.run.firstOctet(client_->startNs());
      shared_.run.complete(1);
    }
    return false;
  }
};

/// Octets one turn may move before the other connections get theirs.
constexpr uint64_t turnOctets = 1U << 20U;

class DownloadSlot : public Slot {
 public:
  using Slot::Slot;

 protected:
  void begin() override { ask(); }
  bool step() override {
    static std::array<char, 16384> scratch;
    for (uint64_t turn = 0; turn < turnOctets;) {
      size_t count = 0;
      if (!receive(scratch.data(), scratch.size(), count)) return false;
      if (left_ == shared_.options.transferOctets) shared_.run.firstOctet(askedNs_);
      left_ -= count;
      turn += count;
      shared_.run.complete(count);
      if (left_ == 0) ask();
    }
    return true;
  }

 private:
  void ask() {
    left_ = shared_.options.transferOctets;
    askedNs_ = nowNs();
    const auto header = backendHeader('S', left_);
    send(header.data(), header.size());
  }
  uint64_t left_ = 0;
  uint64_t askedNs_ = 0;
};

/// Sends a transfer, waits for the backend's word that all of it came; the first octet here is that word, timed from our last octet.
class UploadSlot : public Slot {
 public:
  using Slot::Slot;

 protected:
  void begin() override { open(); }
  bool step() override {
    static const std::array<char, 65536> scratch{};
    for (uint64_t turn = 0; left_ > 0 && turn < turnOctets;) {
      size_t count = 0;
      const Io result = client_->write(scratch.data(), std::min<uint64_t>(scratch.size(), left_), count);
      if (result == Io::ended) fail(opensslReason("the server closed during an upload"));
      if (result == Io::blocked) return false;
      left_ -= count;
      turn += count;
      if (left_ == 0) sentNs_ = nowNs();
    }
    if (left_ > 0) return true;
    std::array<char, 1> word;
    size_t count = 0;
    if (!receive(word.data(), word.size(), count)) return false;
    shared_.run.firstOctet(sentNs_);
    // Counted when all of it has come: what is on its way in socket buffers may be a request's worth.
    shared_.run.complete(shared_.options.transferOctets);
    open();
    return true;
  }

 private:
  void open() {
    left_ = shared_.options.transferOctets;
    const auto header = backendHeader('K', left_);
    send(header.data(), header.size());
  }
  uint64_t left_ = 0;
  uint64_t sentNs_ = 0;
};

/// Sends 256 octets, waits until they are back, and again.
class EchoSlot : public Slot {
 public:
  using Slot::Slot;

 protected:
  void begin() override {
    const auto header = backendHeader('E', 0);
    send(header.data(), header.size());
    ping();
  }
  bool step() override {
    std::array<char, 512> scratch;
    for (;;) {
      size_t count = 0;
      if (!receive(scratch.data(), scratch.size(), count)) return false;
      if (back_ == 0) shared_.run.firstOctet(sentNs_);
      back_ += count;
      if (back_ < ping_.size()) continue;
      shared_.run.complete(1);
      ping();
    }
  }

 private:
  void ping() {
    back_ = 0;
    sentNs_ = nowNs();
    send(ping_.data(), ping_.size());
  }
  std::array<char, 256> ping_{};
  size_t back_ = 0;
  uint64_t sentNs_ = 0;
};

}  // namespace bench
