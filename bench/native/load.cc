// The load generator: a TLS client on one thread that makes one kind of load on 127.0.0.1 and prints one line of JSON.
//
//   load MODE --port N --units N [--warmup N] [--connections N] [--path /x] [--transfer OCTETS] [--watch NAME=PID,PID]... [--deadline S]
//
// Units are connections (handshake, http-new, imap, idle), octets (download, upload), round trips (echo) or requests (http).
// CPU time is that of the watched processes between the last unit of warm-up and the last unit that counts.
// `idle` holds its connections, after it has printed its line, until standard input ends.
// Any error of any connection ends the run with status 1: numbers of a run that met errors mean nothing.
#include <csignal>

#include "http_slots.h"
#include "imap_slot.h"

namespace {

using namespace bench;

uint64_t parseCount(const char* text) {
  char* end = nullptr;
  const uint64_t value = std::strtoull(text, &end, 10);
  if (end == text || *end != 0) fail(std::string("not a number: ") + text);
  return value;
}

Options parseOptions(int argc, char** argv, CpuWatch& watch) {
  if (argc < 2 || argc % 2 != 0) fail("usage: load MODE --port N --units N [--warmup N] [--connections N] [--path P] [--watch NAME=PID,...] [--deadline S]");
  Options options;
  options.mode = argv[1];
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const char* value = argv[i + 1];
    if (name == "--port") options.port = static_cast<uint16_t>(parseCount(value));
    else if (name == "--units") options.units = parseCount(value);
    else if (name == "--warmup") options.warmup = parseCount(value);
    else if (name == "--connections") options.connections = static_cast<unsigned>(parseCount(value));
    else if (name == "--transfer") options.transferOctets = parseCount(value);
    else if (name == "--deadline") options.deadlineS = static_cast<unsigned>(parseCount(value));
    else if (name == "--path") options.path = value;
    else if (name == "--watch") watch.add(value);
    else fail("unknown option " + std::string(name));
  }
  if (options.port == 0 || options.units == 0 || options.connections == 0 || options.transferOctets == 0) fail("--port, --units, --connections and --transfer must be above 0");
  return options;
}

std::unique_ptr<Slot> makeSlot(const Shared& shared) {
  const std::string& mode = shared.options.mode;
  if (mode == "handshake") return std::make_unique<HandshakeSlot>(shared);
  if (mode == "download") return std::make_unique<DownloadSlot>(shared);
  if (mode == "upload") return std::make_unique<UploadSlot>(shared);
  if (mode == "echo") return std::make_unique<EchoSlot>(shared);
  if (mode == "idle") return std::make_unique<IdleSlot>(shared);
  if (mode == "http") return std::make_unique<HttpSlot>(shared, true);
  if (mode == "http-new") return std::make_unique<HttpSlot>(shared, false);
  if (mode == "imap") return std::make_unique<ImapSlot>(shared);
  fail("unknown mode " + mode);
}

/// Opens the idle connections a few at a time, so that no server's accept queue overflows.
void openIdle(const Shared& shared, std::vector<std::unique_ptr<Slot>>& slots) {
  constexpr size_t step = 50;
  for (uint64_t opened = 0; opened < shared.options.units;) {
    const uint64_t next = std::min<uint64_t>(opened + step, shared.options.units);
    Options batch = shared.options;
    batch.units = next - opened;
    CpuWatch nothing;
    Run run(batch, nothing);
    for (; opened < next; ++opened) slots.push_back(makeSlot({shared.options, shared.tls, shared.loop, run}));
    shared.loop.runUntil([&run] { return run.finished(); });
  }
}

void holdUntilInputEnds() {
  std::array<char, 64> scratch;
  while (::read(STDIN_FILENO, scratch.data(), scratch.size()) > 0) {
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGALRM, [](int) {
    static constexpr std::string_view text = "the run did not end before its deadline\n";
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
    std::_Exit(1);
  });
  CpuWatch watch;
  const Options options = parseOptions(argc, argv, watch);
  alarm(options.deadlineS);
  raiseDescriptorLimit();
  const TlsContext tls;
  Loop loop;
  Run run(options, watch);
  const Shared shared{options, tls, loop, run};
  std::vector<std::unique_ptr<Slot>> slots;
  if (options.mode == "idle") {
    openIdle(shared, slots);
    std::printf("{\"held\":%zu}\n", slots.size());
    std::fflush(stdout);
    alarm(0);
    holdUntilInputEnds();
  } else {
    for (unsigned i = 0; i < options.connections; ++i) slots.push_back(makeSlot(shared));
    loop.runUntil([&run] { return run.finished(); });
    run.print();
  }
  return 0;
}
