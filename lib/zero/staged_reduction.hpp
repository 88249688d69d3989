// SPDX-License-Identifier: Apache-2.0
// Reduction of gradients that do not lie where and how they are sent.
#pragma once

#include <cstdint>
#include <vector>

#include "tessera/comm/work.hpp"

#include "zero/slice_norm.hpp"
#include "zero/unit_arrays.hpp"

namespace tessera::zero {

inline constexpr int kStagingBuffers = 2;

/// Carries buckets of plan_slices: copies (and rounds) them into a staging buffer, reduces there,
/// and writes back what this rank holds.
class StagedReduction {
 public:
  /// Collective. `arrays` and `norm` have to live longer.
  StagedReduction(const Context& context, const std::vector<Bucket>& plan, UnitArrays& arrays,
                  SliceNorm& norm)
      : context_(context), arrays_(arrays), norm_(norm), staging_(context, plan, kStagingBuffers) {}
  int slots() const { return staging_.slots(); }
  Work start(const Bucket& bucket, int slot);
  void complete(const Bucket& bucket, int slot);

 private:
  Work start_scatter(const Bucket& bucket, int slot);

  Context context_;
  UnitArrays& arrays_;
  SliceNorm& norm_;
  Staging staging_;
};

}  // namespace tessera::zero
