// SPDX-License-Identifier: Apache-2.0
// Bytes sent and bytes held equal the closed formulas.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/device/memory.hpp"
#include "tessera/kernels/reduce.hpp"

#include "zero/bucket_plan.hpp"
#include "zero/training.hpp"
#include "zero/world.hpp"

namespace tessera::zero {
namespace {

using testing::ModelSpec;
using testing::usual_options;
using testing::world;

std::int64_t sum_over_ranks(std::int64_t value) {
  const Traffic::Pause pause(world().traffic());
  return world().all_reduce_scalar(value, Reduction::sum);
}

Traffic::Count total(const Traffic& traffic, const std::string& operation) {
  const Traffic::Count own = traffic.count(operation);
  return {sum_over_ranks(own.bytes), sum_over_ranks(own.messages)};
}

struct Case {
  int stage;
  DType dtype;
  int k;
  bool every;
  DType sums = DType::fp32;
  DType sent = dtype;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const int stage : {0, 1, 2, 3})
    for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16})
      for (const int k : {1, 3})
        for (const bool every : {false, true})
          for (const DType sums : {DType::fp32, dtype})
            for (const DType sent : {DType::fp32, DType::bf16, DType::fp16})
              if (k > 1 || (!every && sums == dtype))
                cases.push_back({stage, dtype, k, every, sums, sent});
  return cases;
}

Options options_of(const Case& c) {
  Options options = usual_options(c.stage, c.dtype);
  options.accumulation_steps = c.k;
  options.reduce_every_micro_batch = c.every;
  options.accumulation_dtype = c.sums;
  options.communication_dtype = c.sent;
  options.reduce_bucket_size = 20000;
  options.gather_bucket_size = 15000;
  return options;
}

std::string text(const Case& c) {
  return "stage " + std::to_string(c.stage) + " " + to_string(c.dtype) + " k " +
         std::to_string(c.k) + (c.every ? " every" : "") + " sums " + to_string(c.sums) + " sent " +
         to_string(c.sent);
}

TEST(Traffic, EqualsTheFormulas) {
  const std::int64_t n = world().size();
  const std::int64_t pairs = n * (n - 1);  // messages of one bucket, all ranks together
  for (const Case& c : all_cases()) {
    SCOPED_TRACE(text(c));
    const Options options = options_of(c);
    PartitionedOptimizer optimizer(world(), options);
    testing::declare(optimizer, testing::awkward_model());
    optimizer.commit();
    testing::load_initial_values(optimizer);
    Traffic& traffic = world().traffic();
    traffic.reset();
    testing::one_step(optimizer);

    const FlatLayout& layout = optimizer.layout();
    const auto volume = [&](DType type) {
      return (n - 1) * layout.padded() * static_cast<std::int64_t>(size_of(type));
    };
    const std::int64_t reductions = c.stage >= 2 || c.every ? c.k : 1;
    const auto slices =
        static_cast<std::int64_t>(plan_slices(layout, options.reduce_bucket_size, true).size());
    const auto gathers =
        static_cast<std::int64_t>(plan_slices(layout, options.gather_bucket_size, false).size());
    std::int64_t units = 0;
    for (const FlatUnit& unit : layout.units()) units += unit.padded > 0 ? 1 : 0;

    const Traffic::Count reduced = total(traffic, "all_reduce");
    const Traffic::Count scattered = total(traffic, "reduce_scatter");
    const Traffic::Count gathered = total(traffic, "all_gather");
    if (c.stage == 0) {
      const bool staged = (c.k > 1 && !c.every ? c.sums : c.dtype) != c.sent;
      const auto ranges =
          static_cast<std::int64_t>(plan_ranges(layout, options.reduce_bucket_size).size());
      EXPECT_EQ(reduced.bytes, 2 * reductions * volume(c.sent));
      EXPECT_EQ(reduced.messages, 2 * reductions * pairs * (staged ? slices : ranges));
      EXPECT_EQ(scattered.bytes, 0);
      EXPECT_EQ(gathered.bytes, 0);
    } else {
      EXPECT_EQ(reduced.bytes, 0);
      EXPECT_EQ(scattered.bytes, reductions * volume(c.sent));
      EXPECT_EQ(scattered.messages, reductions * pairs * slices);
      EXPECT_EQ(gathered.bytes, (c.stage == 3 ? 2 * c.k : 1) * volume(c.dtype));
      EXPECT_EQ(gathered.messages, (c.stage == 3 ? 2 * c.k * units : gathers) * pairs);
    }
    EXPECT_EQ(total(traffic, "scalars").messages > 0, n > 1);
    traffic.reset();
  }
}

TEST(Traffic, OfLentArraysHasTheSameVolume) {
  const std::int64_t n = world().size();
  for (const auto& [stage, sent] : {std::pair(0, DType::fp32),
                                    {1, DType::fp32},
                                    {2, DType::fp32},
                                    {3, DType::fp32},
                                    {0, DType::bf16},
                                    {2, DType::bf16}}) {
    Options options = usual_options(stage, DType::fp32);
    options.communication_dtype = sent;
    PartitionedOptimizer optimizer(world(), options);
    std::vector<float> w(1009), g(1009);
    optimizer.add("w", {1009}, w.data(), g.data());
    optimizer.commit();
    Traffic& traffic = world().traffic();
    traffic.reset();
    optimizer.step();
    const std::int64_t volume = (n - 1) * optimizer.layout().padded() * 4;
    const std::int64_t reduced = volume * static_cast<std::int64_t>(size_of(sent)) / 4;
    EXPECT_EQ(total(traffic, "all_reduce").bytes, stage == 0 ? 2 * reduced : 0);
    EXPECT_EQ(total(traffic, "reduce_scatter").bytes, stage == 0 ? 0 : reduced);
    EXPECT_EQ(total(traffic, "all_gather").bytes, stage == 0 ? 0 : volume);
    traffic.reset();
  }
}

struct Held {
  std::int64_t parameters, gradients, optimizer;
};

Held now() {
  const MemoryLedger& ledger = memory_ledger(Device{});
  return {ledger.current(Purpose::parameters), ledger.current(Purpose::gradients),
          ledger.current(Purpose::optimizer)};
}

/// Two fp32 states, and what a 16-bit weight lacks of its master.
std::int64_t optimizer_bytes(DType dtype) {
  if (dtype == DType::bf16) return 10;
  return dtype == DType::fp16 ? 12 : 8;
}

/// The right columns of the table in doc/numerics.md.
std::int64_t bytes_in_all(const Case& c, std::int64_t whole, std::int64_t part) {
  const std::int64_t fp32[] = {16 * whole, 8 * whole + 8 * part, 4 * whole + 12 * part, 16 * part};
  const std::int64_t bf16[] = {14 * whole, 4 * whole + 10 * part, 2 * whole + 12 * part, 14 * part};
  const std::int64_t fp16[] = {16 * whole, 4 * whole + 12 * part, 2 * whole + 14 * part, 16 * part};
  if (c.dtype == DType::bf16) return bf16[c.stage];
  return c.dtype == DType::fp16 ? fp16[c.stage] : fp32[c.stage];
}

TEST(Memory, EqualsTheFormulas) {
  const std::int64_t n = world().size();
  for (const Case& c : all_cases()) {
    SCOPED_TRACE(text(c));
    const Held before = now();
    PartitionedOptimizer optimizer(world(), options_of(c));
    testing::declare(optimizer, testing::awkward_model());
    optimizer.commit();
    testing::load_initial_values(optimizer);
    testing::one_step(optimizer);
    const Held after = now();

    const std::int64_t whole = optimizer.layout().padded(), part = whole / n;
    const auto e = static_cast<std::int64_t>(size_of(c.dtype));
    const auto gradient_bytes = static_cast<std::int64_t>(size_of(c.k > 1 ? c.sums : c.dtype));
    const bool whole_gradients = c.stage == 0 || (c.stage == 1 && !c.every);
    EXPECT_EQ(after.parameters - before.parameters, (c.stage == 3 ? part : whole) * e);
    EXPECT_EQ(after.gradients - before.gradients,
              (whole_gradients ? whole : part) * gradient_bytes);
    EXPECT_EQ(after.optimizer - before.optimizer,
              (c.stage == 0 ? whole : part) * optimizer_bytes(c.dtype));
    if (c.k > 1) continue;
    const std::int64_t all = after.parameters + after.gradients + after.optimizer -
                             before.parameters - before.gradients - before.optimizer;
    EXPECT_EQ(all, bytes_in_all(c, whole, part));
  }
}

/// Large enough that the smallest bucket, a norm block of each rank, lies inside one unit.
constexpr std::int64_t kUniform = 16384;

/// Units of one size, as a transformer's blocks.
ModelSpec uniform_model(int units) {
  ModelSpec model;
  for (int u = 0; u < units; ++u) {
    const std::string name = "h." + std::to_string(u);
    model.push_back({name, {{name + ".weight", {kUniform}, {}}}});
  }
  return model;
}

TEST(Memory, OfWorkInProgressIsAFewUnits) {
  MemoryLedger& ledger = memory_ledger(Device{});
  for (const int stage : {2, 3}) {
    for (const auto& [overlap, sent] : {std::pair(false, DType::bf16),
                                        {true, DType::bf16},
                                        {false, DType::fp32},
                                        {true, DType::fp32}}) {
      Options options = usual_options(stage, DType::bf16);
      options.communication_dtype = sent;
      options.reduce_bucket_size = 1;
      options.prefetch_elements = kUniform + 1000;  // one unit ahead
      options.overlap = overlap;
      const std::int64_t buckets = ledger.current(Purpose::buckets);
      PartitionedOptimizer optimizer(world(), options);
      testing::declare(optimizer, uniform_model(12));
      optimizer.commit();
      testing::load_initial_values(optimizer);
      ledger.reset_peaks();
      testing::one_step(optimizer);
      const std::int64_t unit = optimizer.layout().unit(0).padded * 2;
      EXPECT_EQ(ledger.peak(Purpose::gathered), stage == 3 ? 2 * unit : 0);
      // Two buffers of the smallest bucket, a norm block of each rank, where gradients are rounded.
      const std::int64_t staging =
          sent == DType::fp32 ? 2 * world().size() * kernels::kNormBlock * 4 : 0;
      EXPECT_EQ(ledger.peak(Purpose::buckets) - buckets, (overlap ? 2 : 1) * unit + staging);
      EXPECT_EQ(ledger.current(Purpose::gathered), 0);
    }
  }
}

TEST(Gathering, HappensOnceForEachUseWhateverIsPrefetched) {
  const std::int64_t n = world().size();
  for (const std::int64_t ahead : {0, 20000, 1 << 30}) {
    Options options = usual_options(3, DType::fp32);
    options.prefetch_elements = ahead;
    PartitionedOptimizer optimizer(world(), options);
    testing::declare(optimizer, uniform_model(5));
    optimizer.commit();
    testing::load_initial_values(optimizer);
    world().traffic().reset();
    testing::micro_batch(optimizer, 0);
    EXPECT_EQ(total(world().traffic(), "all_gather").messages, 2 * 5 * n * (n - 1));
    optimizer.step();
    EXPECT_EQ(total(world().traffic(), "all_gather").messages, 2 * 5 * n * (n - 1));
    world().traffic().reset();
  }
}

TEST(Gathering, OfATiedUnitHappensOnceInForwardAndOnceInBackward) {
  const std::int64_t n = world().size();
  PartitionedOptimizer optimizer(world(), usual_options(3, DType::fp32));
  testing::declare(optimizer, uniform_model(3));
  optimizer.commit();
  testing::load_initial_values(optimizer);
  world().traffic().reset();
  // Unit 0 is used first and last in forward, so also first and last in backward.
  optimizer.gather(0);
  optimizer.gather(1);
  optimizer.release(1);
  optimizer.gather(0);
  optimizer.release(0);
  optimizer.gather(0);
  optimizer.gather(0);
  optimizer.release(0);
  EXPECT_EQ(total(world().traffic(), "all_gather").messages, 3 * n * (n - 1));
  world().traffic().reset();
}

}  // namespace
}  // namespace tessera::zero
