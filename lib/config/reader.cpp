// SPDX-License-Identifier: Apache-2.0
// From a file's text to a RunConfig: parse, override, check against the table, fill defaults.
#include "tessera/config/reader.hpp"

#include <filesystem>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"

#include "config/check.hpp"
#include "config/mesh.hpp"
#include "config/named_type.hpp"
#include "config/overrides.hpp"
#include "config/parse.hpp"
#include "config/project.hpp"
#include "config/resolve.hpp"

namespace tessera::config {
namespace {

/// A file that the user named: that it cannot be read is a mistake in the input.
std::string read_input(const std::filesystem::path& path, const std::string& context) {
  try {
    return read_text(path);
  } catch (const Error& error) {
    fail(Code::invalid_config, context + error.what());
  }
}

/// The DeepSpeed configuration that `engine` names.
Node read_engine_file(const Node& reference, const std::string& run_file) {
  std::filesystem::path path = reference.text;
  if (path.is_relative() && reference.source.kind == Source::Kind::file)
    path = std::filesystem::path(run_file).parent_path() / path;
  const std::string text =
      read_input(path, fmt::format("{}: `engine` is {}, the path of a DeepSpeed configuration: ",
                                   reference.source.to_string(), describe(reference)));
  Node engine = parse(text, path.string());
  TESSERA_CHECK(engine.is(Node::Kind::map), Code::invalid_config,
                fmt::format("{}: holds {}; a DeepSpeed configuration is a section with keys like "
                            "train_batch_size",
                            engine.source.to_string(), describe(engine)));
  return engine;
}

/// The whole run file as one tree, whatever form it has.
Node assemble(const std::string& text, RunConfig& config, const ReadOptions& options,
              Problems& problems) {
  Node root = parse(text, config.file);
  const Source where = root.source;
  if (root.is(Node::Kind::null)) root.kind = Node::Kind::map;
  TESSERA_CHECK(root.is(Node::Kind::map), Code::invalid_config,
                fmt::format("{}: holds {}; a run file is a section with the keys model, data, run, "
                            "engine, …",
                            where.to_string(), describe(root)));
  if (looks_like_engine(root)) {
    TESSERA_CHECK(
        options.allow_bare_engine, Code::invalid_config,
        fmt::format("{}: is a DeepSpeed configuration alone; write a run file with model, "
                    "data and run whose `engine` names it",
                    config.file));
    config.bare_engine = true;
    Node wrapped;
    wrapped.kind = Node::Kind::map;
    wrapped.keys = {"engine"};
    wrapped.items.push_back(std::move(root));
    root = std::move(wrapped);
  }
  const auto names_engine = [](const std::string& set) { return set.starts_with("engine="); };
  for (const std::string& set : options.set)
    if (names_engine(set)) apply_override(root, set);
  if (Node* engine = root.find("engine"); engine != nullptr && engine->is(Node::Kind::text))
    *engine = read_engine_file(*engine, config.file);
  rename_aliases(root, problems);
  for (const std::string& set : options.set)
    if (!names_engine(set)) apply_override(root, set);
  rename_aliases(root, problems);
  return root;
}

bool is_enabled(const Node& root, const char* section) {
  const Node* at = &root;
  for (const char* key : {"engine", section, "enabled"}) {
    if (at != nullptr) at = at->find(key);
  }
  return at != nullptr && at->boolean;
}

/// DeepSpeed refuses this too; said here, because fp16 alone is refused for another reason.
void check_precision(const Node& root, Problems& problems) {
  if (!is_enabled(root, "fp16") || !is_enabled(root, "bf16")) return;
  const Node& fp16 = *root.find("engine")->find("fp16")->find("enabled");
  problems.add(
      Code::invalid_config,
      fmt::format("{}: `engine.fp16.enabled` and `engine.bf16.enabled` are both true; only "
                  "one of them can be",
                  fp16.source.to_string()));
}

std::string group_of(const std::string& path) {
  return path.substr(0, path.rfind('.'));
}

/// One line a key without effect; keys of a feature that is off share a line.
void add_notices(const std::vector<Given>& given, std::vector<std::string>& notices) {
  std::string group;
  for (const Given& one : given) {
    const std::string place = one.value.source.to_string();
    if (one.row->status == Status::no_effect) {
      notices.push_back(
          fmt::format("{}: `{}` has no effect here: {}", place, one.path, one.row->note));
    } else if (one.row->status == Status::dependent && group_of(one.path) != group) {
      group = group_of(one.path);
      notices.push_back(
          fmt::format("{}: `{}` and its neighbours have no effect: what they tune is switched off",
                      place, one.path));
    }
  }
}

/// `auto` where only the default can be meant.
void settle_auto(Given& one) {
  const bool word = one.value.is_text("auto") && one.row->type.automatic;
  if (!word || is_open(one.path) || one.row->fallback == "\"auto\"") return;
  const std::string place = one.value.source.to_string();
  one.value = parse_json(one.row->fallback, one.path);
  one.value.source = {Source::Kind::derived, "", 0, fmt::format("auto ({}), the default", place)};
}

Entry make_entry(Given one) {
  settle_auto(one);
  // A single text stands for a list of one.
  if (one.value.is(Node::Kind::text) && one.row->type.kinds & Type::list &&
      one.row->type.items == Type::text && !one.value.is_text("auto")) {
    Node list;
    list.kind = Node::Kind::list;
    list.source = one.value.source;
    list.items = {std::move(one.value)};
    one.value = std::move(list);
  }
  const bool automatic = one.value.is_text("auto") && one.row->type.automatic;
  return {one.path, to_json_text(one.value), one.value.source, automatic};
}

/// Keys that are given, and the defaults of supported ones, in the order of the table.
class EntryBuilder {
 public:
  EntryBuilder(const std::vector<Given>& given, std::vector<Entry>& entries)
      : given_(given), entries_(entries) {}

  void add(const Row& row, bool with_default) {
    bool found = false;
    for (const Given& one : given_) {
      if (one.row != &row) continue;
      entries_.push_back(make_entry(one));
      found = true;
    }
    if (found || !with_default || row.status != Status::supported) return;
    Node value = parse_json(row.fallback, row.path);
    value.source = Source{};
    entries_.push_back(make_entry({row.path, &row, std::move(value)}));
  }

 private:
  const std::vector<Given>& given_;
  std::vector<Entry>& entries_;
};

/// "" without an inline model.
std::string inline_model_type(const std::vector<Given>& given) {
  std::string type;
  for (const Given& one : given) {
    if (one.path == "model.model_type") return one.value.text;
    if (one.path.starts_with("model.")) type = kUsualModel;
  }
  return type;
}

void fill_entries(RunConfig& config, const std::vector<Given>& given, Problems& problems) {
  EntryBuilder builder(given, config.entries);
  std::vector<Given> named;
  const auto add_named = [&](const char* prefix, const std::vector<NamedType>& types) {
    for (Given& one : read_named_type(prefix, types, given, problems)) {
      config.entries.push_back(make_entry(one));
      named.push_back(std::move(one));
    }
  };
  const std::string model_type = inline_model_type(given);
  for (const Row& row : table()) {
    // The mesh belongs to the batch sizes.
    const bool engine = row.path.starts_with("engine.") || row.path.starts_with("mesh.");
    if (row.path == "engine" || row.path.ends_with(".params")) continue;
    if (row.path == "engine.optimizer.type")
      add_named(kOptimizer, optimizer_types());
    else if (row.path == "engine.scheduler.type")
      add_named(kScheduler, scheduler_types());
    else if (row.path == "model")
      builder.add(row, model_type.empty() && !config.bare_engine);
    else if (row.path.starts_with("model."))
      builder.add(row, !model_type.empty() && is_of_model(row, model_type));
    else
      builder.add(row, row.path.find('*') == std::string::npos && (engine || !config.bare_engine));
  }
  add_notices(given, config.notices);
  add_notices(named, config.notices);
}

}  // namespace

RunConfig read_run_text(const std::string& text, const std::string& name,
                        const ReadOptions& options) {
  RunConfig config;
  config.file = name;
  config.for_training = options.for_training;
  Problems problems;
  const Node root = assemble(text, config, options, problems);
  check_precision(root, problems);
  const std::vector<Given> given = walk(root, problems);
  fill_entries(config, given, problems);
  Values values(config.entries);
  check_mesh(values, problems);
  problems.throw_if_any();
  check_consistency(config, problems);
  problems.throw_if_any();
  project(config);
  return config;
}

RunConfig read_run_file(const std::string& path, const ReadOptions& options) {
  return read_run_text(read_input(path, ""), path, options);
}

}  // namespace tessera::config
