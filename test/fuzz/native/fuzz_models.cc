// libFuzzer: the SNI table and the timer wheel against models that are too simple to be wrong.
#include <array>
#include <map>

#include "input.hh"
#include "rig.hh"

namespace {

using namespace rig;
using tlspool::ContextRef;

const std::array<ContextRef, 3>& contexts() {
  static const std::array<ContextRef, 3> made = {make_context({}), make_context({}), make_context({})};
  return made;
}

// A few letters only, so that names meet often.
std::string read_name(Script& script) {
  static constexpr std::string_view letters = "aAbB..*-";
  std::string name;
  for (size_t length = script.octet() % 8; name.size() < length;) name += letters[script.octet() % letters.size()];
  return name;
}

std::string plain_form(std::string name) {
  if (!name.empty() && name.back() == '.') name.pop_back();
  for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
  return name;
}

// RFC 6125 section 6.4.3, as DESIGN puts it: exact, then a wildcard for exactly one label, then the default.
ContextRef choose(const std::map<std::string, ContextRef>& table, const std::string& asked, const ContextRef& no_name, const ContextRef& unknown) {
  if (asked.empty()) return no_name;
  const std::string name = plain_form(asked);
  for (const auto& [known, context] : table)
    if (known == name && !known.starts_with("*.")) return context;
  for (const auto& [known, context] : table) {
    const size_t tail = known.size() - 1;  // ".b.c" of "*.b.c"
    if (!known.starts_with("*.") || name.size() <= tail || !name.ends_with(known.substr(1))) continue;
    if (name.substr(0, name.size() - tail).find('.') == std::string::npos) return context;
  }
  return unknown;
}

void fuzz_selector(Script& script) {
  tlspool::Selector selector;
  std::map<std::string, ContextRef> table;
  const uint8_t defaults = script.octet();
  const ContextRef no_name = (defaults & 1) != 0 ? contexts()[0] : nullptr;
  const ContextRef unknown = (defaults & 2) != 0 ? contexts()[1] : nullptr;
  selector.set_no_name(no_name);
  selector.set_unknown_name(unknown);
  while (!script.empty()) {
    const uint8_t what = script.octet();
    const std::string name = read_name(script);
    if (what % 2 == 0) {
      const ContextRef& context = contexts()[what / 2 % contexts().size()];
      selector.add(name, context);
      table[plain_form(name)] = context;
    } else {
      REQUIRE(selector.choose(name) == choose(table, name, no_name, unknown), "another identity for \"" + name + "\"");
    }
    REQUIRE((selector.first() == nullptr) == (table.empty() && !no_name && !unknown), "first() of a table of " + std::to_string(table.size()));
  }
}

void fuzz_wheel(Script& script) {
  constexpr uint64_t tick = tlspool::TimerWheel::tick_ms;
  std::array<tlspool::TimerNode, 8> nodes;
  std::map<const tlspool::TimerNode*, uint64_t> due;  // ms
  uint64_t now = script.word();
  tlspool::TimerWheel wheel(now);
  while (!script.empty()) {
    const uint8_t what = script.octet();
    tlspool::TimerNode& node = nodes[what >> 2 & 7];
    const uint64_t amount = script.word() * (what >= 128 ? 16 : 1);
    switch (what & 3) {
      case 0:
        wheel.set(node, now, amount);
        due[&node] = now + amount;
        break;
      case 1:
        wheel.clear(node);
        due.erase(&node);
        break;
      default:
        now += amount;
        while (tlspool::TimerNode* expired = wheel.expire(now)) {
          const auto found = due.find(expired);
          REQUIRE(found != due.end(), "a node that is not armed expires");
          REQUIRE(found->second <= now, "a node expires " + std::to_string(found->second - now) + " ms early");
          due.erase(found);
        }
        for (const auto& [late, at] : due) REQUIRE(at + 2 * tick > now, "a node is " + std::to_string(now - at) + " ms late");
    }
    REQUIRE(wheel.empty() == due.empty(), "the wheel counts wrongly");
    const int wait = wheel.wait_ms(now);
    REQUIRE((wait < 0) == due.empty() && wait <= static_cast<int>(2 * tick), "waits " + std::to_string(wait) + " ms");
    for (const tlspool::TimerNode& one : nodes) REQUIRE(one.armed() == due.contains(&one), "armed() is wrong");
  }
  for (tlspool::TimerNode& node : nodes) wheel.clear(node);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Script script(data, size);
  script.octet() % 2 == 0 ? fuzz_selector(script) : fuzz_wheel(script);
  return 0;
}
