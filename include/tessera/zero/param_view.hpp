// SPDX-License-Identifier: Apache-2.0
// How somebody else's arrays are lent to the partitioned optimizer.
#pragma once

#include <optional>
#include <string>

#include "tessera/base/dtype.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/device/device.hpp"

namespace tessera::zero {

/// What the optimizer has to know of a parameter beyond its place.
struct ParameterOptions {
  /// Frozen (false): never updated, its gradient counts as zero, its bits stay.
  bool trainable = true;
  /// nullopt: the update rule's weight decay, or 0 for tensors of one dimension and scalars.
  std::optional<double> weight_decay{};
  /// False: a copy of what another rank of Options::everyone answers for, which the global norm
  /// leaves out. Such parameters come last in their unit.
  bool counted = true;
  /// Among the parameters of Options::everyone, where ranks have different ones: the first that is
  /// not finite is named. nullopt: its index.
  std::optional<int> place{};
};

/// One array of a caller. It stays the caller's: whole on every rank, contiguous, alive and in
/// place as long as the optimizer lives.
struct ParamView {
  std::string name;
  Shape shape;
  void* data = nullptr;       // [shape]
  void* gradient = nullptr;   // [shape]; may be nullptr when not trainable
  DType dtype = DType::fp32;  // of both; the optimizer's dtype
  Device device{};
  ParameterOptions options{};
};

}  // namespace tessera::zero
