// SPDX-License-Identifier: Apache-2.0
// Device memory is closed to the host: only work of streams can touch it.
#pragma once

#include <string>

namespace tessera::emulation {

/// While one lives, the process counts as the device, doing `what`. Allocations are opened as they
/// are touched, and stay open until close_device_memory().
class DeviceSide {
 public:
  explicit DeviceSide(const std::string& what);
  DeviceSide(const DeviceSide&) = delete;
  DeviceSide& operator=(const DeviceSide&) = delete;
  ~DeviceSide();

 private:
  const std::string* outer_;
};

/// While one lives, the process counts as the host again: for callbacks.
class HostSide {
 public:
  HostSide();
  HostSide(const HostSide&) = delete;
  HostSide& operator=(const HostSide&) = delete;
  ~HostSide();

 private:
  const std::string* outer_;
};

/// Closes device memory when it ends: what every call does that lets streams run.
struct ClosesMemory {
  ClosesMemory() = default;
  ClosesMemory(const ClosesMemory&) = delete;
  ClosesMemory& operator=(const ClosesMemory&) = delete;
  ~ClosesMemory();
};

/// Takes over SIGSEGV and SIGBUS; what is not ours goes to the former handler.
void watch_accesses();
/// Gives the calling thread a stack for signals, so that a kernel's overflow of its own is seen.
void prepare_thread_for_faults();

}  // namespace tessera::emulation
