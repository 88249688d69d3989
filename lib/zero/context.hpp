// SPDX-License-Identifier: Apache-2.0
// What every part of the optimizer works with, and arithmetic on untyped element pointers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "tessera/base/dtype.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/device/buffer.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/zero/flat_layout.hpp"
#include "tessera/zero/options.hpp"

namespace tessera::zero {

inline std::size_t bytes_of(std::int64_t count, DType dtype) {
  return static_cast<std::size_t>(count) * size_of(dtype);
}
inline void* element(void* base, std::int64_t index, DType dtype) {
  return static_cast<std::byte*>(base) + bytes_of(index, dtype);
}
inline const void* element(const void* base, std::int64_t index, DType dtype) {
  return static_cast<const std::byte*>(base) + bytes_of(index, dtype);
}

/// Memory that a message under way may still write, when nobody can be waited for any more.
inline void leak(Buffer buffer) {
  if (buffer) static_cast<void>(new Buffer(std::move(buffer)));
}

/// References live in the optimizer, which outlives its parts.
struct Context {
  const FlatLayout& layout;
  Communicator& group;
  const Options& options;
  Stream stream = current_stream(options.device);

  Communicator& everyone() const { return options.everyone ? *options.everyone : group; }
  Device device() const { return options.device; }
  /// Zeroed memory that the group sends from and receives into. Collective.
  Buffer allocate_shared(std::size_t bytes, Purpose purpose) const {
    return group.allocate_on(device(), bytes, purpose);
  }
  int rank() const { return group.rank(); }
  int ranks() const { return layout.ranks(); }
  int units() const { return static_cast<int>(layout.units().size()); }
  DType dtype() const { return options.dtype; }
  /// Of gradients between ranks.
  DType sent_type() const { return options.communication_dtype.value_or(options.dtype); }
  /// Optimizer states (and the masters' low halves) of every element, not only of the own slices.
  bool holds_whole_states() const { return options.stage == 0; }
  /// The elements of a unit that this rank updates.
  Range held(int unit) const {
    return holds_whole_states() ? Range{0, layout.unit(unit).padded} : layout.slice(unit, rank());
  }
  /// Σ held over all units.
  std::int64_t held_elements() const {
    return holds_whole_states() ? layout.padded() : layout.padded() / ranks();
  }
  /// Index of element `unit_begin` of a unit among all held elements.
  std::int64_t held_index(int unit, std::int64_t unit_begin) const {
    const std::int64_t start =
        holds_whole_states() ? layout.unit(unit).start : layout.slice_start(unit);
    return start + unit_begin - held(unit).begin;
  }
};

}  // namespace tessera::zero
