// HTTP/1.1 requests over TLS: on one connection after the other, or on a new one each.
#pragma once

#include <strings.h>

#include "slots.h"

namespace bench {

/// Reads answers that carry Content-Length; anything else ends the run.
class AnswerReader {
 public:
  void reset() {
    head_.clear();
    bodyLeft_ = 0;
    inBody_ = false;
  }
  /// True when the answer is complete.
  bool take(const char* data, size_t size) {
    if (!inBody_) {
      const size_t before = head_.size();
      head_.append(data, size);
      const size_t end = head_.find("\r\n\r\n", before < 3 ? 0 : before - 3);
      if (end == std::string::npos) {
        if (head_.size() > 16384) fail("HTTP answer: no end of the header in 16 KiB");
        return false;
      }
      inBody_ = true;
      bodyLeft_ = contentLength(end);
      size = head_.size() - end - 4;
    }
    if (size > bodyLeft_) fail("HTTP answer: more octets than Content-Length says");
    bodyLeft_ -= size;
    return bodyLeft_ == 0;
  }

 private:
  size_t contentLength(size_t end) const {
    if (head_.compare(0, 12, "HTTP/1.1 200") != 0) fail("HTTP answer: " + head_.substr(0, 60));
    for (size_t line = 0; line < end; line = head_.find("\r\n", line) + 2) {
      static constexpr std::string_view name = "content-length:";
      if (strncasecmp(head_.c_str() + line, name.data(), name.size()) == 0) return std::strtoul(head_.c_str() + line + name.size(), nullptr, 10);
    }
    fail("HTTP answer without Content-Length");
  }
  std::string head_;
  size_t bodyLeft_ = 0;
  bool inBody_ = false;
};

class HttpSlot : public Slot {
 public:
  HttpSlot(const Shared& shared, bool keepAlive)
      : Slot(shared),
        keepAlive_(keepAlive),
        request_("GET " + shared.options.path + " HTTP/1.1\r\nHost: localhost\r\n" + (keepAlive ? "\r\n" : "Connection: close\r\n\r\n")) {}

 protected:
  void begin() override { ask(client_->startNs()); }
  bool step() override {
    static std::array<char, 65536> scratch;
    for (;;) {
      size_t count = 0;
      const Io result = client_->read(scratch.data(), scratch.size(), count);
      if (result == Io::blocked) return false;
      if (result == Io::ended) return again();
      if (answered_) fail("octets after the answer");
      if (!begun_) shared_.run.firstOctet(askedNs_);
      begun_ = true;
      if (!reader_.take(scratch.data(), count)) continue;
      shared_.run.complete(1);
      if (keepAlive_) {
        ask(nowNs());
      } else {
        answered_ = true;
      }
    }
  }

 private:
  void ask(uint64_t sinceNs) {
    reader_.reset();
    begun_ = answered_ = false;
    askedNs_ = sinceNs;
    send(request_.data(), request_.size());
  }
  bool again() {
    if (!answered_) fail(opensslReason("the server ended a connection before its answer was complete"));
    ERR_clear_error();
    client_->sendEnd();
    if (!shared_.run.finished()) reconnect();
    return true;
  }

  bool keepAlive_;
  std::string request_;
  AnswerReader reader_;
  bool begun_ = false, answered_ = false;
  uint64_t askedNs_ = 0;
};

}  // namespace bench
