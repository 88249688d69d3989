// SPDX-License-Identifier: Apache-2.0
// A named trainable array of a model and how it starts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tessera/autograd/weight.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/nn/partition.hpp"

namespace tessera::nn {

struct Initialization {
  enum class Kind : std::uint8_t { zeros, ones, normal };
  Kind kind = Kind::zeros;
  float deviation = 0;  // of normal
};

/// Shape and start are fixed at construction of the model; `value` and `gradient`
/// (autograd::Weight) are attached from outside while the parameter's unit is in use.
struct Parameter : autograd::Weight {
  Partition partition;
  Initialization initialization;
  /// False: a copy of what another rank answers for, in norms, checksums and checkpoints.
  bool counted = true;
  /// Of what is split over the tensor axis: neighbouring ranks may have the same part. The same on
  /// all ranks of the axis.
  bool held_by_several = false;

  Parameter() = default;
  Parameter(Partition part, Initialization start)
      : partition(std::move(part)), initialization(start) {}
  Parameter(Shape whole, Initialization start) : Parameter(Partition(std::move(whole)), start) {}

  /// Of what this rank holds.
  const Shape& shape() const { return partition.local(); }
};

struct NamedParameter {
  std::string name;  // Hugging Face's name, also the checkpoint key
  Parameter* parameter;
};

/// Writes elements [begin, begin + count) of the parameter's start to `out`. An element depends on
/// (seed, name, logical index) alone, so any slice may be filled alone, on any mesh.
void initialize(const Parameter& parameter, std::string_view name, std::uint64_t seed,
                std::int64_t begin, std::int64_t count, float* out);

}  // namespace tessera::nn
