// What one JS environment (the main thread, or one worker thread) holds of this addon. Never shared between threads.
#pragma once

#include <node_api.h>

#include <cstdint>
#include <memory>
#include <unordered_set>

namespace tlspool {

class PollHandle;

struct Addon {
  napi_env env = nullptr;
  // The class of the errors that are thrown: TlsPoolError.
  napi_ref error_class = nullptr;
  napi_ref poll_class = nullptr;
  // receive() reads here first, because the size of a packet is known only afterwards. Grows to the largest maxOctets seen.
  std::unique_ptr<uint8_t[]> scratch;
  size_t scratch_octets = 0;
  // Poll handles that libuv knows, those that are being closed included.
  std::unordered_set<PollHandle*> polls;
  // Descriptors that a thread which is ended, rather than ends, would leave open: closeWithThread().
  std::unordered_set<int> guarded;
  // Set while the environment goes down and waits for `polls` to become empty.
  napi_async_cleanup_hook_handle teardown = nullptr;
  bool tearing_down = false;
};

using Verb = napi_value (*)(napi_env, napi_callback_info);

// descriptor.cc
napi_value close_fd(napi_env, napi_callback_info);
napi_value close_with_thread(napi_env, napi_callback_info);
napi_value discard_fd(napi_env, napi_callback_info);
napi_value close_drained_fd(napi_env, napi_callback_info);
napi_value dup_fd(napi_env, napi_callback_info);
napi_value shutdown_fd(napi_env, napi_callback_info);
napi_value poll_wait(napi_env, napi_callback_info);
// unix.cc
napi_value socket_pair(napi_env, napi_callback_info);
napi_value unix_connect(napi_env, napi_callback_info);
napi_value unix_listen(napi_env, napi_callback_info);
napi_value peer_credentials(napi_env, napi_callback_info);
// message.cc
napi_value send_message(napi_env, napi_callback_info);
napi_value receive_message(napi_env, napi_callback_info);
napi_value peek_octets(napi_env, napi_callback_info);
// tcp.cc
napi_value tcp_listen(napi_env, napi_callback_info);
napi_value accept_connection(napi_env, napi_callback_info);
// info.cc
napi_value socket_info(napi_env, napi_callback_info);
// poll.cc
napi_value make_poll(napi_env, napi_callback_info);
// Defines the Poll class and the hook that closes what is left when the environment goes down.
napi_status set_up_polls(Addon& addon);

}  // namespace tlspool
