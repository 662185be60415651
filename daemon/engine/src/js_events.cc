#include "js_events.hh"

#include "js_values.hh"

namespace tlspool::js {
namespace {

constexpr const char* closed_names[] = {"closed", "truncated", "reset", "alert", "error", "timeout", "revoked", "drained"};
constexpr const char* outcome_names[] = {"authenticated", "refused", "rejected"};

napi_value object_of(napi_env env, const char* kind) {
  napi_value object = nullptr;
  napi_create_object(env, &object);
  set(env, object, "kind", make_text(env, kind));
  return object;
}

void set_text(napi_env env, napi_value object, const char* key, std::string_view text) { set(env, object, key, make_text(env, text)); }

void set_number(napi_env env, napi_value object, const char* key, double number) { set(env, object, key, make_number(env, number)); }

void set_unless_empty(napi_env env, napi_value object, const char* key, std::string_view text) {
  if (!text.empty()) set_text(env, object, key, text);
}

void set_endpoint(napi_env env, napi_value object, const char* key, const Endpoint& endpoint) {
  if (endpoint.family != Endpoint::Family::none) set(env, object, key, make_endpoint(env, endpoint));
}

void set_ids(napi_env env, napi_value object, SessionId session, ListenerId listener) {
  set_number(env, object, "session", static_cast<double>(session));
  set_number(env, object, "listener", listener);
}

template <typename Items, typename Make>
napi_value list_of(napi_env env, const Items& items, Make make) {
  napi_value array = nullptr;
  napi_create_array_with_length(env, items.size(), &array);
  for (uint32_t i = 0; i < items.size(); ++i) napi_set_element(env, array, i, make(env, items[i]));
  return array;
}

napi_value to_js(EventMaker& maker, HelloEvent& event) {
  const napi_env env = maker.env();
  const napi_value object = object_of(env, "hello");
  set_ids(env, object, event.session, event.listener);
  set_unless_empty(env, object, "servername", event.servername);
  set(env, object, "alpn", list_of(env, event.alpn, [](napi_env e, const std::string& name) { return make_text(e, name); }));
  set_endpoint(env, object, "remote", event.remote);
  return object;
}

napi_value make_der(napi_env env, const std::string& der) { return make_buffer(env, der); }

napi_value or_undefined(napi_env env, napi_value value) {
  if (value == nullptr) napi_get_undefined(env, &value);
  return value;
}

napi_value to_js(EventMaker& maker, EstablishedEvent& event) {
  const napi_env env = maker.env();
  const auto endpoint = [&](const Endpoint& end) { return or_undefined(env, end.family == Endpoint::Family::none ? nullptr : maker.endpoint(end)); };
  const napi_value arguments[] = {
      make_number(env, static_cast<double>(event.session)),
      make_number(env, event.listener),
      make_number(env, event.plainfd.release()),
      maker.flag(event.waiting),
      maker.flag(event.server),
      maker.flag(event.tls13),
      maker.word(event.cipher),
      maker.word(event.cipher_name),
      maker.word_unless_empty(event.group),
      maker.word_unless_empty(event.alpn),
      maker.word_unless_empty(event.servername),
      maker.word(*event.localid),
      make_number(env, event.revision),
      maker.flag(event.resumed),
      maker.flag(event.peer.authorized),
      maker.word_unless_empty(event.peer.authorization_error == nullptr ? "" : event.peer.authorization_error),
      list_of(env, event.peer.peer_certificates, make_der),
      or_undefined(env, event.local_certificate ? maker.certificate(event.local_certificate) : nullptr),
      endpoint(event.remote),
      endpoint(event.local),
  };
  return maker.make(EventMaker::established, arguments, sizeof arguments / sizeof arguments[0]);
}

napi_value to_js(EventMaker& maker, SuppliedEvent& event) {
  const napi_value arguments[] = {make_number(maker.env(), static_cast<double>(event.session)), make_number(maker.env(), event.plainfd.release())};
  return maker.make(EventMaker::supplied, arguments, 2);
}

napi_value to_js(EventMaker& maker, FailedEvent& event) {
  const napi_env env = maker.env();
  const napi_value object = object_of(env, "failed");
  set_ids(env, object, event.session, event.listener);
  set_text(env, object, "code", event.code);
  set_text(env, object, "text", event.text);
  if (event.alert >= 0) set_number(env, object, "alert", event.alert);
  set_endpoint(env, object, "remote", event.remote);
  set_unless_empty(env, object, "servername", event.servername);
  return object;
}

napi_value to_js(EventMaker& maker, ClosedEvent& event) {
  const napi_env env = maker.env();
  const napi_value arguments[] = {
      make_number(env, static_cast<double>(event.session)),
      make_number(env, event.plainfd.release()),
      maker.word(closed_names[static_cast<size_t>(event.how)]),
      or_undefined(env, event.alert >= 0 ? make_number(env, event.alert) : nullptr),
      or_undefined(env, event.detail.empty() ? nullptr : make_text(env, event.detail)),
      make_number(env, static_cast<double>(event.received)),
      make_number(env, static_cast<double>(event.sent)),
  };
  return maker.make(EventMaker::closed, arguments, sizeof arguments / sizeof arguments[0]);
}

napi_value to_js(EventMaker& maker, ReauthenticatedEvent& event) {
  const napi_env env = maker.env();
  const napi_value object = object_of(env, "reauthenticated");
  set_number(env, object, "session", static_cast<double>(event.session));
  set_number(env, object, "request", event.request);
  set_text(env, object, "outcome", outcome_names[static_cast<size_t>(event.outcome)]);
  set(env, object, "authorized", maker.flag(event.peer.authorized));
  if (event.peer.authorization_error != nullptr) set_text(env, object, "authorizationError", event.peer.authorization_error);
  set(env, object, "peerCertificates", list_of(env, event.peer.peer_certificates, make_der));
  return object;
}

napi_value answer_of(napi_env env, uint32_t request) {
  const napi_value object = object_of(env, "answer");
  set_number(env, object, "request", request);
  return object;
}

napi_value to_js(EventMaker& maker, OctetsAnswer& event) {
  const napi_env env = maker.env();
  const napi_value object = answer_of(env, event.request);
  set(env, object, "octets", make_buffer(env, event.octets));
  return object;
}

napi_value to_js(EventMaker& maker, BindingsAnswer& event) {
  const napi_env env = maker.env();
  const napi_value object = answer_of(env, event.request);
  napi_value bindings = nullptr;
  napi_create_object(env, &bindings);
  if (event.tls_unique) set(env, bindings, "tlsUnique", make_buffer(env, *event.tls_unique));
  if (event.tls_server_end_point) set(env, bindings, "tlsServerEndPoint", make_buffer(env, *event.tls_server_end_point));
  if (event.tls_exporter) set(env, bindings, "tlsExporter", make_buffer(env, *event.tls_exporter));
  set(env, object, "bindings", bindings);
  return object;
}

napi_value to_js(EventMaker& maker, ErrorAnswer& event) {
  const napi_env env = maker.env();
  const napi_value object = answer_of(env, event.request);
  set_text(env, object, "code", event.code);
  set_text(env, object, "text", event.text);
  return object;
}

napi_value to_js(EventMaker& maker, ListenerEvent& event) {
  const napi_env env = maker.env();
  const napi_value object = object_of(env, "listener");
  set_number(env, object, "listener", event.listener);
  set_text(env, object, "code", event.code);
  set_text(env, object, "text", event.text);
  return object;
}

}  // namespace

bool EventQueue::open(napi_env env, napi_value callback) {
  if (!maker_.open(env)) return false;
  const napi_value name = make_text(env, "tlspool.engine");
  return napi_create_threadsafe_function(env, callback, nullptr, name, 0, 1, nullptr, nullptr, this, deliver, &function_) == napi_ok;
}

void EventQueue::close(napi_env env) {
  std::vector<Event> dropped;
  napi_threadsafe_function function = nullptr;
  {
    const std::lock_guard lock(mutex_);
    std::swap(function, function_);
    dropped.swap(waiting_);
  }
  if (function == nullptr) return;
  napi_unref_threadsafe_function(env, function);
  napi_release_threadsafe_function(function, napi_tsfn_abort);
}

void EventQueue::ref(napi_env env, bool yes) {
  if (function_ == nullptr) return;
  yes ? napi_ref_threadsafe_function(env, function_) : napi_unref_threadsafe_function(env, function_);
}

void EventQueue::post(std::vector<Event>& batch) {
  const std::lock_guard lock(mutex_);
  if (function_ == nullptr) return batch.clear();
  const bool idle = waiting_.empty();
  if (idle) {
    waiting_.swap(batch);
  } else {
    std::move(batch.begin(), batch.end(), std::back_inserter(waiting_));
    batch.clear();
  }
  // One call per batch: whoever finds the queue not empty knows that a delivery is on its way.
  if (idle) napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
}

void EventQueue::deliver(napi_env env, napi_value callback, void* self, void*) {
  auto* queue = static_cast<EventQueue*>(self);
  std::vector<Event> events;
  if (env == nullptr) return;  // Node is going down
  {
    const std::lock_guard lock(queue->mutex_);
    events.swap(queue->waiting_);
  }
  if (events.empty()) return;
  napi_value list = nullptr, receiver = nullptr;
  napi_create_array_with_length(env, events.size(), &list);
  for (uint32_t i = 0; i < events.size(); ++i) {
    napi_handle_scope scope = nullptr;
    napi_open_handle_scope(env, &scope);
    napi_set_element(env, list, i, std::visit([queue](auto& event) { return to_js(queue->maker_, event); }, events[i]));
    napi_close_handle_scope(env, scope);
  }
  napi_get_undefined(env, &receiver);
  napi_call_function(env, receiver, callback, 1, &list, nullptr);
}

}  // namespace tlspool::js
