// SPDX-License-Identifier: Apache-2.0
// What cuDNN runs for a graph: an engine with its settings, compiled for a device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cudnn.h>
#include <span>

#include "kernels/cuda/cudnn_descriptor.hpp"

namespace tessera::kernels::cuda::cudnn {

/// What a plan is for. `description` (a device's properties) is for tests, which have no device;
/// otherwise the graph knows it by its handle.
struct Target {
  int capability;  // 10 major + minor
  const Descriptor* description = nullptr;
};

/// The engine and settings of the heuristic's first choice for `graph`. Throws
/// Code::not_supported where it has none.
Descriptor first_engine(const Descriptor& graph, const Target& target);

/// The same for attention's backward pass, where engines sum in an order of their own unless asked.
Descriptor first_repeatable_engine(const Descriptor& graph, const Target& target);

/// A number of the graph's values, and where it lies; scalars on the host.
struct Argument {
  std::int64_t number;
  const void* data;
};

class Plan {
 public:
  /// Compiles the engine's kernels: takes up to a second.
  explicit Plan(const Descriptor& engine);

  /// Bytes that an execution needs.
  std::size_t workspace() const { return workspace_; }
  /// Enqueues on the stream of `handle`.
  void execute(cudnnHandle_t handle, std::span<const Argument> arguments, void* workspace) const;

 private:
  Descriptor plan_;
  std::size_t workspace_;
};

}  // namespace tessera::kernels::cuda::cudnn
