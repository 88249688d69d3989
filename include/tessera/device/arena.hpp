// SPDX-License-Identifier: Apache-2.0
// Device memory that stays at its addresses for those who use them again and again.
#pragma once

#include <memory>

#include "tessera/device/stream.hpp"

namespace tessera {

/// Blocks of device memory that are kept when the buffers in them are gone, for the next buffers of
/// the same size and purpose. Buffers of one stream: its order makes the use of a block by one of
/// them follow that by the one before. Counted in the ledger under the purpose of their first use,
/// in use or not. Errors: not_supported for a stream of the CPU.
class Arena {
 public:
  explicit Arena(const Stream& stream);

  /// While it lives, buffers that this thread allocates with the arena's stream as the current one
  /// lie in the arena. Where it has no block left it takes one from the device, but during a
  /// capture: internal.
  class Scope {
   public:
    explicit Scope(const Arena& arena);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
  };

  class Blocks;

 private:
  std::shared_ptr<Blocks> blocks_;  // shared with the buffers in it
};

}  // namespace tessera
