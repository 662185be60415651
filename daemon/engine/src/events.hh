// What the engine tells its owner, and the way there. Nothing here knows about JavaScript.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "fd.hh"

namespace tlspool {

using SessionId = uint64_t;
using ListenerId = uint32_t;

// Shared so that all sessions of an identity point at one copy.
using SharedOctets = std::shared_ptr<const std::string>;

struct HelloEvent {
  SessionId session;
  ListenerId listener;
  std::string servername;
  std::vector<std::string> alpn;
  Endpoint remote;
};

// What is known of the peer's certificate.
struct PeerFacts {
  bool authorized = false;
  const char* authorization_error = nullptr;
  // DER: the leaf; where it is authorized its issuers, up to the root; what else was sent, as it was sent.
  std::vector<std::string> peer_certificates;
};

struct EstablishedEvent {
  SessionId session;
  ListenerId listener;
  UniqueFd plainfd;
  bool server;
  bool tls13;
  bool resumed;
  bool waiting;  // for its plain side; SuppliedEvent or FailedEvent follows
  const char* cipher;
  const char* cipher_name;
  std::string group;
  std::string alpn;
  std::string servername;
  SharedOctets localid;
  uint32_t revision;
  SharedOctets local_certificate;
  PeerFacts peer;
  Endpoint remote;
  Endpoint local;
};

enum class ReauthOutcome : uint8_t { authenticated, refused, rejected };

struct ReauthenticatedEvent {
  SessionId session;
  uint32_t request;  // 0: nobody waits for it any more
  ReauthOutcome outcome;
  PeerFacts peer;
};

struct SuppliedEvent {
  SessionId session;
  UniqueFd plainfd;
};

struct FailedEvent {
  SessionId session;
  ListenerId listener;
  const char* code;
  std::string text;
  int alert;  // -1: none
  Endpoint remote;
  std::string servername;
};

enum class ClosedHow : uint8_t { closed, truncated, reset, alert, error, timeout, revoked, drained };

struct ClosedEvent {
  SessionId session;
  UniqueFd plainfd;
  ClosedHow how;
  int alert;  // -1: none
  std::string detail;
  uint64_t received;
  uint64_t sent;
};

struct OctetsAnswer {
  uint32_t request;
  std::string octets;
};

struct BindingsAnswer {
  uint32_t request;
  std::optional<std::string> tls_unique, tls_server_end_point, tls_exporter;
};

struct ErrorAnswer {
  uint32_t request;
  const char* code;
  std::string text;
};

struct ListenerEvent {
  ListenerId listener;
  const char* code;
  std::string text;
};

using Event = std::variant<HelloEvent, EstablishedEvent, SuppliedEvent, FailedEvent, ClosedEvent, ReauthenticatedEvent, OctetsAnswer, BindingsAnswer,
                           ErrorAnswer, ListenerEvent>;

// Receives batches of events from any worker thread.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void post(std::vector<Event>& batch) = 0;  // takes the events, leaves the vector empty
};

}  // namespace tlspool
