// SPDX-License-Identifier: Apache-2.0
// Cutting units into buckets.
#include "zero/bucket_plan.hpp"

#include <algorithm>
#include <utility>

#include "tessera/base/shape.hpp"
#include "tessera/kernels/reduce.hpp"

namespace tessera::zero {
namespace {

class Filler {
 public:
  explicit Filler(std::int64_t capacity) : capacity_(capacity) {}

  /// Appends a slice, piece by piece, opening buckets as they are needed.
  void add_slice(int unit, std::int64_t slice) {
    for (std::int64_t begin = 0; begin < slice;) {
      const std::int64_t count = fitting(slice - begin);
      if (count == 0) {
        close();
        continue;
      }
      open_.parts.push_back({unit, begin, count});
      open_.elements += count;
      begin += count;
    }
  }
  void close() {
    if (open_.elements > 0) buckets_.push_back(std::move(open_));
    open_ = {};
  }
  std::vector<Bucket> finish() {
    close();
    return std::move(buckets_);
  }

 private:
  std::int64_t fitting(std::int64_t wanted) const {
    const std::int64_t room = capacity_ - open_.elements;
    return wanted <= room ? wanted : room / kernels::kNormBlock * kernels::kNormBlock;
  }

  std::int64_t capacity_;
  Bucket open_;
  std::vector<Bucket> buckets_;
};

}  // namespace

std::int64_t largest_bucket(const std::vector<Bucket>& plan) {
  std::int64_t most = 0;
  for (const Bucket& bucket : plan) most = std::max(most, bucket.elements);
  return most;
}

std::vector<Bucket> plan_slices(const FlatLayout& layout, std::int64_t capacity, bool backward,
                                bool units_apart) {
  Filler filler(std::max(capacity / layout.ranks(), kernels::kNormBlock));
  const auto units = static_cast<int>(layout.units().size());
  for (int i = 0; i < units; ++i) {
    const int unit = backward ? units - 1 - i : i;
    filler.add_slice(unit, layout.slice_elements(unit));
    if (units_apart) filler.close();
  }
  return filler.finish();
}

std::vector<Bucket> plan_ranges(const FlatLayout& layout, std::int64_t capacity) {
  const std::int64_t length = std::max(capacity / kAlignment * kAlignment, kernels::kNormBlock);
  std::vector<Bucket> buckets;
  auto unit = static_cast<int>(layout.units().size()) - 1;
  for (std::int64_t end = layout.padded(); end > 0;) {
    Bucket bucket;
    bucket.elements = std::min(length, end);
    bucket.start = end - bucket.elements;
    for (int u = unit; u >= 0; --u) {
      const FlatUnit& flat = layout.unit(u);
      const Range inside = intersect({flat.start, flat.padded}, {bucket.start, bucket.elements});
      if (inside.count > 0) bucket.parts.push_back({u, inside.begin - flat.start, inside.count});
      unit = u;
      if (flat.start <= bucket.start) break;
    }
    end = bucket.start;
    buckets.push_back(std::move(bucket));
  }
  return buckets;
}

}  // namespace tessera::zero
