// SPDX-License-Identifier: Apache-2.0
// What a rank of a machine can do, as a few measured or published numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tessera/base/dtype.hpp"

namespace tessera::planning {

/// A message of n bytes takes latency + n / bandwidth.
struct Link {
  double bandwidth = 0;  ///< bytes a second that a rank sends while all others do
  double latency = 0;    ///< seconds of a step of a collective, or of a message
};

struct Machine {
  std::string name;
  double flops_fp32 = 0;  ///< FLOP/s of large matrix products
  double flops_half = 0;  ///< the same in bf16 and fp16
  /// Columns of a rank's weight at which products run at half of that.
  double half_width = 0;
  double memory_bandwidth = 0;    ///< bytes a second, read and written
  std::int64_t memory_bytes = 0;  ///< of a rank
  int ranks_per_node = 1;
  Link node{};            ///< between ranks of a node
  Link network{};         ///< between nodes
  bool overlaps = false;  ///< communication goes on beside computation (GPUs)

  /// FLOP/s of products in `dtype` with weights of `width` columns.
  double flops(DType dtype, double width) const;
  const Link& link(int ranks_side_by_side) const {
    return ranks_side_by_side <= ranks_per_node ? node : network;
  }
};

/// Machines that are built in, from published figures (doc/scaling.md).
const std::vector<Machine>& known_machines();
/// A built-in one by name, or what `tessera env --calibrate` wrote to the file of that name.
/// Errors: io, invalid_config naming file and key.
Machine find_machine(const std::string& name_or_file);
/// JSON, as find_machine() reads it.
std::string to_json(const Machine& machine);

}  // namespace tessera::planning
