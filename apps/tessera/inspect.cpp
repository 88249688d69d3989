// SPDX-License-Identifier: Apache-2.0
// tessera inspect: what is in a checkpoint, a model folder, a safetensors or an indexed token file,
// how two of them differ, and a page that shows a run.
#include <iostream>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"
#include "tessera/checkpoint/checksum.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/inference/served_model.hpp"

#include "apps/tessera/inspect/compare.hpp"
#include "apps/tessera/inspect/contents.hpp"
#include "apps/tessera/inspect/listing.hpp"
#include "apps/tessera/inspect/run_page.hpp"
#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

using Damages = std::vector<checkpoint::Damage>;

// Like diff: 0 equal, 1 different, 2 trouble.
constexpr int kDifferent = 1;

struct Arguments {
  std::string file;
  std::string compare;
  std::string html;
  bool verify = false;
  bool statistics = false;
  bool json = false;
};

void print(const Arguments& arguments, const Json& content, std::string (*format)(const Json&)) {
  std::cout << (arguments.json ? content.dump(2) + "\n" : format(content));
}

Json damage_json(const Damages& damages) {
  Json list = Json::array();
  for (const auto& damage : damages)
    list.push_back({{"dataset", damage.path},
                    {"expected", checkpoint::format_checksum(damage.expected)},
                    {"found", checkpoint::format_checksum(damage.found)}});
  return list;
}

// Errors if a dataset is not what was saved.
void check_whole(const std::string& path, const Damages& damages) {
  std::string text;
  for (const auto& damage : damages)
    text += fmt::format("\n  {}: expected {}, found {}", damage.path,
                        checkpoint::format_checksum(damage.expected),
                        checkpoint::format_checksum(damage.found));
  TESSERA_CHECK(damages.empty(), Code::io,
                fmt::format("'{}' is damaged in {} dataset(s):{}", path, damages.size(), text));
}

void show(const Arguments& arguments, const std::optional<Damages>& damages) {
  const auto contents = open_contents(arguments.file);
  Json listing = list_contents(*contents, arguments.statistics);
  if (damages) listing["damaged"] = damage_json(*damages);
  print(arguments, listing, format_listing);
  if (!damages) return;
  check_whole(contents->facts()["file"], *damages);
  if (!arguments.json) std::cout << "every checksum is right\n";
}

std::string checkpoint_path(const std::string& name) {
  const auto location = inference::locate_model(name);
  TESSERA_CHECK(location.is_checkpoint, Code::invalid_argument,
                fmt::format("--verify wants a checkpoint, and '{}' is not one: only checkpoints "
                            "have checksums",
                            name));
  return location.path;
}

// The ranks share the reading; rank 0 speaks.
int verify_on_all_ranks(const Arguments& arguments) {
  return on_all_ranks({}, [&](Runtime& runtime) {
    Communicator& world = runtime.world();
    std::string path;
    agreeing(world, [&] {
      if (runtime.rank() == 0) path = checkpoint_path(arguments.file);
    });
    const checkpoint::Reader reader(world, world.broadcast_text(path, 0));
    const Damages damages = reader.verify(world);
    if (runtime.rank() == 0) show(arguments, damages);
    check_whole(reader.path(), damages);
  });
}

int compare(const Arguments& arguments) {
  const Json comparison =
      compare_contents(*open_contents(arguments.file), *open_contents(arguments.compare));
  print(arguments, comparison, format_comparison);
  return comparison["equal"].get<bool>() ? 0 : kDifferent;
}

int write_page(const Arguments& arguments) {
  write_text(arguments.html, make_run_page(arguments.file));
  std::cout << fmt::format("wrote {}\n", arguments.html);
  return 0;
}

int inspect(const Arguments& arguments) {
  if (arguments.verify && launcher_size() > 1) return verify_on_all_ranks(arguments);
  if (launcher_rank() != 0) return 0;
  if (!arguments.compare.empty()) return compare(arguments);
  if (!arguments.html.empty()) return write_page(arguments);
  std::optional<Damages> damages;
  if (arguments.verify) damages = checkpoint::Reader(checkpoint_path(arguments.file)).verify();
  show(arguments, damages);
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Command& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = app.add_subcommand(
      "inspect", "Show what is in a checkpoint, model folder, safetensors or indexed token file");
  sub->footer(
      "--verify under mpirun shares the reading among the ranks.\n"
      "--compare ends with 0 if the two are equal, 1 if they differ, 2 if one cannot be read.");
  sub->add_option("file", arguments->file, "File, folder of a run or model, or prefix")
      ->required()
      ->type_name("FILE");
  auto* verify =
      sub->add_flag("--verify", arguments->verify, "Recompute the checksums of a checkpoint");
  sub->add_flag("--stats", arguments->statistics,
                "Minimum, maximum, mean and root mean square of every tensor; NaN and infinities");
  auto* other =
      sub->add_option("--compare", arguments->compare, "Tell how the tensors of OTHER differ")
          ->type_name("OTHER")
          ->excludes(verify);
  auto* json = sub->add_flag("--json", arguments->json, "Print JSON");
  sub->add_option("--html", arguments->html,
                  "Show a run's folder as one page: curves, weight norms, traffic, memory")
      ->type_name("OUT.html")
      ->excludes(verify)
      ->excludes(other)
      ->excludes(json);
  sub->callback([&command, arguments] { command = [arguments] { return inspect(*arguments); }; });
}

}  // namespace tessera::app
