#include "record_bio.hh"

#include <algorithm>
#include <cstring>

#include "ossl.hh"

namespace tlspool {
namespace {

int read_input(BIO* bio, char* out, size_t length, size_t* taken) {
  Input& input = static_cast<RecordIo*>(BIO_get_data(bio))->input;
  BIO_clear_retry_flags(bio);
  *taken = std::min(length, input.left);
  if (*taken == 0) {
    BIO_set_retry_read(bio);
    return 0;
  }
  memcpy(out, input.data, *taken);
  input.data += *taken;
  input.left -= *taken;
  return 1;
}

int write_output(BIO* bio, const char* data, size_t length, size_t* taken) {
  static_cast<RecordIo*>(BIO_get_data(bio))->output->append(reinterpret_cast<const uint8_t*>(data), length);
  *taken = length;
  return 1;
}

long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

const BIO_METHOD* method() {
  static const BioMethodPtr instance = [] {
    BioMethodPtr made(BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "tlspool records"));
    if (made) {
      BIO_meth_set_read_ex(made.get(), read_input);
      BIO_meth_set_write_ex(made.get(), write_output);
      BIO_meth_set_ctrl(made.get(), control);
    }
    return made;
  }();
  return instance.get();
}

}  // namespace

void Output::append(const uint8_t* data, size_t length) {
  if (octets.size() < used + length) octets.resize(std::max(octets.size() * 2, used + length));
  memcpy(octets.data() + used, data, length);
  used += length;
}

void Output::prepend(const uint8_t* data, size_t length) {
  append(data, length);  // makes room
  memmove(octets.data() + length, octets.data(), used - length);
  memcpy(octets.data(), data, length);
}

BIO* new_record_bio(RecordIo* io) {
  if (method() == nullptr) return nullptr;
  BIO* bio = BIO_new(method());
  if (bio == nullptr) return nullptr;
  BIO_set_data(bio, io);
  BIO_set_init(bio, 1);
  return bio;
}

}  // namespace tlspool
