// SPDX-License-Identifier: Apache-2.0
// Memory that the ranks of one node share.
#include "comm/shm/window.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <sys/statvfs.h>

#include "tessera/base/shape.hpp"

#include "comm/watchdog.hpp"

namespace tessera::comm {
namespace {

/// Windows beyond this many are created and freed, but not reused.
constexpr std::size_t kMaskWords = 8;

/// What one rank says before an allocation.
struct Request {
  std::int64_t bytes = 0;
  std::uint64_t free[kMaskWords] = {};
};

/// Bytes that windows of this process's nodes hold, for the pretended limit.
std::atomic<std::int64_t> held_bytes{0};

/// Room for MPI's own segments, which grow after they were made.
std::int64_t reserve(int ranks) {
  return (std::int64_t{4} << 20) * (ranks + 1);
}

std::int64_t local_free_bytes(int ranks) {
  if (const char* limit = std::getenv("TESSERA_SHM_LIMIT_BYTES"))
    return std::strtoll(limit, nullptr, 10) - held_bytes;
  const char* folder = std::getenv("OMPI_MCA_osc_sm_backing_directory");
  struct statvfs status {};
  if (statvfs(folder ? folder : "/dev/shm", &status) != 0)
    return std::numeric_limits<std::int64_t>::max();
  const auto free =
      static_cast<std::int64_t>(status.f_bavail) * static_cast<std::int64_t>(status.f_frsize);
  return free - reserve(ranks);
}

/// Arrays of one size must not lie a multiple of 4 KiB apart: a loop over several of them would
/// fight for the same cache sets.
std::int64_t stagger(std::size_t window, int rank) {
  constexpr std::int64_t kLine = 64;
  return static_cast<std::int64_t>((window * 5 + static_cast<std::size_t>(rank) * 11) % 29) * 3 *
         kLine;
}
/// What a window has in excess of what was asked for: the largest stagger, and rounding to a line.
constexpr std::int64_t kSlack = 28 * 3 * 64 + 64;

/// MPI promises no more than the alignment of its own counters. The segment is mapped at whole
/// pages, so every rank of the node rounds to the same place.
std::byte* next_line(void* base) {
  const auto address = reinterpret_cast<std::uintptr_t>(base);
  return static_cast<std::byte*>(base) + (64 - address % 64) % 64;
}

bool has_bit(const std::vector<std::uint64_t>& mask, std::size_t i) {
  return i / 64 < mask.size() && (mask[i / 64] >> (i % 64) & 1) != 0;
}

}  // namespace

std::int64_t free_shared_memory(Group& node) {
  const std::int64_t mine = local_free_bytes(node.size());
  const auto raw = node.all_gather_fixed(&mine, sizeof mine, "asking for free shared memory");
  std::vector<std::int64_t> all(static_cast<std::size_t>(node.size()));
  std::memcpy(all.data(), raw.data(), raw.size());
  return *std::min_element(all.begin(), all.end());
}

std::optional<int> WindowTable::acquire(std::int64_t bytes) {
  Request mine;
  mine.bytes = bytes;
  for (std::size_t i = 0; i < std::min(windows_.size(), kMaskWords * 64); ++i)
    if (windows_[i].handle != MPI_WIN_NULL && !windows_[i].in_use)
      mine.free[i / 64] |= std::uint64_t{1} << (i % 64);
  const auto raw = node_.all_gather_fixed(&mine, sizeof mine, "allocate");
  std::vector<std::int64_t> needs;
  std::vector<std::uint64_t> free_everywhere(kMaskWords, ~std::uint64_t{0});
  for (int r = 0; r < node_.size(); ++r) {
    Request theirs;
    std::memcpy(&theirs, raw.data() + static_cast<std::size_t>(r) * sizeof theirs, sizeof theirs);
    needs.push_back(theirs.bytes);
    for (std::size_t w = 0; w < kMaskWords; ++w) free_everywhere[w] &= theirs.free[w];
  }
  std::optional<int> chosen = choose_free(needs, free_everywhere);
  if (!chosen) chosen = create(needs);
  if (!chosen) {
    free_unused(free_everywhere);
    chosen = create(needs);
  }
  if (!chosen) return chosen;
  Window& window = windows_[static_cast<std::size_t>(*chosen)];
  window.in_use = true;
  std::memset(base(*chosen, node_.rank()), 0, static_cast<std::size_t>(bytes));
  return chosen;
}

/// The smallest window that is free on every rank, fits every rank and does not waste more than
/// half.
std::optional<int> WindowTable::choose_free(
    const std::vector<std::int64_t>& needs,
    const std::vector<std::uint64_t>& free_everywhere) const {
  std::optional<int> best;
  std::int64_t best_total = 0;
  const std::int64_t need = std::accumulate(needs.begin(), needs.end(), std::int64_t{0});
  for (std::size_t i = 0; i < windows_.size(); ++i) {
    const Window& window = windows_[i];
    if (!has_bit(free_everywhere, i)) continue;
    bool fits = true;
    for (std::size_t r = 0; r < needs.size(); ++r) fits &= needs[r] <= window.capacities[r];
    const std::int64_t total =
        std::accumulate(window.capacities.begin(), window.capacities.end(), std::int64_t{0});
    constexpr std::int64_t kSmall = 64 << 10;
    if (!fits || total > 2 * need + kSmall * node_.size()) continue;
    if (best && best_total <= total) continue;
    best = static_cast<int>(i);
    best_total = total;
  }
  return best;
}

std::optional<int> WindowTable::create(const std::vector<std::int64_t>& needs) {
  constexpr std::int64_t kPage = 4096;
  std::int64_t total = 0;
  for (const std::int64_t need : needs) total += round_up(need + kSlack, kPage);
  if (total > free_shared_memory(node_)) return std::nullopt;
  held_bytes += total;

  const Watchdog::Section guard("MPI_Win_allocate_shared of \"" + node_.name() + "\"",
                                node_.timeout());
  MPI_Info info = MPI_INFO_NULL;
  check_mpi(MPI_Info_create(&info), "MPI_Info_create");
  check_mpi(MPI_Info_set(info, "alloc_shared_noncontig", "true"), "MPI_Info_set");
  Window window;
  void* own = nullptr;
  const auto me = static_cast<std::size_t>(node_.rank());
  check_mpi(
      MPI_Win_allocate_shared(needs[me] + kSlack, 1, info, node_.data(), &own, &window.handle),
      "MPI_Win_allocate_shared");
  MPI_Info_free(&info);
  for (int r = 0; r < node_.size(); ++r) {
    MPI_Aint bytes = 0;
    int unit = 0;
    void* base = nullptr;
    check_mpi(MPI_Win_shared_query(window.handle, r, &bytes, &unit, &base), "MPI_Win_shared_query");
    window.bases.push_back(next_line(base) + stagger(windows_.size(), r));
    window.capacities.push_back(needs[static_cast<std::size_t>(r)]);
  }
  by_address_[window.bases[me]] = static_cast<int>(windows_.size());
  windows_.push_back(std::move(window));
  return static_cast<int>(windows_.size()) - 1;
}

void WindowTable::free_unused(const std::vector<std::uint64_t>& free_everywhere) {
  const Watchdog::Section guard("MPI_Win_free of \"" + node_.name() + "\"", node_.timeout());
  for (std::size_t i = 0; i < windows_.size(); ++i) {
    Window& window = windows_[i];
    if (!has_bit(free_everywhere, i) || window.handle == MPI_WIN_NULL) continue;
    by_address_.erase(window.bases[static_cast<std::size_t>(node_.rank())]);
    for (const std::int64_t capacity : window.capacities)
      held_bytes -= round_up(capacity + kSlack, 4096);
    check_mpi(MPI_Win_free(&window.handle), "MPI_Win_free");
  }
}

void WindowTable::close() {
  for (Window& window : windows_) {
    if (window.handle == MPI_WIN_NULL) continue;
    for (const std::int64_t capacity : window.capacities)
      held_bytes -= round_up(capacity + kSlack, 4096);
    check_mpi(MPI_Win_free(&window.handle), "MPI_Win_free");
  }
  by_address_.clear();
}

Place WindowTable::find(const void* data, std::int64_t bytes) const {
  const auto* first = static_cast<const std::byte*>(data);
  auto above = by_address_.upper_bound(first);
  if (above == by_address_.begin()) return {};
  const int window = std::prev(above)->second;
  const std::int64_t offset = first - std::prev(above)->first;
  const std::int64_t capacity =
      windows_[static_cast<std::size_t>(window)].capacities[static_cast<std::size_t>(node_.rank())];
  if (offset + bytes > capacity) return {};
  return {window, offset};
}

}  // namespace tessera::comm
