// The main program of a file of cases: `PROGRAM NAME` runs one; without a name that is known, it lists them.
#pragma once

#include <cstdio>
#include <cstring>
#include <span>

namespace rig {

struct Case {
  const char* name;
  void (*run)();
};

inline int run_case(const char* program, std::span<const Case> cases, int count, char** arguments) {
  for (const Case& one : cases) {
    if (count != 2 || strcmp(arguments[1], one.name) != 0) continue;
    one.run();
    return 0;
  }
  fprintf(stderr, "usage: %s NAME, one of:\n", program);
  for (const Case& one : cases) fprintf(stderr, "  %s\n", one.name);
  return 2;
}

}  // namespace rig
