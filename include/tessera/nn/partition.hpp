// SPDX-License-Identifier: Apache-2.0
// Which elements of a logical tensor a rank's parameter is.
#pragma once

#include <cstdint>
#include <vector>

#include "tessera/base/interval.hpp"
#include "tessera/base/shape.hpp"

namespace tessera::nn {

using tessera::balanced_share;
using tessera::Interval;

/// `rows` runs of `count` neighbouring elements, `local_stride` and `logical_stride` apart.
struct Runs {
  std::int64_t local = 0;    // first element in the flattened parameter
  std::int64_t logical = 0;  // the same element in the flattened logical tensor
  std::int64_t count = 0;
  std::int64_t rows = 1;
  std::int64_t local_stride = 0;
  std::int64_t logical_stride = 0;
  bool operator==(const Runs&) const = default;
};

/// A rank holds a logical tensor whole, or of one dimension the indices of some intervals, one
/// after the other: rows, columns, or the heads' columns in each part of a fused projection.
class Partition {
 public:
  Partition() = default;
  /// Whole.
  explicit Partition(Shape logical);
  /// The intervals ascend and do not overlap.
  Partition(Shape logical, int dimension, std::vector<Interval> kept);

  bool whole() const { return kept_.empty(); }
  const Shape& logical() const { return logical_; }
  const Shape& local() const { return local_; }

  /// Where the local elements [begin, begin + count) lie in the logical tensor, in ascending local
  /// order of each Runs' first element: O(intervals) of them, whatever the size.
  std::vector<Runs> runs(std::int64_t begin, std::int64_t count) const;
  /// How many of the leading local elements lie among the first `elements` logical ones. Only
  /// where the local order is the logical one: whole, or split along the first dimension.
  std::int64_t leading(std::int64_t elements) const;

 private:
  std::int64_t local_row() const;
  void add_row(std::vector<Runs>& runs, std::int64_t outer, std::int64_t begin, std::int64_t end,
               std::int64_t rows) const;

  Shape logical_{0}, local_{0};
  int dimension_ = 0;
  std::vector<Interval> kept_;
  std::int64_t inner_ = 1;  // elements of one index of the dimension
};

/// Calls body(local, logical, count) for each run of neighbouring elements in local [begin, begin +
/// count).
template <typename Body>
void for_each_run(const Partition& partition, std::int64_t begin, std::int64_t count, Body&& body) {
  for (const Runs& runs : partition.runs(begin, count))
    for (std::int64_t row = 0; row < runs.rows; ++row)
      body(runs.local + row * runs.local_stride, runs.logical + row * runs.logical_stride,
           runs.count);
}

}  // namespace tessera::nn
