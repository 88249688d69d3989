// SPDX-License-Identifier: Apache-2.0
// Barriers, shuffles and votes as running threads call them.
#include "emulation/warp.hpp"

#include "emulation/block.hpp"
#include "emulation/intrinsics.hpp"
#include "emulation/sync_points.hpp"

namespace tessera::emulation {

namespace {

struct Shuffled {
  std::uint64_t bits;
  ShuffleKind kind;
  int operand;
  int width;
  std::uint64_t result = 0;
};

// CUDA Programming Guide, warp shuffle functions: lanes outside of the own segment give the own
// value, except that the exclusive or may reach segments before the own one.
int source_lane(const Shuffled& s, int lane) {
  const int begin = lane & ~(s.width - 1);
  const int end = begin + s.width;
  int source = lane;
  switch (s.kind) {
    case ShuffleKind::index:
      return begin + (s.operand & (s.width - 1));
    case ShuffleKind::up:
      source = lane - s.operand;
      return source < begin ? lane : source;
    case ShuffleKind::down:
      source = lane + s.operand;
      break;
    case ShuffleKind::exclusive_or:
      source = lane ^ s.operand;
      break;
  }
  return source >= end ? lane : source;
}

void act_shuffle(void* const* contributions, std::uint32_t lanes) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if ((lanes >> lane & 1u) != 0) {
      auto& mine = *static_cast<Shuffled*>(contributions[lane]);
      const int source = source_lane(mine, lane);
      // What a lane gets from one that takes no part is undefined.
      mine.result = (lanes >> source & 1u) != 0
                        ? static_cast<const Shuffled*>(contributions[source])->bits
                        : ~std::uint64_t{0};
    }
  }
}

struct Vote {
  bool predicate;
  std::uint32_t result = 0;
};

void act_ballot(void* const* contributions, std::uint32_t lanes) {
  std::uint32_t result = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    if ((lanes >> lane & 1u) != 0 && static_cast<const Vote*>(contributions[lane])->predicate) {
      result |= std::uint32_t{1} << lane;
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    if ((lanes >> lane & 1u) != 0) {
      static_cast<Vote*>(contributions[lane])->result = result;
    }
  }
}

struct Match {
  std::uint64_t bits;
  std::uint32_t result = 0;
};

void act_match(void* const* contributions, std::uint32_t lanes) {
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int other = 0; other < kLanes; ++other) {
      if ((lanes >> lane & 1u) != 0 && (lanes >> other & 1u) != 0) {
        auto& mine = *static_cast<Match*>(contributions[lane]);
        const bool equal = static_cast<const Match*>(contributions[other])->bits == mine.bits;
        mine.result |= std::uint32_t{equal} << other;
      }
    }
  }
}

void act_sync(void* const*, std::uint32_t) {}

}  // namespace

int block_barrier(BarrierKind kind, int predicate, const Site& site) {
  Block& block = running_block();
  return waits_at(__builtin_return_address(0), site, block.barrier_number())
             ? block.barrier(kind, predicate, site)
             : predicate;
}

void warp_together(std::uint32_t mask, WarpAction action, void* contribution, const Site& site) {
  running_block().together(mask, action, contribution, true, site);
}

std::uint64_t shuffle(std::uint32_t mask, ShuffleKind kind, std::uint64_t bits, int operand,
                      int width, const Site& site) {
  Shuffled mine{.bits = bits, .kind = kind, .operand = operand, .width = width};
  running_block().together(mask, act_shuffle, &mine, false, site);
  return mine.result;
}

std::uint32_t ballot(std::uint32_t mask, bool predicate, const Site& site) {
  Vote mine{.predicate = predicate};
  running_block().together(mask, act_ballot, &mine, false, site);
  return mine.result;
}

std::uint32_t match(std::uint32_t mask, std::uint64_t bits, const Site& site) {
  Match mine{.bits = bits};
  running_block().together(mask, act_match, &mine, false, site);
  return mine.result;
}

void sync_warp(std::uint32_t mask, const Site& site) {
  if (waits_at(__builtin_return_address(0), site, 0)) {
    running_block().together(mask, act_sync, nullptr, true, site);
  }
}

// Hardware promises nothing but the calling lane.
std::uint32_t active_lanes() {
  return running_block().own_lane();
}

void fail_kernel_at(const char* message) {
  running_block().fail(FaultKind::misuse, message);
}

}  // namespace tessera::emulation
