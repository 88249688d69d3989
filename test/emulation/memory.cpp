// SPDX-License-Identifier: Apache-2.0
// Allocations end at a page that cannot be touched, and addresses are never used twice.
#include "emulation/memory.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <string>
#include <sys/mman.h>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "emulation/protection.hpp"
#include "emulation/race.hpp"

namespace tessera::emulation {

namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kAlignment = 256;  // as cudaMalloc promises
constexpr int kPoison = 0xFF;            // a NaN in every type of float
// Addresses, not memory. The sanitizer leaves fewer.
constexpr std::size_t kReserved = std::size_t{1} << (race::kWatched ? 38 : 44);
constexpr std::size_t kLeastReserved = std::size_t{1} << 34;

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

void* reserve(std::size_t bytes) {
  return mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

class Heap {
 public:
  Heap() {
    std::size_t bytes = kReserved;
    void* range = reserve(bytes);
    while (range == MAP_FAILED && bytes > kLeastReserved) {
      range = reserve(bytes /= 2);
    }
    if (range == MAP_FAILED) {
      throw std::bad_alloc();
    }
    begin_ = next_ = static_cast<std::byte*>(range);
    end_ = next_ + bytes;
    watch_accesses();
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
    used(allocation) += allocation.bytes;
    Allocation& added = allocations_[allocation.begin] = allocation;
    open_.reserve(allocations_.size());  // a handler of signals should not allocate
    if (added.stage == Allocation::Stage::live) {
      prepare(added);
    }
    return added;
  }

  void make_ready(std::byte* begin) {
    Allocation& allocation = allocations_.at(begin);
    allocation.stage = Allocation::Stage::live;
    prepare(allocation);
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
    allocation.open = false;
    std::erase(open_, &allocation);
    used(allocation) -= allocation.bytes;
    return true;
  }

  /// The allocation whose pages hold the address, else one less than a page away.
  const Allocation* find(const std::byte* address) const {
    auto next = allocations_.upper_bound(const_cast<std::byte*>(address));
    const Allocation* after = next == allocations_.end() ? nullptr : &next->second;
    const Allocation* before = next == allocations_.begin() ? nullptr : &(--next)->second;
    if (after != nullptr && address >= first_page(*after) - kPageBytes / 2) {
      return after;
    }
    const bool near =
        before != nullptr && address < first_page(*before) + pages(*before) + kPageBytes;
    return near ? before : nullptr;
  }

  bool contains(const std::byte* address) const { return address >= begin_ && address < end_; }

  bool open(const std::byte* address) {
    const auto* found = const_cast<Allocation*>(find(address));
    if (found == nullptr || found->stage != Allocation::Stage::live ||
        address < first_page(*found) || address >= first_page(*found) + pages(*found)) {
      return false;
    }
    // Threads of a library that works for the device may come here at the same time.
    while (opening_.test_and_set(std::memory_order_acquire)) {
    }
    open(const_cast<Allocation&>(*found));
    opening_.clear(std::memory_order_release);
    return true;
  }

  void close() {
    for (Allocation* allocation : open_) {
      mprotect(first_page(*allocation), pages(*allocation), PROT_NONE);
      allocation->open = false;
    }
    open_.clear();
  }

  std::string find_damage() const {
    std::string text;
    for (const Allocation* allocation : open_) {
      std::byte* const end = first_page(*allocation) + pages(*allocation);
      // Before the begin only as far as behind the end: kernels are many, and so are allocations.
      std::byte* const head =
          allocation->begin -
          std::min<std::ptrdiff_t>(allocation->begin - first_page(*allocation), kAlignment);
      for (const auto& [from, to] : {std::pair(head, allocation->begin),
                                     std::pair(allocation->begin + allocation->bytes, end)}) {
        const std::byte* const damaged =
            std::find_if(from, to, [](std::byte b) { return b != std::byte{kPoison}; });
        if (damaged != to) {
          // Mended, so that it is reported once.
          text += (text.empty() ? "" : "; ") + describe_address(damaged);
          std::memset(from, kPoison, static_cast<std::size_t>(to - from));
        }
      }
    }
    return text;
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
  void open(Allocation& allocation) {
    if (!allocation.open) {
      mprotect(first_page(allocation), pages(allocation), PROT_READ | PROT_WRITE);
      allocation.open = true;
      if (allocation.kind == MemoryKind::device) {
        open_.push_back(&allocation);
      }
    }
  }
  void prepare(Allocation& allocation) {
    const race::Unwatched unwatched;
    open(allocation);
    if (allocation.kind == MemoryKind::device) {
      std::memset(first_page(allocation), kPoison, pages(allocation));
    }
  }

  std::byte* begin_ = nullptr;
  std::byte* next_ = nullptr;
  std::byte* end_ = nullptr;
  std::map<std::byte*, Allocation> allocations_;  // pointers to members stay valid
  std::vector<Allocation*> open_;                 // of devices
  std::atomic_flag opening_;
  std::map<int, std::size_t> used_;
};

bool heap_exists = false;

// Never destroyed: buffers in statics may outlive it.
Heap& heap() {
  static Heap* const the_heap = new Heap;
  heap_exists = true;
  return *the_heap;
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

bool is_emulated_memory(const void* address) {
  return heap_exists && heap().contains(static_cast<const std::byte*>(address));
}

bool open_for_device(const void* address) {
  return heap().open(static_cast<const std::byte*>(address));
}

void close_device_memory() {
  heap().close();
}

std::string find_damage() {
  return heap().find_damage();
}

MemoryUse memory_use(int device) {
  return {.total = device_bytes(), .used = heap().used({.device = device})};
}

}  // namespace tessera::emulation
