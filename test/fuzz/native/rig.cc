#include "rig.hh"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <chrono>
#include <cstdio>
#include <cstdlib>

namespace rig {
namespace {

using tlspool::PkeyPtr;
using tlspool::X509Ptr;

constexpr int rounds_until_idle = 2000;

std::string pem_of(X509* certificate) {
  const tlspool::BioPtr bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(bio.get(), certificate);
  char* data = nullptr;
  const long length = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(length)};
}

std::string pem_of(EVP_PKEY* key) {
  const tlspool::BioPtr bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr);
  char* data = nullptr;
  const long length = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(length)};
}

PkeyPtr new_key(bool rsa) { return PkeyPtr(rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256")); }

void extend(X509* certificate, int nid, const char* value) {
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

X509Ptr issue(const char* name, const char* alternative, EVP_PKEY* key, const X509* issuer, EVP_PKEY* issuer_key) {
  static long serial = 1;
  X509Ptr certificate(X509_new());
  X509* x = certificate.get();
  X509_set_version(x, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
  X509_gmtime_adj(X509_getm_notBefore(x), -3600);
  X509_gmtime_adj(X509_getm_notAfter(x), 86400);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name), -1, -1, 0);
  X509_set_issuer_name(x, X509_get_subject_name(issuer == nullptr ? x : issuer));
  X509_set_pubkey(x, key);
  if (issuer == nullptr) extend(x, NID_basic_constraints, "critical,CA:TRUE");
  else extend(x, NID_subject_alt_name, alternative);
  REQUIRE(X509_sign(x, issuer_key, EVP_sha256()) > 0, "a certificate cannot be signed");
  return certificate;
}

Credentials make_credentials() {
  Credentials made;
  const PkeyPtr ca_key = new_key(false), other_key = new_key(false);
  const X509Ptr ca = issue("ca", "", ca_key.get(), nullptr, ca_key.get());
  const X509Ptr other = issue("other", "", other_key.get(), nullptr, other_key.get());
  made.ca = pem_of(ca.get());
  const auto pair = [](const char* name, const char* alternative, bool rsa, const X509Ptr& by, const PkeyPtr& by_key) {
    const PkeyPtr key = new_key(rsa);
    return tlspool::KeyPair{pem_of(issue(name, alternative, key.get(), by.get(), by_key.get()).get()), pem_of(key.get())};
  };
  made.ecdsa = pair("server", "DNS:server.test,DNS:*.wild.test", false, ca, ca_key);
  made.rsa = pair("server", "DNS:server.test,DNS:*.wild.test", true, ca, ca_key);
  made.client = pair("client", "DNS:client.test", false, ca, ca_key);
  made.stranger = pair("stranger", "DNS:client.test", false, other, other_key);
  return made;
}

tlspool::ContextRef make(tlspool::ContextSpec& spec) {
  std::string problem, field;
  tlspool::ContextRef context = tlspool::Context::make(spec, problem, field);
  REQUIRE(context != nullptr, "no context: " + field + ": " + problem);
  return context;
}

tlspool::ContextSpec base_spec(const std::string& localid) {
  tlspool::ContextSpec spec;
  spec.localid = localid;
  spec.trust = credentials().ca;
  spec.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256";
  spec.ciphersuites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
  spec.groups = {"X25519", "P-256"};
  spec.ticket_tag = localid;
  return spec;
}

}  // namespace

void finding(const char* file, int line, const std::string& text) {
  fprintf(stderr, "FINDING: %s (%s:%d)\n", text.c_str(), file, line);
  abort();
}

const Credentials& credentials() {
  static const Credentials made = make_credentials();
  return made;
}

tlspool::ContextRef make_context(const ContextOptions& options) {
  tlspool::ContextSpec spec = base_spec(options.localid);
  spec.revision = options.revision;
  spec.client_auth = options.client_auth;
  spec.key_pairs.push_back(credentials().ecdsa);
  for (int i = 0; i < options.extra_certificates; ++i) spec.key_pairs[0].chain += credentials().ca;
  if (options.rsa_too) spec.key_pairs.push_back(credentials().rsa);
  if (options.hello_retry) spec.groups = {"P-256"};
  return make(spec);
}

tlspool::ContextRef make_client_context() {
  tlspool::ContextSpec spec = base_spec("client");
  spec.key_pairs.push_back(credentials().client);
  return make(spec);
}

tlspool::SelectorRef make_selector(const tlspool::ContextRef& context) {
  const auto selector = std::make_shared<tlspool::Selector>();
  selector->add("server.test", context);
  selector->add("*.wild.test", context);
  selector->set_no_name(context);
  return selector;
}

void Collector::post(std::vector<tlspool::Event>& batch) {
  const std::lock_guard lock(mutex_);
  for (tlspool::Event& event : batch) {
    const auto* answer = std::get_if<tlspool::ErrorAnswer>(&event);
    if (answer != nullptr && answer->request % 2 == 1) answered_ = answer->request;
    else events_.push_back(std::move(event));
  }
  batch.clear();
  posted_.notify_all();
}

void Collector::await_answer(uint32_t request) {
  std::unique_lock lock(mutex_);
  const bool came = posted_.wait_for(lock, std::chrono::seconds(30), [&] { return answered_ == request; });
  REQUIRE(came, "a worker does not answer: it hangs or blocks");
}

std::vector<tlspool::Event> Collector::take() {
  const std::lock_guard lock(mutex_);
  std::vector<tlspool::Event> taken;
  taken.swap(events_);
  return taken;
}

tlspool::Options soon_over() {
  tlspool::Options options;
  options.linger_ms = 100;
  return options;
}

Rig::Rig(const tlspool::Options& options) : engine_(options, sink_), workers_(options.workers) {
  REQUIRE(!engine_.start(), "the engine does not start");
}

Rig::~Rig() { engine_.stop(); }

void Rig::barrier() {
  for (unsigned worker = 0; worker < workers_; ++worker) {
    barriers_ += 2;
    // No session has this number: the worker answers so, after all that it was told and saw before.
    engine_.exporter(worker, barriers_, "", std::nullopt, 0);
    sink_.await_answer(barriers_);
  }
}

std::vector<tlspool::Event> Rig::events() { return sink_.take(); }

void Rig::await_idle() {
  for (int round = 0; engine_.stats().sessions.load() > 0; ++round) {
    REQUIRE(round < rounds_until_idle, "a session stays although both of its sides are closed");
    barrier();
  }
  // Once more: what a session still held is freed at the end of its round.
  barrier();
  REQUIRE(engine_.stats().handshakes.load() == 0, "no session is left, but handshakes are counted");
}

void socket_pair(UniqueFd& ours, UniqueFd& theirs, int send_octets) {
  int pair[2] = {-1, -1};
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "no socket pair");
  ours.reset(pair[0]);
  theirs.reset(pair[1]);
  if (send_octets == 0) return;
  for (const int fd : pair) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_octets, sizeof send_octets);
}

UniqueFd duplicate(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

size_t open_fds() {
  DIR* folder = opendir("/proc/self/fd");
  REQUIRE(folder != nullptr, "/proc/self/fd cannot be read");
  size_t count = 0;
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}

void require_open_fds(size_t expected) {
  size_t open = open_fds();
  for (int tries = 0; open != expected && tries < 20'000; ++tries) {
    usleep(200);
    open = open_fds();
  }
  REQUIRE(open == expected, "descriptors were " + std::to_string(expected) + ", are " + std::to_string(open));
}

}  // namespace rig
