// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/memory_check.hpp"

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/engine/estimate.hpp"

namespace tessera::engine {

void check_memory(Runtime& runtime, const nn::Model& model, const config::RunConfig& config) {
  agreeing(runtime.world(), [&] {
    const int stage = config.engine.zero.stage;
    const Estimate estimate = estimate_run(model, config, config.mesh.data, stage);
    const std::int64_t needed = estimate.total() * runtime.local_size();
    const std::int64_t available = available_host_memory();
    const auto bytes = [](std::int64_t count) { return format_bytes(static_cast<double>(count)); };
    TESSERA_CHECK(
        needed <= available, Code::out_of_memory,
        fmt::format(
            "this run needs about {} on a node that has {} free: {} rank(s) x {} = parameters "
            "{}, gradients {}, optimizer {}, gathered {}, buckets {}, activations {}{}. Try a "
            "higher engine.zero_optimization.stage (now {}), a smaller "
            "train_micro_batch_size_per_gpu (now {}), run.recompute: full, or fewer ranks a "
            "node; `tessera estimate` shows the choices",
            bytes(needed), bytes(available), runtime.local_size(), bytes(estimate.total()),
            bytes(estimate.parameters), bytes(estimate.gradients), bytes(estimate.optimizer),
            bytes(estimate.gathered), bytes(estimate.buckets), bytes(estimate.activations),
            estimate.snapshot > 0
                ? fmt::format(", copy for run.checkpoint.asynchronous {}", bytes(estimate.snapshot))
                : "",
            stage, config.engine.batch.micro));
  });
}

}  // namespace tessera::engine
