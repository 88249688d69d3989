// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/memory_check.hpp"

#include <algorithm>
#include <string>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/engine/estimate.hpp"

namespace tessera::engine {
namespace {

std::string bytes(std::int64_t count) {
  return format_bytes(static_cast<double>(count));
}

/// Memory that some ranks use together.
struct Pool {
  std::string name;
  std::int64_t available;
  std::int64_t ranks;
};

Pool pool_of(Runtime& runtime, Device device) {
  if (device.is_cpu()) return {"a node", available_host_memory(), runtime.local_size()};
  const CudaDeviceInfo info = describe_cuda_device(device);
  const auto cards = runtime.world().all_gather_text(info.identity);
  return {fmt::format("{} ({})", device.to_string(), info.name), info.free_memory,
          std::ranges::count(cards, info.identity)};
}

}  // namespace

void check_memory(Runtime& runtime, const nn::Model& model, const config::RunConfig& config,
                  Device device) {
  const Pool pool = pool_of(runtime, device);
  agreeing(runtime.world(), [&] {
    const int stage = config.engine.zero.stage;
    Estimate estimate = estimate_run(model, config, config.mesh.data, stage);
    if (!device.is_cpu()) estimate.snapshot = 0;  // lies in host memory
    const std::int64_t needed = estimate.total() * pool.ranks;
    TESSERA_CHECK(
        needed <= pool.available, Code::out_of_memory,
        fmt::format(
            "this run needs about {} on {} that has {} free: {} rank(s) x {} = parameters "
            "{}, gradients {}, optimizer {}, gathered {}, buckets {}, activations {}{}. Try a "
            "higher engine.zero_optimization.stage (now {}), a smaller "
            "train_micro_batch_size_per_gpu (now {}), run.recompute: full, or fewer ranks a "
            "{}; `tessera estimate` shows the choices",
            bytes(needed), pool.name, bytes(pool.available), pool.ranks, bytes(estimate.total()),
            bytes(estimate.parameters), bytes(estimate.gradients), bytes(estimate.optimizer),
            bytes(estimate.gathered), bytes(estimate.buckets), bytes(estimate.activations),
            estimate.snapshot > 0
                ? fmt::format(", copy for run.checkpoint.asynchronous {}", bytes(estimate.snapshot))
                : "",
            stage, config.engine.batch.micro, device.is_cpu() ? "node" : "GPU"));
  });
}

}  // namespace tessera::engine
