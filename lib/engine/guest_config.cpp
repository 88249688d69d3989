// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/guest_config.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/config/reader.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/engine/device_choice.hpp"
#include "tessera/engine/options.hpp"
#include "tessera/engine/run_setup.hpp"

namespace tessera::engine {
namespace {

bool has_effect(std::string_view path) {
  constexpr std::string_view kSections[] = {"data.", "pipeline.", "comm.", "run."};
  constexpr std::string_view kObeyed[] = {"run.seed", "run.steps", "run.recompute",
                                          "run.recompute_every", "comm.reduce_every_micro_batch"};
  return std::ranges::none_of(kSections, [&](auto name) { return path.starts_with(name); }) ||
         std::ranges::find(kObeyed, path) != std::ranges::end(kObeyed);
}

/// What `tessera train` does, the program does itself or says elsewhere.
void refuse_what_has_no_effect(const config::RunConfig& run) {
  for (const config::Entry& entry : run.entries)
    TESSERA_CHECK(entry.source.kind != config::Source::Kind::file || has_effect(entry.path),
                  Code::invalid_config,
                  fmt::format("{}: `{}` has no effect in a program that brings its own data, where "
                              "`model`, `engine` and `run.seed` count; leave it out",
                              entry.source.to_string(), entry.path));
}

bool names_device(const config::RunConfig& run) {
  return std::ranges::any_of(run.entries, [](const config::Entry& entry) {
    return entry.path == "device" && entry.source.kind == config::Source::Kind::file;
  });
}

config::RunConfig read_run(const std::string& text) {
  config::ReadOptions options;
  options.allow_bare_engine = true;
  options.for_training = false;
  config::RunConfig run = config::read_run_text(text, "configuration", options);
  refuse_what_has_no_effect(run);
  if (!names_device(run)) run.device = "cpu";
  return run;
}

void check_mesh(const config::RunConfig& run) {
  for (const auto& [key, size] :
       {std::pair("mesh.pipeline", run.mesh.pipeline),
        std::pair("mesh.sequence", run.mesh.sequence), std::pair("mesh.tensor", run.mesh.tensor)})
    TESSERA_CHECK(size == 1, Code::not_supported,
                  fmt::format("{} is {}: programs that bring their own data train with the data "
                              "axis only; leave it at 1",
                              key, size));
}

GuestConfig guest_config(config::RunConfig& run, int ranks, Device device) {
  config::Facts facts;
  facts.ranks = ranks;
  facts.bf16_instructions = !device.is_cpu() || has_bf16_instructions();
  config::resolve(run, facts);
  check_mesh(run);
  for (const std::string& notice : run.notices) log_info(notice);

  GuestConfig guest;
  guest.engine = engine_options(run, device);
  guest.accumulation = std::max<std::int64_t>(1, run.engine.batch.accumulation);
  guest.engine.zero.accumulation_steps = static_cast<int>(guest.accumulation);
  guest.model = model_options(run);
  if (!run.model.is_inline() || !run.model.json.empty()) guest.model_json = model_json(run);
  return guest;
}

}  // namespace

GuestConfig read_guest_config(const std::string& text, Runtime& runtime) {
  return read_guest_config(text, runtime.world(), [&] {
    return choose_cuda_device(runtime.local_rank(), runtime.local_size());
  });
}

GuestConfig read_guest_config(const std::string& text, Communicator& group,
                              const std::function<Device()>& gpu) {
  config::RunConfig run;
  agreeing(group, [&] { run = read_run(text); });
  const Device device = choose_device(group, run.device, gpu);
  GuestConfig guest;
  agreeing(group, [&] { guest = guest_config(run, group.size(), device); });
  return guest;
}

}  // namespace tessera::engine
