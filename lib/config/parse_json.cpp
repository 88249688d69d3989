// SPDX-License-Identifier: Apache-2.0
// Strict JSON through nlohmann-json's event parser, with lines and repeated keys as errors.
#include <cstddef>
#include <iterator>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"

#include "config/parse.hpp"

namespace tessera::config {
namespace {

struct Position {
  int line = 1;
  bool after_newline = false;
};

/// Counts lines while the parser reads: its events carry no position.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, Position* position) : at_(at), position_(position) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    position_->after_newline = *at_ == '\n';
    if (position_->after_newline) ++position_->line;
    ++at_;
    return *this;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  Position* position_;
};

class JsonBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  JsonBuilder(const std::string& name, const Position& position)
      : name_(name), position_(position) {}

  Node take() { return std::move(root_); }

  bool null() override { return add(Node{}); }
  bool boolean(bool value) override { return add(make_boolean(value)); }
  bool number_integer(std::int64_t value) override { return add_number(make_integer(value)); }
  bool number_unsigned(std::uint64_t value) override {
    const bool fits = value <= static_cast<std::uint64_t>(INT64_MAX);
    return add_number(fits ? make_integer(static_cast<std::int64_t>(value))
                           : make_number(static_cast<double>(value)));
  }
  bool number_float(double value, const std::string&) override {
    return add_number(make_number(value));
  }
  bool string(std::string& value) override { return add(make_text(value)); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Node::Kind::map); }
  bool start_array(std::size_t) override { return open(Node::Kind::list); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& key) override {
    Node& map = *open_.back();
    if (const Node* other = map.find(key)) {
      fail(Code::invalid_config,
           fmt::format("{}: key `{}` is given twice; the first is in line {}",
                       here(position_.line).to_string(), key, other->source.line));
    }
    map.keys.push_back(key);
    key_line_ = position_.line;
    return true;
  }

  bool parse_error(std::size_t, const std::string&,
                   const nlohmann::json::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 3, column 5: reason; …"
    std::string reason = error.what();
    if (const std::size_t end = reason.find(": "); end != std::string::npos)
      reason.erase(0, end + 2);
    fail(Code::invalid_config,
         fmt::format("{}: not valid JSON: {}", here(position_.line).to_string(), reason));
  }

 private:
  Source here(int line) const { return {Source::Kind::file, name_, line, ""}; }

  // The parser looks one character past a number, which may have been the end of its line.
  bool add_number(Node node) {
    return add(std::move(node), position_.line - (position_.after_newline ? 1 : 0));
  }
  bool add(Node node) { return add(std::move(node), position_.line); }

  bool add(Node node, int line) {
    TESSERA_CHECK(++count_ <= kMaxNodes, Code::invalid_config,
                  fmt::format("{}: more than {} values", here(line).to_string(), kMaxNodes));
    const bool in_map = !open_.empty() && open_.back()->is(Node::Kind::map);
    node.source = here(in_map ? key_line_ : line);
    place(std::move(node));
    return true;
  }

  Node& place(Node node) {
    if (open_.empty()) return root_ = std::move(node);
    return open_.back()->items.emplace_back(std::move(node));
  }

  bool open(Node::Kind kind) {
    TESSERA_CHECK(open_.size() < kMaxDepth, Code::invalid_config,
                  fmt::format("{}: nested more than {} levels deep",
                              here(position_.line).to_string(), kMaxDepth));
    Node node;
    node.kind = kind;
    const bool in_map = !open_.empty() && open_.back()->is(Node::Kind::map);
    node.source = here(in_map ? key_line_ : position_.line);
    // Safe to point at: a parent's vector does not grow while a child is open.
    open_.push_back(&place(std::move(node)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  const std::string& name_;
  const Position& position_;
  Node root_;
  std::vector<Node*> open_;
  int key_line_ = 1;
  std::size_t count_ = 0;
};

}  // namespace

bool is_json_name(std::string_view name) {
  return name.ends_with(".json");
}

Node parse_json(const std::string& text, const std::string& name) {
  Position position;
  JsonBuilder builder(name, position);
  const CountingIterator begin(text.data(), &position);
  const CountingIterator end(text.data() + text.size(), &position);
  nlohmann::json::sax_parse(begin, end, &builder);
  return builder.take();
}

}  // namespace tessera::config
