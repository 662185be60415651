#include "selector.hh"

namespace tlspool {
namespace {

// ASCII only: SNI carries A-labels (RFC 6066 section 3), and the process's locale has no say in who is served.
std::string normal_form(std::string_view name) {
  if (!name.empty() && name.back() == '.') name.remove_suffix(1);
  std::string lower(name);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

}  // namespace

void Selector::add(std::string_view name, ContextRef context) {
  std::string key = normal_form(name);
  if (key.starts_with("*.")) {
    wildcard_[key.substr(2)] = std::move(context);
  } else {
    exact_[std::move(key)] = std::move(context);
  }
}

ContextRef Selector::choose(std::string_view name) const {
  if (name.empty()) return no_name_;
  const std::string key = normal_form(name);
  if (const auto found = exact_.find(key); found != exact_.end()) return found->second;
  const size_t dot = key.find('.');
  if (dot != std::string::npos && dot > 0) {
    if (const auto found = wildcard_.find(key.substr(dot + 1)); found != wildcard_.end()) return found->second;
  }
  return unknown_name_;
}

ContextRef Selector::first() const {
  if (no_name_) return no_name_;
  if (!exact_.empty()) return exact_.begin()->second;
  if (!wildcard_.empty()) return wildcard_.begin()->second;
  return unknown_name_;
}

}  // namespace tlspool
