// SPDX-License-Identifier: Apache-2.0
// Reduction of gradients that do not lie where and how they are sent.
#pragma once

#include <cstdint>
#include <vector>

#include "tessera/comm/work.hpp"

#include "zero/unit_arrays.hpp"

namespace tessera::zero {

inline constexpr int kStagingBuffers = 2;

/// Where reduced gradients go.
struct Held {
  void* data;
  DType type;
  bool adds;  // to what earlier micro-batches left; else it is overwritten
};
/// Rounds `count` reduced gradients, which are of the type that is sent, to what is held.
void hold_reduced(const Context& context, const void* reduced, std::int64_t count,
                  const Held& held);

/// Carries buckets of plan_slices: reads them into a staging buffer, reduces there, and writes what
/// this rank holds.
class StagedReduction {
 public:
  /// Collective. `arrays` has to live longer.
  StagedReduction(const Context& context, const std::vector<Bucket>& plan, UnitArrays& arrays)
      : context_(context),
        arrays_(arrays),
        staging_(context, plan, kStagingBuffers, context.sent_type()) {}
  int slots() const { return staging_.slots(); }
  Work start(const Bucket& bucket, int slot);
  void complete(const Bucket& bucket, int slot);

 private:
  Work start_scatter(const Bucket& bucket, int slot);

  Context context_;
  UnitArrays& arrays_;
  Staging staging_;
};

}  // namespace tessera::zero
