// SPDX-License-Identifier: Apache-2.0
// What ZeRO costs without a model around it: gather, reduce, norm, update, gather of a stack of
// equal units, for each stage. Writing the (zero) gradients is part of the measured time.
#include <memory>
#include <string>
#include <vector>

#include "tessera/comm/runtime.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/zero/partitioned_optimizer.hpp"

#include "support/bench.hpp"
#include "support/ranks.hpp"

namespace tessera::bench {
namespace {

constexpr int kUnits = 8;
constexpr std::int64_t kElements = std::int64_t{1} << 20;  // of each unit

std::unique_ptr<zero::PartitionedOptimizer> make(Communicator& world, int stage, DType dtype) {
  zero::Options options;
  options.stage = stage;
  options.dtype = dtype;
  options.gradient_clipping = 1;
  auto optimizer = std::make_unique<zero::PartitionedOptimizer>(world, options);
  for (int u = 0; u < kUnits; ++u) {
    const std::string name = "h." + std::to_string(u);
    optimizer->begin_unit(name);
    optimizer->add(name + ".weight", {1024, kElements / 1024});
  }
  optimizer->commit();
  return optimizer;
}

/// Forward, backward and step of an engine whose layers cost nothing but writing zero gradients.
void one_step(zero::PartitionedOptimizer& optimizer) {
  for (int u = 0; u < kUnits; ++u) {
    optimizer.gather(u);
    optimizer.prefetch_after(u, zero::Direction::forward);
    optimizer.release(u);
  }
  for (int u = kUnits - 1; u >= 0; --u) {
    optimizer.gather(u);
    optimizer.prefetch_after(u, zero::Direction::backward);
    optimizer.attach_gradients(u);
    Stream().fill_zero(optimizer.gradient_data(u),
                       static_cast<std::size_t>(kElements) * size_of(optimizer.gradient_dtype()));
    optimizer.gradients_ready(u);
    optimizer.release(u);
  }
  optimizer.end_micro_batch();
  optimizer.step();
}

void measure(Program& program, Communicator& world, DType dtype) {
  const std::string name = to_string(dtype);
  if (!program.wants(name)) return;
  std::vector<std::unique_ptr<zero::PartitionedOptimizer>> optimizers;
  Case work;
  work.name = name;
  work.work = static_cast<double>(kUnits * kElements);
  work.unit = "parameter";
  for (int stage = 0; stage < 4; ++stage) {
    optimizers.push_back(make(world, stage, dtype));
    work.variants.push_back({.name = "stage " + std::to_string(stage),
                             .run = [o = optimizers.back().get()] { one_step(*o); }});
  }
  const CaseResult result = program.measure(work, 0.5);
  if (!result.variants.empty())
    program.value(name + " stage 3 over stage 0", 1 / result["stage 3"].speed_ratio);
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  Runtime runtime;
  Communicator& world = runtime.world();
  bench::Program program("zero_step", argc, argv, bench::ranks_of(world));
  bench::measure(program, world, DType::fp32);
  bench::measure(program, world, DType::bf16);
  return program.finish();
}
