// SPDX-License-Identifier: Apache-2.0
// Allocations end at a page that cannot be touched, and addresses are never used twice.
#include "emulation/memory.hpp"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <sys/mman.h>

#include <fmt/format.h>

namespace tessera::emulation {

namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kAlignment = 256;  // as cudaMalloc promises
constexpr int kPoison = 0xFF;            // a NaN in every type of float
constexpr std::size_t kReserved = std::size_t{1} << 40;

constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

std::size_t device_bytes() {
  static const std::size_t bytes = [] {
    const char* text = std::getenv("TESSERA_EMULATED_MEMORY");
    return text == nullptr ? std::size_t{8} << 30 : std::strtoull(text, nullptr, 10);
  }();
  return bytes;
}

class Heap {
 public:
  Heap() {
    void* range =
        mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) {
      throw std::bad_alloc();
    }
    next_ = static_cast<std::byte*>(range);
    end_ = next_ + kReserved;
  }

  Allocation add(Allocation allocation) {
    const std::size_t room = round_up(std::max<std::size_t>(allocation.bytes, 1), kAlignment);
    const std::size_t pages = round_up(room, kPageBytes);
    if (static_cast<std::size_t>(end_ - next_) < pages + kPageBytes) {
      throw std::bad_alloc();
    }
    // The end, not the begin, lies at the page's border: overruns are the common mistake.
    allocation.begin = next_ + pages - room;
    next_ += pages + kPageBytes;
    if (allocation.stage == Allocation::Stage::live) {
      open(allocation);
    }
    allocations_[allocation.begin] = allocation;
    used(allocation) += allocation.bytes;
    return allocation;
  }

  void make_ready(std::byte* begin) {
    Allocation& allocation = allocations_.at(begin);
    allocation.stage = Allocation::Stage::live;
    open(allocation);
  }

  bool release(std::byte* begin, MemoryKind kind) {
    const auto place = allocations_.find(begin);
    if (place == allocations_.end() || place->second.kind != kind ||
        place->second.stage != Allocation::Stage::live) {
      return false;
    }
    Allocation& allocation = place->second;
    // A fresh mapping gives the memory back and denies every access.
    mmap(first_page(allocation), pages(allocation), PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    allocation.stage = Allocation::Stage::freed;
    used(allocation) -= allocation.bytes;
    return true;
  }

  /// The last allocation that begins at or before the address, if the address is in its pages or
  /// right behind.
  const Allocation* find(const std::byte* address) const {
    auto place = allocations_.upper_bound(const_cast<std::byte*>(address));
    if (place == allocations_.begin()) {
      return nullptr;
    }
    const Allocation& allocation = (--place)->second;
    return address < first_page(allocation) + pages(allocation) + kPageBytes ? &allocation
                                                                             : nullptr;
  }

  std::size_t& used(const Allocation& allocation) {
    return used_[allocation.kind == MemoryKind::device ? allocation.device : -1];
  }

 private:
  static std::byte* first_page(const Allocation& allocation) {
    const auto address = reinterpret_cast<std::uintptr_t>(allocation.begin);
    return allocation.begin - address % kPageBytes;
  }
  static std::size_t pages(const Allocation& allocation) {
    return round_up(
        allocation.bytes + static_cast<std::size_t>(allocation.begin - first_page(allocation)),
        kPageBytes);
  }
  static void open(const Allocation& allocation) {
    mprotect(first_page(allocation), pages(allocation), PROT_READ | PROT_WRITE);
    if (allocation.kind == MemoryKind::device) {
      std::memset(first_page(allocation), kPoison, pages(allocation));
    }
  }

  std::byte* next_ = nullptr;
  std::byte* end_ = nullptr;
  std::map<std::byte*, Allocation> allocations_;
  std::map<int, std::size_t> used_;
};

Heap& heap() {
  static Heap the_heap;
  return the_heap;
}

}  // namespace

std::optional<Allocation> allocate_device(std::size_t bytes, int device, bool ready) {
  const MemoryUse use = memory_use(device);
  if (bytes > use.total - use.used) {
    return std::nullopt;
  }
  return heap().add({.bytes = bytes,
                     .kind = MemoryKind::device,
                     .device = device,
                     .stage = ready ? Allocation::Stage::live : Allocation::Stage::reserved});
}

void make_ready(void* begin) {
  heap().make_ready(static_cast<std::byte*>(begin));
}

Allocation allocate_pinned(std::size_t bytes) {
  return heap().add({.bytes = bytes, .kind = MemoryKind::pinned});
}

bool release(void* begin, MemoryKind kind) {
  return heap().release(static_cast<std::byte*>(begin), kind);
}

std::optional<Allocation> find_allocation(const void* address) {
  const Allocation* found = heap().find(static_cast<const std::byte*>(address));
  return found == nullptr ? std::nullopt : std::optional(*found);
}

std::string describe_address(const void* address) {
  const auto found = find_allocation(address);
  if (!found) {
    return fmt::format("{} lies in no allocation", address);
  }
  const char* state = found->stage == Allocation::Stage::freed      ? "freed "
                      : found->stage == Allocation::Stage::reserved ? "not yet allocated "
                                                                    : "";
  const auto offset = static_cast<const std::byte*>(address) - found->begin;
  return fmt::format("{} is byte {} of the {}{} allocation of {} bytes at {}", address, offset,
                     state, found->kind == MemoryKind::device ? "device" : "pinned", found->bytes,
                     static_cast<const void*>(found->begin));
}

MemoryUse memory_use(int device) {
  return {.total = device_bytes(), .used = heap().used({.device = device})};
}

}  // namespace tessera::emulation
