// SPDX-License-Identifier: Apache-2.0
// YAML through yaml-cpp, with repeated keys as errors.
#include <algorithm>

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include "tessera/base/error.hpp"

#include "config/parse.hpp"

namespace tessera::config {
namespace {

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

class YamlConverter {
 public:
  explicit YamlConverter(Source origin) : origin_(std::move(origin)) {}

  Node convert(const YAML::Node& yaml, int depth = 0) {
    Node node;
    node.source = source(yaml);
    TESSERA_CHECK(depth < kMaxDepth, Code::invalid_config,
                  fmt::format("{}: nested more than {} levels deep (an alias inside itself?)",
                              node.source.to_string(), kMaxDepth));
    TESSERA_CHECK(++count_ <= kMaxNodes, Code::invalid_config,
                  fmt::format("{}: more than {} values", node.source.to_string(), kMaxNodes));
    if (yaml.IsScalar())
      convert_scalar(yaml, node);
    else if (yaml.IsSequence())
      convert_list(yaml, node, depth);
    else if (yaml.IsMap())
      convert_map(yaml, node, depth);
    return node;
  }

 private:
  Source source(const YAML::Node& yaml) const {
    Source source = origin_;
    if (source.kind == Source::Kind::file && !yaml.Mark().is_null())
      source.line = yaml.Mark().line + 1;
    return source;
  }

  // yaml-cpp marks plain scalars with "?" and quoted ones with "!": quoted text stays text.
  static void convert_scalar(const YAML::Node& yaml, Node& node) {
    const std::string& word = yaml.Scalar();
    const bool plain = yaml.Tag() != "!" && yaml.Tag() != "tag:yaml.org,2002:str";
    if (plain && is_one_of(word, {"", "~", "null", "Null", "NULL"})) return;
    const bool yes = is_one_of(word, {"true", "True", "TRUE"});
    if (plain && (yes || is_one_of(word, {"false", "False", "FALSE"}))) {
      node.kind = Node::Kind::boolean;
      node.boolean = yes;
    } else if (!plain || !parse_number(word, node)) {
      node.kind = Node::Kind::text;
      node.text = word;
    }
  }

  void convert_list(const YAML::Node& yaml, Node& node, int depth) {
    node.kind = Node::Kind::list;
    for (const YAML::Node& item : yaml) node.items.push_back(convert(item, depth + 1));
  }

  void convert_map(const YAML::Node& yaml, Node& node, int depth) {
    node.kind = Node::Kind::map;
    for (const auto& pair : yaml) {
      const Source where = source(pair.first);
      TESSERA_CHECK(pair.first.IsScalar(), Code::invalid_config,
                    fmt::format("{}: a key must be a word", where.to_string()));
      const std::string& key = pair.first.Scalar();
      if (const Node* other = node.find(key)) {
        fail(Code::invalid_config,
             fmt::format("{}: key `{}` is given twice; the first is in line {}", where.to_string(),
                         key, other->source.line));
      }
      Node value = convert(pair.second, depth + 1);
      // The key's line, as an empty value has none and a section begins below.
      value.source = where;
      node.keys.push_back(key);
      node.items.push_back(std::move(value));
    }
  }

  Source origin_;
  std::size_t count_ = 0;
};

Node load(const std::string& text, const Source& origin) {
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    TESSERA_CHECK(documents.size() <= 1, Code::invalid_config,
                  fmt::format("{}: holds {} YAML documents (separated by ---); only one is read",
                              origin.file, documents.size()));
    Node empty;
    empty.source = origin;
    return documents.empty() ? empty : YamlConverter(origin).convert(documents.front());
  } catch (const YAML::Exception& error) {
    Source where = origin;
    where.line = error.mark.is_null() ? 1 : error.mark.line + 1;
    const int column = error.mark.is_null() ? 1 : error.mark.column + 1;
    const std::string place =
        origin.kind == Source::Kind::file ? fmt::format(" (column {})", column) : "";
    fail(Code::invalid_config,
         fmt::format("{}: not valid YAML: {}{}", where.to_string(), error.msg, place));
  }
}

}  // namespace

Node parse_yaml(const std::string& text, const std::string& name) {
  return load(text, {Source::Kind::file, name, 1, ""});
}

Node parse_override(const std::string& text, const std::string& argument) {
  try {
    return load(text, {Source::Kind::set, "", 0, ""});
  } catch (const Error& error) {
    fail(error.code(), fmt::format("{} (in `--set {}`)", error.what(), argument));
  }
}

Node parse(const std::string& text, const std::string& name) {
  return is_json_name(name) ? parse_json(text, name) : parse_yaml(text, name);
}

}  // namespace tessera::config
