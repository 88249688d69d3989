// SPDX-License-Identifier: Apache-2.0
// The order of blocks, the built-in variables and the faults of kernels.
#include "emulation/executor.hpp"

#include <cstdlib>
#include <numeric>

#include <fmt/format.h>

#include "emulation/async_copy.hpp"
#include "emulation/block.hpp"
#include "emulation/builtin.hpp"
#include "emulation/protection.hpp"
#include "emulation/shared_memory.hpp"
#include "emulation/traffic.hpp"

extern "C" {
uint3 threadIdx{};
uint3 blockIdx{};
dim3 blockDim;
dim3 gridDim;
extern const int warpSize = 32;
}

namespace tessera::emulation {

namespace {

std::uint64_t seed_from_environment() {
  const char* text = std::getenv("TESSERA_EMULATION_SEED");
  return text == nullptr ? 0 : std::strtoull(text, nullptr, 10);
}

struct State {
  std::uint64_t seed = seed_from_environment();
  std::uint64_t launches_of_seed = 0;
  std::int64_t launches = 0;
  const Grid* grid = nullptr;
};

State& state() {
  static State the_state;
  return the_state;
}

Order order(Choices& choices) {
  return static_cast<Order>(choices.below(3));
}

// Number of the block that comes i-th. A random order takes every block once, because the step has
// no divisor in common with the number of blocks.
class BlockOrder {
 public:
  BlockOrder(std::uint64_t count, Order order, Choices& choices) : count_(count) {
    if (order == Order::reverse) {
      first_ = count - 1;
      step_ = count - 1;
    } else if (order == Order::random) {
      first_ = choices.below(count);
      do {
        step_ = 1 + choices.below(count);
      } while (std::gcd(step_, count) != 1);
    }
  }
  std::uint64_t operator()(std::uint64_t i) const { return (first_ + i * step_) % count_; }

 private:
  std::uint64_t count_;
  std::uint64_t first_ = 0;
  std::uint64_t step_ = 1;
};

std::string to_string(uint3 index) {
  return fmt::format("({},{},{})", index.x, index.y, index.z);
}

std::optional<Fault> run_blocks(const Grid& grid) {
  Choices choices(state().seed * 0x9e3779b97f4a7c15u + state().launches_of_seed);
  const Schedule schedule{.warps = order(choices), .lanes = order(choices)};
  const std::uint64_t count = std::uint64_t{grid.blocks.x} * grid.blocks.y * grid.blocks.z;
  const BlockOrder block_order(count, order(choices), choices);
  Block& block = running_block();
  block.reshape(grid.threads);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t b = block_order(i);
    blockIdx = {static_cast<unsigned>(b % grid.blocks.x),
                static_cast<unsigned>(b / grid.blocks.x % grid.blocks.y),
                static_cast<unsigned>(b / grid.blocks.x / grid.blocks.y)};
    poison_shared_memory(grid.module, grid.shared_bytes);
    forget_copies();
    if (auto fault = block.run(grid.thread, schedule, choices)) {
      fault->message = running_thread() + ": " + fault->message;
      return fault;
    }
  }
  return std::nullopt;
}

}  // namespace

void execute(const Grid& grid) {
  prepare_thread_for_faults();
  State& the = state();
  the.grid = &grid;
  blockDim = grid.threads;
  gridDim = grid.blocks;
  count_traffic_of(grid.kernel);
  const auto fault = run_blocks(grid);
  the.grid = nullptr;
  ++the.launches;
  ++the.launches_of_seed;
  if (fault) {
    report_fault(fault->kind, fault->message);
  }
}

bool in_kernel() {
  return state().grid != nullptr;
}

const std::string& running_kernel() {
  return state().grid->kernel;
}

std::string running_thread() {
  return fmt::format("kernel {}, block {}, thread {}", state().grid->kernel, to_string(blockIdx),
                     to_string(threadIdx));
}

std::string kernel_name(std::string_view text) {
  const auto begin = text.find("Kernel = ");
  if (begin == std::string_view::npos) {
    return std::string(text);
  }
  text.remove_prefix(begin + std::string_view("Kernel = ").size());
  return std::string(text.substr(0, text.find_first_of(";]")));
}

void set_seed(std::uint64_t seed) {
  state().seed = seed;
  state().launches_of_seed = 0;
}

std::uint64_t seed() {
  return state().seed;
}

std::int64_t launches() {
  return state().launches;
}

}  // namespace tessera::emulation
