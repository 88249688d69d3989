// SPDX-License-Identifier: Apache-2.0
// What memory is held for: allocators count bytes by purpose, so that a test can compare them with
// a formula.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "tessera/device/device.hpp"

namespace tessera {

enum class Purpose : std::uint8_t {
  parameters,   ///< model parameters in the compute type, as held between steps
  gradients,    ///< gradients held between backward and update
  optimizer,    ///< optimizer states and the low half of split masters
  activations,  ///< tensors of the forward and backward pass
  buckets,      ///< communication buffers of gradients
  gathered,     ///< ZeRO-3 parameters while a unit is in use
  snapshot,     ///< copies of the state that are being written to a checkpoint
  workspace,    ///< everything else: scratch of kernels, staging of input and output
};
inline constexpr int kPurposes = 8;
const char* to_string(Purpose purpose);

/// Bytes in use now and at the peak, by purpose and in all. Thread-safe. One per device and
/// process.
class MemoryLedger {
 public:
  void add(Purpose purpose, std::size_t bytes);
  void remove(Purpose purpose, std::size_t bytes);

  std::int64_t current(Purpose purpose) const { return at(purpose).current; }
  std::int64_t peak(Purpose purpose) const { return at(purpose).peak; }
  std::int64_t current_total() const { return total_.current; }
  /// Peak of the sum, not the sum of the peaks.
  std::int64_t peak_total() const { return total_.peak; }
  /// Peaks start again from what is in use now.
  void reset_peaks();
  /// A small table for people: purpose, now, peak.
  std::string to_string() const;

 private:
  struct Counter {
    std::atomic<std::int64_t> current{0};
    std::atomic<std::int64_t> peak{0};
    void add(std::int64_t bytes);
  };
  const Counter& at(Purpose purpose) const { return counters_[static_cast<std::size_t>(purpose)]; }
  Counter& at(Purpose purpose) { return counters_[static_cast<std::size_t>(purpose)]; }

  std::array<Counter, kPurposes> counters_;
  Counter total_;
};

MemoryLedger& memory_ledger(Device device);

/// Bytes that this process could still allocate on the host: the smaller of free memory and the
/// container's limit.
std::int64_t available_host_memory();

}  // namespace tessera
