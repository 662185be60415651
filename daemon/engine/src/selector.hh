// The immutable SNI table: exact name, then one-label wildcard, then the configured defaults.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "context.hh"

namespace tlspool {

using ContextRef = std::shared_ptr<const Context>;

class Selector {
 public:
  void add(std::string_view name, ContextRef context);
  void set_no_name(ContextRef context) { no_name_ = std::move(context); }
  void set_unknown_name(ContextRef context) { unknown_name_ = std::move(context); }

  // Null: refuse with unrecognized_name (RFC 6066 section 3). `name` as the client sent it; empty: none was sent.
  ContextRef choose(std::string_view name) const;
  // Any context, to make an SSL from before the name is known; null when the table is empty.
  ContextRef first() const;

 private:
  std::unordered_map<std::string, ContextRef> exact_;
  std::unordered_map<std::string, ContextRef> wildcard_;  // keyed by what follows "*."
  ContextRef no_name_, unknown_name_;
};

using SelectorRef = std::shared_ptr<const Selector>;

}  // namespace tlspool
