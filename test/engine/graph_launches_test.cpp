// SPDX-License-Identifier: Apache-2.0
// What the host puts on streams for a micro-batch that is a graph. Only the emulation can count it.
#include <gtest/gtest.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/engine/device_choice.hpp"
#include "tessera/engine/engine.hpp"

#include "emulation/emulation.hpp"
#include "support/tiny_model.hpp"

namespace tessera::engine {
namespace {

using test::TinyModel;

/// Pieces of work and kernels of a step of `micro_batches`, when each shape has been there twice.
struct Counts {
  std::int64_t enqueued, kernels;
};
Counts count_step(Communicator& group, Device device, int micro_batches, bool graph) {
  const TinyModel tiny;
  const auto model = tiny.model();
  EngineOptions options;
  options.cuda_graph = graph;
  options.zero.device = device;
  options.zero.accumulation_steps = micro_batches;
  Engine engine(group, *model, options);
  const auto step = [&] {
    std::vector<nn::Batch> micro(static_cast<std::size_t>(micro_batches), tiny.batch(0, 0, 1));
    engine.train_step(micro);
    engine.stream().synchronize();
  };
  step();
  step();
  const Counts before{emulation::enqueued(), emulation::launches()};
  step();
  return {emulation::enqueued() - before.enqueued, emulation::launches() - before.kernels};
}

TEST(GraphLaunches, AMicroBatchIsOneOfThem) {
  set_threads(1);
  Runtime runtime;
  const Device gpu = choose_device(runtime, "cuda");
  const auto more = [&](bool graph) {
    const Counts three = count_step(runtime.world(), gpu, 3, graph);
    const Counts two = count_step(runtime.world(), gpu, 2, graph);
    return Counts{three.enqueued - two.enqueued, three.kernels - two.kernels};
  };
  const Counts recorded = more(true), plain = more(false);
  // Its number, ids and targets go up; the graph; its losses come down, and an event says so.
  EXPECT_EQ(recorded.enqueued, 6);
  EXPECT_GT(plain.enqueued, 50);
  EXPECT_EQ(recorded.kernels, plain.kernels);
}

}  // namespace
}  // namespace tessera::engine
