// SPDX-License-Identifier: Apache-2.0
// The threads of the block that runs: which of them can run, and which wait for what.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>
#include <vector_types.h>

#include "emulation/emulation.hpp"
#include "emulation/fiber.hpp"
#include "emulation/race.hpp"
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
  /// `orders_memory`: is it a __syncwarp as well, in the eyes of ThreadSanitizer?
  void together(std::uint32_t mask, WarpAction action, void* contribution, bool orders_memory,
                const Site& site);
  /// Of the barrier that comes next, from 1; never the same again.
  std::uint64_t barrier_number() const { return barrier_generation_ + 1; }
  int thread() const { return current_; }
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
    std::uint64_t generation = 0;
    std::array<void*, kLanes> contributions{};
  };
  /// What races are told by; new for each block, because a token remembers for ever. Whoever waits
  /// at an operation may still be on its way out when the next one begins, hence two of each.
  struct Tokens {
    std::uint64_t start, end;
    std::array<std::uint64_t, 2> barrier;
    std::array<std::array<std::array<std::uint64_t, 2>, kLanes>, kMaxWarps> warps;
  };
  /// Who plays the threads of the kernels of one stream. Their stacks stay with them: memory that
  /// goes from one to another would look like a race.
  struct Player {
    race::Actor actor = nullptr;
    Stack stack;
  };
  using Cast = std::vector<Player>;
  struct Warp {
    std::uint32_t alive = 0;
    std::uint32_t runnable = 0;
    std::uint32_t at_barrier = 0;
    /// By the lowest lane of their mask, so that parts of a warp can gather apart.
    std::array<Gathering, kLanes> gatherings;
  };

  static void thread_main();
  void choose_cast();
  void dismiss_cast();
  std::uint64_t* token_of(int warp, const Gathering& gathering);
  void act(int warp, Gathering& gathering);
  void reset();
  int pick();
  void enter(int thread);
  void switch_to(int next, Context& from);
  void yield();
  void run_thread();
  void end_thread();
  void make_runnable(int warp, std::uint32_t lanes);
  void finish_barrier();
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
  std::uint64_t barrier_generation_ = 0;
  BarrierKind barrier_kind_ = BarrierKind::sync;
  Site barrier_site_;

  const std::function<void()>* thread_ = nullptr;
  Schedule schedule_;
  Choices* choices_ = nullptr;
  Context outside_;
  std::optional<Fault> fault_;
  StackPool stacks_;

  std::map<race::Actor, Cast> casts_;  // by the stream's thread
  Cast* cast_ = nullptr;
  race::Actor outside_actor_ = nullptr;
  std::unique_ptr<Tokens> tokens_;
};

/// The block that runs, or the next one.
Block& running_block();

}  // namespace tessera::emulation
