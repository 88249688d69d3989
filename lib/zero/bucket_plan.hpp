// SPDX-License-Identifier: Apache-2.0
// Which elements are sent together.
#pragma once

#include <cstdint>
#include <vector>

#include "tessera/zero/flat_layout.hpp"

namespace tessera::zero {

/// Elements [begin, begin + count) of every rank's slice of a unit (plan_slices), or of the unit
/// itself (plan_ranges).
struct BucketPart {
  int unit;
  std::int64_t begin;
  std::int64_t count;
};

struct Bucket {
  std::vector<BucketPart> parts;
  std::int64_t elements = 0;  // Σ count
  std::int64_t start = 0;     // plan_ranges: first element, counted over all padded units
};

/// Elements of the largest; 0 if there is none.
std::int64_t largest_bucket(const std::vector<Bucket>& plan);

/// Cuts the slices of all units into buckets of at most `capacity` elements, counted over all
/// ranks, but never inside a norm block of a slice. Units go from the last to the first if
/// `backward`, the order in which their gradients become ready; `units_apart`: no bucket has parts
/// of two.
std::vector<Bucket> plan_slices(const FlatLayout& layout, std::int64_t capacity, bool backward,
                                bool units_apart = false);

/// Cuts all padded units, seen as one array, into consecutive ranges of at most `capacity`
/// elements, from the end to the start.
std::vector<Bucket> plan_ranges(const FlatLayout& layout, std::int64_t capacity);

}  // namespace tessera::zero
