{
  "variables": { "sanitize%": "" },
  "targets": [
    {
      "target_name": "engine",
      "sources": [
        "engine/src/addon.cc", "engine/src/js_values.cc", "engine/src/js_events.cc", "engine/src/event_maker.cc", "engine/src/js_specs.cc",
        "engine/src/engine.cc", "engine/src/worker.cc", "engine/src/listener.cc", "engine/src/session.cc", "engine/src/session_io.cc", "engine/src/session_send.cc",
        "engine/src/session_end.cc",
        "engine/src/handshake.cc", "engine/src/verify.cc", "engine/src/established.cc", "engine/src/reauth.cc", "engine/src/reauth_answers.cc", "engine/src/context.cc",
        "engine/src/peer_rules.cc", "engine/src/tickets.cc", "engine/src/selector.cc", "engine/src/record_bio.cc", "engine/src/timer_wheel.cc", "engine/src/fd.cc"
      ],
      # The end of descriptors that somebody else had is one header for both addons.
      "include_dirs": ["<!(node -p \"require('node:path').dirname(require.resolve('libtlspool/package.json'))\")/native/src"],
      "defines": ["NAPI_VERSION=9", "OPENSSL_API_COMPAT=0x10101000L"],
      "cflags_cc": ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-Wno-cast-function-type", "-fvisibility=hidden", "-O2"],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20", "-fno-rtti"],
      "ldflags": ["-Wl,-z,nodelete"],
      "conditions": [
        ["sanitize!=''", {
          "cflags_cc": ["-fsanitize=<(sanitize)", "-fno-omit-frame-pointer", "-g", "-O1"],
          "ldflags": ["-fsanitize=<(sanitize)"]
        }]
      ]
    }
  ]
}
