// SPDX-License-Identifier: Apache-2.0
// A collective as a state machine, and the description that checks and messages use.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/comm/communicator.hpp"

namespace tessera::comm {

/// What a rank says it called.
struct Signature {
  const char* operation = "";
  std::int64_t count = -1;  ///< elements; negative: the operation has none
  DType dtype = DType::uint8;
  int reduction = -1;
  int root = -1;

  /// "all_reduce (sum) of 10 fp32"
  std::string describe() const;
  /// Of its elements; negative if it has none.
  std::int64_t bytes() const {
    return count < 0 ? -1 : count * static_cast<std::int64_t>(size_of(dtype));
  }
};

/// One operation in the queue of a communicator.
class Operation {
 public:
  virtual ~Operation() = default;
  /// Does this rank's part as far as it can without blocking; called again until true.
  virtual bool execute() = 0;
  /// True when peers no longer touch this rank's memory. Called after execute() gave true.
  virtual bool complete() { return true; }
  /// Ranks known not to have arrived; empty when that is unknown.
  virtual std::vector<int> missing() const { return {}; }

  Signature signature;
  std::int64_t called = 0;  ///< by Timeline::now(), for what is recorded; else 0
};

}  // namespace tessera::comm
