{
  "variables": {
    # Set by scripts/sanitizers.mjs: "", "address,undefined" or "thread".
    "sanitize%": ""
  },
  "targets": [
    {
      "target_name": "tlspool_sockets",
      "sources": [
        "native/src/module.cc",
        "native/src/call.cc",
        "native/src/descriptor.cc",
        "native/src/unix.cc",
        "native/src/message.cc",
        "native/src/tcp.cc",
        "native/src/info.cc",
        "native/src/poll.cc"
      ],
      "defines": ["NAPI_VERSION=8", "_GNU_SOURCE"],
      # Node's own flags are removed where they would weaken ours: its headers choose an older C++ standard.
      "cflags_cc!": ["-std=gnu++14", "-std=gnu++17", "-std=gnu++20"],
      "cflags_cc": [
        "-std=c++20", "-fno-exceptions", "-fno-rtti", "-fvisibility=hidden", "-fstack-protector-strong",
        "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion", "-Wno-unused-parameter"
      ],
      "ldflags": ["-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack", "-Wl,-z,nodelete"],
      "conditions": [
        ["sanitize!=''", {
          "cflags_cc": ["-fsanitize=<(sanitize)", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined", "-g", "-O1"],
          "ldflags": ["-fsanitize=<(sanitize)"]
        }, {
          "defines": ["_FORTIFY_SOURCE=2"]
        }]
      ]
    }
  ]
}
