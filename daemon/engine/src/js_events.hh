// From worker threads to JavaScript: events collect under a lock and cross in one call.
#pragma once

#include <node_api.h>
#include <mutex>
#include <vector>

#include "event_maker.hh"
#include "events.hh"

namespace tlspool::js {

class EventQueue final : public EventSink {
 public:
  // `callback` is called with a list of events on the thread of `env`. False when Node refuses.
  bool open(napi_env env, napi_value callback);
  // No callback is made after this; events that wait are dropped with their descriptors.
  void close(napi_env env);
  void ref(napi_env env, bool yes);

  void post(std::vector<Event>& batch) override;

 private:
  static void deliver(napi_env env, napi_value callback, void* self, void*);

  EventMaker maker_;  // JavaScript's thread only
  std::mutex mutex_;
  std::vector<Event> waiting_;
  napi_threadsafe_function function_ = nullptr;
};

}  // namespace tlspool::js
