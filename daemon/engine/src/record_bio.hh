// The BIO between OpenSSL and a session: reads from the input that the session just received, appends to the worker's
// output. Many records leave with one send; the stock socket BIO makes one write per record.
#pragma once

#include <openssl/bio.h>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tlspool {

// Octets that OpenSSL may read now. Borrowed; whoever sets it keeps them alive until it is empty or parked.
struct Input {
  const uint8_t* data = nullptr;
  size_t left = 0;
};

// A growing buffer that is reused: its memory belongs to the worker, not to a session.
struct Output {
  std::vector<uint8_t> octets;
  size_t used = 0;
  void append(const uint8_t* data, size_t length);
  void prepend(const uint8_t* data, size_t length);
};

struct RecordIo {
  Input input;
  Output* output = nullptr;
};

// A new BIO over `io`, which must outlive it; null when memory is short.
BIO* new_record_bio(RecordIo* io);

}  // namespace tlspool
