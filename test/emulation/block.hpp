// SPDX-License-Identifier: Apache-2.0
// The threads of the block that runs: which of them can run, and which wait for what.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector_types.h>

#include "emulation/emulation.hpp"
#include "emulation/fiber.hpp"
#include "emulation/random.hpp"
#include "emulation/warp.hpp"

namespace tessera::emulation {

inline constexpr int kLanes = 32;
inline constexpr int kMaxWarps = 32;
inline constexpr int kMaxThreads = kLanes * kMaxWarps;

/// The order in which members of a set of up to 32 get their turn.
enum class Order : std::uint8_t { forward, reverse, random };
int choose(std::uint32_t set, Order order, Choices& choices);

struct Schedule {
  Order warps = Order::forward;
  Order lanes = Order::forward;
};

/// Runs one block at a time. A warp runs as far as it can before another gets its turn, and so does
/// a lane inside it: fair turns would hide most missing barriers.
class Block {
 public:
  /// Sets the shape of the blocks to come.
  void reshape(dim3 threads);
  /// Runs `thread` in every thread of a block. A fault ends the block.
  std::optional<Fault> run(const std::function<void()>& thread, Schedule schedule,
                           Choices& choices);

  // What running threads call.
  int barrier(BarrierKind kind, int predicate, const Site& site);
  void together(std::uint32_t mask, WarpAction action, void* contribution, const Site& site);
  std::uint32_t own_lane() const { return std::uint32_t{1} << (current_ % kLanes); }
  [[noreturn]] void fail(FaultKind kind, const std::string& message);

 private:
  struct Thread {
    Context context;
    Stack stack;
    bool started = false;
    int barrier_result = 0;
    Site waits_at;
  };
  /// Lanes on their way into one operation of a warp.
  struct Gathering {
    std::uint32_t mask = 0;
    std::uint32_t arrived = 0;
    WarpAction action = nullptr;
    std::array<void*, kLanes> contributions{};
  };
  struct Warp {
    std::uint32_t alive = 0;
    std::uint32_t runnable = 0;
    std::uint32_t at_barrier = 0;
    /// By the lowest lane of their mask, so that parts of a warp can gather apart.
    std::array<Gathering, kLanes> gatherings;
  };

  static void thread_main();
  void reset();
  int pick();
  void enter(int thread);
  void switch_to(int next, Context& from);
  void yield();
  void run_thread();
  void end_thread();
  void make_runnable(int warp, std::uint32_t lanes);
  void finish_barrier();
  bool finish_gathering(int warp, Gathering& gathering);
  std::string describe_waiting() const;
  void release_stacks();

  int count_ = 0;
  std::array<uint3, kMaxThreads> indices_{};
  std::array<Thread, kMaxThreads> threads_;
  std::array<Warp, kMaxWarps> warps_;
  std::uint32_t runnable_warps_ = 0;
  int alive_ = 0;
  int current_ = 0;
  int current_warp_ = 0;

  int arrived_ = 0;
  int predicates_ = 0;
  BarrierKind barrier_kind_ = BarrierKind::sync;
  Site barrier_site_;

  const std::function<void()>* thread_ = nullptr;
  Schedule schedule_;
  Choices* choices_ = nullptr;
  Context outside_;
  std::optional<Fault> fault_;
  StackPool stacks_;
};

/// The block that runs, or the next one.
Block& running_block();

}  // namespace tessera::emulation
