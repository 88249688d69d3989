// SPDX-License-Identifier: Apache-2.0
// Arithmetic between a slice and the tensor that it is a slice of.
#include "tessera/nn/partition.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::nn {
namespace {

std::int64_t elements_of(const Shape& shape, int first_dimension) {
  std::int64_t elements = 1;
  for (int d = first_dimension; d < shape.rank(); ++d) elements *= shape[d];
  return elements;
}

}  // namespace

Partition::Partition(Shape logical) : logical_(logical), local_(std::move(logical)) {
  if (logical_.rank() > 0) inner_ = elements_of(logical_, 1);
}

Partition::Partition(Shape logical, int dimension, std::vector<Interval> kept)
    : logical_(std::move(logical)), dimension_(dimension), kept_(std::move(kept)) {
  TESSERA_CHECK(dimension >= 0 && dimension < logical_.rank() && !kept_.empty(),
                Code::invalid_argument,
                fmt::format("no slice of dimension {} of {}", dimension, logical_.to_string()));
  std::int64_t size = 0, last = 0;
  for (const Interval& interval : kept_) {
    TESSERA_CHECK(interval.begin >= last && interval.end >= interval.begin &&
                      interval.end <= logical_[dimension],
                  Code::invalid_argument,
                  fmt::format("indices {} to {} of dimension {} of {}", interval.begin,
                              interval.end, dimension, logical_.to_string()));
    last = interval.end;
    size += interval.size();
  }
  std::vector<std::int64_t> sizes = logical_.sizes();
  sizes[static_cast<std::size_t>(dimension)] = size;
  local_ = Shape(std::move(sizes));
  inner_ = elements_of(logical_, dimension + 1);
}

std::int64_t Partition::local_row() const {
  return elements_of(local_, dimension_);
}

// The runs of local elements [begin, end) of each of `rows` rows from row `outer` on, where a row
// is what one index of the dimensions before the split one has.
void Partition::add_row(std::vector<Runs>& runs, std::int64_t outer, std::int64_t begin,
                        std::int64_t end, std::int64_t rows) const {
  const std::int64_t local_stride = local_row();
  const std::int64_t logical_stride = elements_of(logical_, dimension_);
  std::int64_t first = 0;  // of the interval, in the local row
  for (const Interval& interval : kept_) {
    const std::int64_t last = first + interval.size() * inner_;
    const std::int64_t from = std::max(begin, first), to = std::min(end, last);
    if (from < to)
      runs.push_back({outer * local_stride + from,
                      outer * logical_stride + interval.begin * inner_ + (from - first), to - from,
                      rows, local_stride, logical_stride});
    first = last;
  }
}

std::vector<Runs> Partition::runs(std::int64_t begin, std::int64_t count) const {
  std::vector<Runs> runs;
  if (count == 0) return runs;
  if (whole()) return {{begin, begin, count, 1, count, count}};
  const std::int64_t row = local_row(), end = begin + count;
  const std::int64_t first = begin / row, last = (end - 1) / row;
  if (first == last) {
    add_row(runs, first, begin - first * row, end - first * row, 1);
    return runs;
  }
  const bool begins_inside = begin % row != 0, ends_inside = end % row != 0;
  if (begins_inside) add_row(runs, first, begin - first * row, row, 1);
  const std::int64_t whole_first = begins_inside ? first + 1 : first;
  const std::int64_t whole_last = ends_inside ? last : last + 1;
  if (whole_first < whole_last) add_row(runs, whole_first, 0, row, whole_last - whole_first);
  if (ends_inside) add_row(runs, last, 0, end - last * row, 1);
  return runs;
}

std::int64_t Partition::leading(std::int64_t elements) const {
  if (whole()) return std::min(elements, logical_.numel());
  TESSERA_CHECK(dimension_ == 0, Code::internal, "leading() of a slice of inner dimensions");
  std::int64_t found = 0;
  for (const Interval& interval : kept_)
    found +=
        std::clamp<std::int64_t>(elements - interval.begin * inner_, 0, interval.size() * inner_);
  return found;
}

}  // namespace tessera::nn
