// SPDX-License-Identifier: Apache-2.0
// Emulated device memory and pinned host memory.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace tessera::emulation {

enum class MemoryKind { device, pinned };

struct Allocation {
  std::byte* begin = nullptr;
  std::size_t bytes = 0;
  MemoryKind kind = MemoryKind::device;
  int device = 0;
  enum class Stage { reserved, live, freed } stage = Stage::live;
  bool open = false;  ///< to accesses, now
};

/// Device memory filled with 0xFF between pages that cannot be touched; nullopt if the device is
/// full. `ready` false: it cannot be touched before make_ready (a stream has to come that far).
std::optional<Allocation> allocate_device(std::size_t bytes, int device, bool ready);
void make_ready(void* begin);
/// Memory of the host that copies may use asynchronously.
Allocation allocate_pinned(std::size_t bytes);
/// The memory cannot be touched any more, and its addresses are not used again. False if `begin` is
/// not the begin of a live allocation of this kind.
bool release(void* begin, MemoryKind kind);

/// The allocation around an address: live, reserved, or freed not too long ago.
std::optional<Allocation> find_allocation(const void* address);
/// "17 bytes behind the end of the allocation of 400 bytes at 0x…"
std::string describe_address(const void* address);

bool is_emulated_memory(const void* address);
/// Called by the handler of forbidden accesses: opens the live allocation around an address. False
/// if there is none.
bool open_for_device(const void* address);
void close_device_memory();
/// What lies around the open allocations and was overwritten, in words; "" if nothing.
std::string find_damage();

struct MemoryUse {
  std::size_t total = 0;
  std::size_t used = 0;
};
MemoryUse memory_use(int device);

}  // namespace tessera::emulation
