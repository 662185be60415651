// IMAP with STARTTLS (RFC 9051 section 6.2.1), one command to the backend, an orderly end; then again.
#pragma once

#include "slots.h"

namespace bench {

class ImapSlot : public Slot {
 public:
  using Slot::Slot;

 protected:
  bool talk() override {
    while (said_ < Said::go) {
      if (!client_->readPlainLine(line_)) return false;
      if (said_ == Said::nothing) {
        expect("* OK");
        client_->writePlain("a STARTTLS\r\n");
        said_ = Said::greeting;
      } else if (line_.rfind("* ", 0) != 0) {
        expect("a OK");
        said_ = Said::go;
      }
      line_.clear();
    }
    return true;
  }

  void begin() override {
    static constexpr std::string_view command = "b NOOP\r\n";
    send(command.data(), command.size());
  }

  bool step() override {
    std::array<char, 512> scratch;
    for (;;) {
      size_t count = 0;
      const Io result = client_->read(scratch.data(), scratch.size(), count);
      if (result == Io::blocked) return false;
      if (result == Io::ended) return again();
      line_.append(scratch.data(), count);
      if (answered_ || line_.empty() || line_.back() != '\n') continue;
      // No greeting again, nothing of the plain-text phase: the answer is all there is.
      expect("b OK");
      answered_ = true;
      shared_.run.firstOctet(client_->startNs());
      client_->sendEnd();
    }
  }

 private:
  enum class Said { nothing, greeting, go };

  void expect(std::string_view begin) const {
    if (line_.rfind(begin, 0) != 0) fail("IMAP: expected " + std::string(begin) + ", got " + line_.substr(0, 80));
  }
  bool again() {
    if (!answered_) fail(opensslReason("the server ended a connection before its answer"));
    ERR_clear_error();
    line_.clear();
    said_ = Said::nothing;
    answered_ = false;
    shared_.run.complete(1);
    if (!shared_.run.finished()) reconnect();
    return true;
  }

  std::string line_;
  Said said_ = Said::nothing;
  bool answered_ = false;
};

}  // namespace bench
