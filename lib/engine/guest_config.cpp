// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/guest_config.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/config/reader.hpp"
#include "tessera/engine/options.hpp"
#include "tessera/engine/run_setup.hpp"

namespace tessera::engine {

GuestConfig read_guest_config(const std::string& text, int ranks) {
  config::ReadOptions options;
  options.allow_bare_engine = true;
  options.for_training = false;
  config::RunConfig run = config::read_run_text(text, "configuration", options);
  TESSERA_CHECK(run.device != "cuda", Code::not_supported,
                "device: cuda is not available yet for programs that bring their own data; leave "
                "it out, or set it to cpu");
  config::Facts facts;
  facts.ranks = ranks;
  facts.bf16_instructions = has_bf16_instructions();
  config::resolve(run, facts);
  for (const auto& [key, size] :
       {std::pair("mesh.pipeline", run.mesh.pipeline),
        std::pair("mesh.sequence", run.mesh.sequence), std::pair("mesh.tensor", run.mesh.tensor)})
    TESSERA_CHECK(size == 1, Code::not_supported,
                  fmt::format("{} is {}: programs that bring their own data train with the data "
                              "axis only; leave it at 1",
                              key, size));
  for (const std::string& notice : run.notices) log_info(notice);

  GuestConfig guest;
  guest.engine = engine_options(run);
  guest.accumulation = std::max<std::int64_t>(1, run.engine.batch.accumulation);
  guest.engine.zero.accumulation_steps = static_cast<int>(guest.accumulation);
  guest.model = model_options(run);
  if (!run.model.is_inline() || !run.model.json.empty()) guest.model_json = model_json(run);
  return guest;
}

}  // namespace tessera::engine
