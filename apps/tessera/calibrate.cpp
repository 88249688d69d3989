// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/calibrate.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/random.hpp"
#include "tessera/base/timer.hpp"
#include "tessera/device/memory.hpp"
#include "tessera/kernels/elementwise.hpp"
#include "tessera/kernels/gemm.hpp"

namespace tessera::app {
namespace {

constexpr int kRounds = 7;

// Seconds of `work` at its best, on the rank where that is longest. All ranks begin together.
double best_time(Communicator& world, const std::function<void()>& work) {
  double best = 1e30;
  work();
  for (int round = 0; round < kRounds; ++round) {
    world.barrier();
    const Timer timer;
    work();
    best = std::min(best, timer.seconds());
  }
  return world.all_reduce_scalar(best, Reduction::max);
}

std::vector<unsigned char> random_array(std::int64_t count, DType dtype) {
  const RandomStream random(1, 0);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = random.uniform(i) - 0.5f;
  std::vector<unsigned char> result(values.size() * size_of(dtype));
  convert(values.data(), DType::fp32, result.data(), dtype, values.size());
  return result;
}

// FLOP/s of tokens x width x width products.
double product_rate(Communicator& world, DType dtype, std::int64_t width) {
  constexpr std::int64_t kTokens = 1024;
  const auto x = random_array(kTokens * width, dtype), w = random_array(width * width, dtype);
  auto y = random_array(kTokens * width, dtype);
  kernels::Gemm product{
      .a = x.data(), .b = w.data(), .c = y.data(), .m = kTokens, .n = width, .k = width};
  product.input_type = product.output_type = dtype;
  const double flops = 2.0 * static_cast<double>(kTokens * width * width);
  return flops / best_time(world, [&] { kernels::gemm({}, product); });
}

// Bytes read and written a second by additions of arrays that no cache holds.
double memory_rate(Communicator& world) {
  constexpr std::int64_t kCount = std::int64_t{1} << 24;
  const std::vector<float> a(kCount, 1), b(kCount, 2);
  std::vector<float> y(kCount);
  const double seconds = best_time(
      world, [&] { kernels::add({}, a.data(), b.data(), y.data(), kCount, DType::fp32); });
  return 3.0 * 4 * kCount / seconds;
}

planning::Link measure_link(Communicator& group, Communicator& world) {
  std::vector<float> data(std::size_t{1} << 22);
  const auto all_reduce = [&](std::int64_t count) {
    return best_time(
        world, [&] { group.all_reduce(data.data(), count, DType::fp32, Reduction::sum).wait(); });
  };
  const double n = group.size(), small = all_reduce(1);
  const auto count = static_cast<std::int64_t>(data.size());
  const double sent = 2 * (n - 1) / n * 4 * static_cast<double>(count);
  return {sent / all_reduce(count), small / (2 * std::ceil(std::log2(n)))};
}

void measure_links(Runtime& runtime, planning::Machine& machine) {
  Communicator& world = runtime.world();
  const NodeMap& nodes = world.nodes();
  const int node = nodes.node_of[static_cast<std::size_t>(world.rank())];
  const auto group = world.split(node, world.rank(), "node");
  // Without a second rank messages are copies.
  machine.node = {machine.memory_bandwidth / 3, 1e-6};
  if (world.all_reduce_scalar(std::int64_t{group->size()}, Reduction::min) > 1)
    machine.node = measure_link(*group, world);
  machine.network = nodes.nodes() > 1 ? measure_link(world, world) : machine.node;
}

}  // namespace

planning::Machine calibrate(Runtime& runtime) {
  Communicator& world = runtime.world();
  planning::Machine machine;
  machine.name = cpu_model_name();
  machine.flops_fp32 = product_rate(world, DType::fp32, 1024);
  machine.flops_half = product_rate(world, DType::bf16, 1024);
  const double narrow = product_rate(world, DType::fp32, 64);
  machine.half_width = std::max(0.0, 64 * (machine.flops_fp32 / narrow - 1));
  machine.memory_bandwidth = memory_rate(world);
  machine.ranks_per_node = runtime.local_size();
  machine.memory_bytes = available_host_memory() / runtime.local_size();
  measure_links(runtime, machine);
  return machine;
}

}  // namespace tessera::app
