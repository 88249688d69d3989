// SPDX-License-Identifier: Apache-2.0
// Table look-up on a GPU, and its gradient without races: a stable radix sort brings the rows of
// each id together, in ascending order, and one block sums them.
#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/workspace.hpp"

namespace tessera::kernels::cuda {
namespace {

/// Digits of the radix sort, and rows that a block of as many threads ranks.
inline constexpr int kDigitBits = 8;
inline constexpr int kDigits = 1 << kDigitBits;
inline constexpr int kTile = kDigits;

/// Rows of ids outside the table become NaN, which nothing overlooks: ids on a GPU are not looked
/// at before the launch. Those of another slice become zeros.
template <typename T, int N>
__global__ __launch_bounds__(kThreads) void embedding_forward_kernel(EmbeddingForward args) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t id = args.ids[row];
  const std::int64_t vocabulary =
      args.slice.vocabulary > 0 ? args.slice.vocabulary : args.table_rows;
  const bool known = id >= 0 && id < vocabulary;
  const std::int64_t held = id - args.slice.first;
  const bool here = held >= 0 && held < args.table_rows;
  if (known && !here && args.accumulate) return;
  const T* source = static_cast<const T*>(args.table) + (here ? held : 0) * args.columns;
  T* y = static_cast<T*>(args.y) + row * args.columns;
  const auto step = static_cast<std::int64_t>(blockDim.x) * N;
  for (std::int64_t i = static_cast<std::int64_t>(threadIdx.x) * N; i < args.columns; i += step) {
    if (!here) {
      Pack<T, N> nothing;
#pragma unroll
      for (int k = 0; k < N; ++k) nothing.values[k] = round_to<T>(known ? 0.0f : nanf(""));
      store(y + i, nothing);
    } else if (args.accumulate) {
      store_map(
          y + i, [](float before, float a) { return before + a; }, load<N>(y + i),
          load<N>(source + i));
    } else {
      store(y + i, load<N>(source + i));
    }
  }
}

/// A row and the id that it looked up.
struct Entry {
  std::uint32_t id, row;
};

/// Where the entries of one pass come from. In the first pass they are made from the ids, counted
/// from the table's first; those outside the table sort behind it.
struct Entries {
  const std::int32_t* ids;  // first pass
  std::int64_t first;
  const Entry* sorted;  // later ones
  std::uint32_t table_rows;

  __device__ Entry get(std::uint32_t i) const {
    if (ids == nullptr) return sorted[i];
    const std::int64_t held = ids[i] - first;
    const bool here = held >= 0 && held < std::int64_t{table_rows};
    return {here ? static_cast<std::uint32_t>(held) : table_rows, i};
  }
};

__device__ __forceinline__ int digit_of(Entry entry, int shift) {
  return static_cast<int>(entry.id >> shift) % kDigits;
}

/// counts[digit * tiles + tile]: entries of the tile with that digit.
__global__ __launch_bounds__(kTile) void count_digits_kernel(Entries entries, std::uint32_t count,
                                                             int shift, std::uint32_t* counts) {
  __shared__ unsigned found[kDigits];
  found[threadIdx.x] = 0;
  __syncthreads();
  const std::uint32_t i = blockIdx.x * kTile + threadIdx.x;
  if (i < count) atomicAdd(&found[digit_of(entries.get(i), shift)], 1u);
  __syncthreads();
  counts[threadIdx.x * gridDim.x + blockIdx.x] = found[threadIdx.x];
}

inline constexpr int kScanThreads = 1024;

/// Replaces counts by the sums of all before them. One block: a thread adds a run of its own, then
/// the runs' sums are scanned.
__global__ __launch_bounds__(kScanThreads) void scan_counts_kernel(std::uint32_t* counts,
                                                                   std::uint32_t count) {
  __shared__ std::uint32_t sums[2][kScanThreads];
  const std::uint32_t run = (count + kScanThreads - 1) / kScanThreads;
  const std::uint32_t begin = min(threadIdx.x * run, count), end = min(begin + run, count);
  std::uint32_t sum = 0;
  for (std::uint32_t i = begin; i < end; ++i) sum += counts[i];
  int from = 0;
  sums[from][threadIdx.x] = sum;
  __syncthreads();
  for (unsigned distance = 1; distance < kScanThreads; distance *= 2) {
    const std::uint32_t left =
        threadIdx.x >= distance ? sums[from][threadIdx.x - distance] : std::uint32_t{0};
    sums[1 - from][threadIdx.x] = sums[from][threadIdx.x] + left;
    from = 1 - from;
    __syncthreads();
  }
  std::uint32_t before = sums[from][threadIdx.x] - sum;
  for (std::uint32_t i = begin; i < end; ++i) {
    const std::uint32_t here = counts[i];
    counts[i] = before;
    before += here;
  }
}

/// Moves each entry behind those with smaller digits and the earlier ones with its own: stable.
__global__ __launch_bounds__(kTile) void scatter_kernel(Entries entries, std::uint32_t count,
                                                        int shift, const std::uint32_t* starts,
                                                        Entry* sorted) {
  __shared__ int digits[kTile];
  const auto thread = static_cast<int>(threadIdx.x);
  const std::uint32_t i = blockIdx.x * kTile + threadIdx.x;
  const bool inside = i < count;
  const Entry entry = inside ? entries.get(i) : Entry{0, 0};
  const int digit = inside ? digit_of(entry, shift) : -1;
  digits[thread] = digit;
  __syncthreads();
  if (!inside) return;
  std::uint32_t rank = 0;
  for (int other = 0; other < thread; ++other) rank += digits[other] == digit ? 1u : 0u;
  sorted[starts[static_cast<unsigned>(digit) * gridDim.x + blockIdx.x] + rank] = entry;
}

/// Behind the last entry with the id of `first`: steps that double, then halve. Most ids are rare.
__device__ std::int64_t bucket_end(const Entry* sorted, std::int64_t first, std::int64_t count) {
  const std::uint32_t id = sorted[first].id;
  std::int64_t last = first, step = 1;
  while (last + step < count && sorted[last + step].id == id) {
    last += step;
    step *= 2;
  }
  while (step > 1) {
    step /= 2;
    if (last + step < count && sorted[last + step].id == id) last += step;
  }
  return last + 1;
}

/// One block for each place in the sorted order; that of an id's first row sums all its rows, one
/// after the other.
template <typename T, typename G, int N>
__global__ __launch_bounds__(kThreads) void sum_buckets_kernel(EmbeddingBackward args,
                                                               const Entry* sorted) {
  const std::int64_t first = blockIdx.x;
  const std::uint32_t id = sorted[first].id;
  if (id >= args.table_rows || (first > 0 && sorted[first - 1].id == id)) return;
  const std::int64_t end = bucket_end(sorted, first, args.rows);
  const T* dy = static_cast<const T*>(args.dy);
  G* target = static_cast<G*>(args.dtable) + id * args.columns;
  const auto step = static_cast<std::int64_t>(blockDim.x) * N;
  for (std::int64_t i = static_cast<std::int64_t>(threadIdx.x) * N; i < args.columns; i += step) {
    float sums[N] = {};
#pragma unroll 4
    for (std::int64_t at = first; at < end; ++at) {
      const auto pack = load<N>(dy + sorted[at].row * args.columns + i);
#pragma unroll
      for (int k = 0; k < N; ++k) sums[k] += pack[k];
    }
    Pack<G, N> out;
    if (args.accumulate) out = load<N>(target + i);
#pragma unroll
    for (int k = 0; k < N; ++k)
      out.values[k] = round_to<G>(args.accumulate ? out[k] + sums[k] : sums[k]);
    store(target + i, out);
  }
}

__global__ __launch_bounds__(kThreads) void position_ids_kernel(std::int32_t* ids,
                                                                std::int64_t count,
                                                                std::int64_t positions,
                                                                std::int64_t first) {
  const auto i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) ids[i] = static_cast<std::int32_t>(first + i % positions);
}

/// Entries sorted by id, those of one id by row.
class SortedEntries {
 public:
  SortedEntries(const Stream& stream, const EmbeddingBackward& args)
      : count_(static_cast<std::uint32_t>(args.rows)),
        tiles_(static_cast<std::uint32_t>(ceil_divide(args.rows, kTile))),
        sorted_(entries_on(stream)),
        spare_(entries_on(stream)),
        counts_(allocate_workspace(stream, std::size_t{tiles_} * kDigits * sizeof(std::uint32_t))) {
    const auto table_rows = static_cast<std::uint32_t>(args.table_rows);
    Entries entries{args.ids, args.slice.first, nullptr, table_rows};
    for (int shift = 0; shift == 0 || table_rows >> shift != 0; shift += kDigitBits) {
      pass(stream, entries, shift);
      std::swap(sorted_, spare_);
      entries = {nullptr, 0, spare_.as<Entry>(), table_rows};
      if (shift + kDigitBits >= 32) break;
    }
  }
  const Entry* data() const { return spare_.as<Entry>(); }

 private:
  Buffer entries_on(const Stream& stream) const {
    return allocate_workspace(stream, count_ * sizeof(Entry));
  }
  void pass(const Stream& stream, const Entries& entries, int shift) const {
    auto* counts = counts_.as<std::uint32_t>();
    tessera::cuda::launch<count_digits_kernel>(stream, dim3(tiles_), dim3(kTile), 0, entries,
                                               count_, shift, counts);
    tessera::cuda::launch<scan_counts_kernel>(stream, dim3(1), dim3(kScanThreads), 0, counts,
                                              tiles_ * kDigits);
    tessera::cuda::launch<scatter_kernel>(stream, dim3(tiles_), dim3(kTile), 0, entries, count_,
                                          shift, counts, sorted_.as<Entry>());
  }

  std::uint32_t count_, tiles_;
  Buffer sorted_, spare_, counts_;
};

/// Threads for rows of so many packs.
dim3 row_threads(std::int64_t packs) {
  return dim3(static_cast<unsigned>(std::min<std::int64_t>(kThreads, round_up(packs, 32))));
}

template <typename T, typename G>
void sum_buckets(const Stream& stream, const EmbeddingBackward& args, const Entry* sorted) {
  constexpr int kWide = kPackWidth<T, G>;
  const bool wide = args.columns % kWide == 0 &&
                    is_aligned<kWide>(static_cast<const T*>(args.dy)) &&
                    is_aligned<kWide>(static_cast<const G*>(args.dtable));
  dispatch_width<kWide>(wide, [&]<int N>(Width<N>) {
    tessera::cuda::launch<sum_buckets_kernel<T, G, N>>(stream, dim3(blocks_for(args.rows, 1)),
                                                       row_threads(ceil_divide(args.columns, N)), 0,
                                                       args, sorted);
  });
}

}  // namespace

void embedding_forward(const Stream& stream, const EmbeddingForward& args) {
  if (args.columns == 0) return;
  dispatch_type(args.dtype, "embedding", [&]<typename T>(T) {
    constexpr int kWide = kPackWidth<T>;
    const bool wide =
        args.columns % kWide == 0 &&
        all_aligned<kWide>(static_cast<const T*>(args.table), static_cast<const T*>(args.y));
    dispatch_width<kWide>(wide, [&]<int N>(Width<N>) {
      tessera::cuda::launch<embedding_forward_kernel<T, N>>(
          stream, dim3(blocks_for(args.rows, 1)), row_threads(ceil_divide(args.columns, N)), 0,
          args);
    });
  });
}

void position_ids(const Stream& stream, std::int32_t* ids, std::int64_t rows,
                  std::int64_t positions, std::int64_t first) {
  const std::int64_t count = rows * positions;
  tessera::cuda::launch<position_ids_kernel>(stream, dim3(blocks_for(count, kThreads)),
                                             dim3(kThreads), 0, ids, count, positions, first);
}

void embedding_backward(const Stream& stream, const EmbeddingBackward& args) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  TESSERA_CHECK(args.rows <= kMost && args.table_rows <= kMost, Code::not_supported,
                "embedding: " + std::to_string(args.rows) + " rows of a table of " +
                    std::to_string(args.table_rows) + " are more than a GPU sorts at once");
  if (!args.accumulate)
    stream.fill_zero(args.dtable, static_cast<std::size_t>(args.table_rows * args.columns) *
                                      size_of(args.gradient_type));
  if (args.rows == 0 || args.columns == 0) return;
  const SortedEntries sorted(stream, args);
  dispatch_type(args.dtype, "embedding", [&]<typename T>(T) {
    dispatch_type(args.gradient_type, "embedding",
                  [&]<typename G>(G) { sum_buckets<T, G>(stream, args, sorted.data()); });
  });
}

}  // namespace tessera::kernels::cuda
