// SPDX-License-Identifier: Apache-2.0
// What attention's forward and backward kernels share: tiles in shared memory, the causal mask,
// dropout factors, choice of the instance.
#pragma once

#include <cstdint>

#include "tessera/kernels/attention.hpp"

#include "kernels/cuda/philox.cuh"
#include "kernels/cuda/warp_tile.cuh"

namespace tessera::kernels::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

/// Arguments of one call as kernels take them.
struct AttentionCall {
  AttentionForward args;
  int queries, keys, head_dim, group;
  int first_position;  // key position of query 0
  bool vectors;        // rows of all arrays can be read 16 bytes at a time
  bool pairs;          // and written two elements at a time

  /// What a batch entry has before its padding.
  struct Filled {
    int queries, keys;
  };
  __device__ __forceinline__ Filled filled(std::int64_t batch) const {
    if (args.lengths == nullptr) return {queries, keys};
    const int length = min(max(args.lengths[batch], 0), keys);
    return {length, length};
  }
  /// How many keys the query sees; queries beyond the end see none.
  __device__ __forceinline__ int visible(int query, const Filled& filled) const {
    if (query >= filled.queries) return 0;
    return args.causal ? min(query + first_position + 1, filled.keys) : filled.keys;
  }
  /// The first query that sees the key.
  __device__ __forceinline__ int first_query(int key) const {
    return args.causal && key > first_position ? key - first_position : 0;
  }
  /// Place of (batch, head, query) in lse.
  __device__ __forceinline__ std::int64_t row(std::int64_t batch, int head, int query) const {
    return (batch * args.heads + head) * args.queries + query;
  }
};

/// Checks that the call fits the kernels' indices.
AttentionCall attention_call(const AttentionForward& args);
/// True when the array's rows, batches and start are multiples of `bytes`.
bool rows_aligned(const void* data, std::int64_t row_stride, std::int64_t batch_stride, DType dtype,
                  std::size_t bytes);

/// First element of a head of one batch entry.
template <typename T>
__device__ __forceinline__ T* head_start(T* data, std::int64_t batch, std::int64_t batch_stride,
                                         std::int64_t head, int head_dim) {
  return data + batch * batch_stride + head * head_dim;
}

/// Copies rows into a tile [kRows, kColumns] of shared memory, zero beyond the head and where
/// row_at(row) is nullptr. Threads of the block share the work; wait_for_copies() and a barrier
/// make it visible.
template <int kRows, int kColumns, int kThreads, typename T, typename RowAt>
__device__ __forceinline__ void load_tile(T* tile, int head_dim, bool vectors, RowAt&& row_at) {
  constexpr int kStride = kTileStride<T, kColumns>;
  constexpr int kVector = 16 / static_cast<int>(sizeof(T));
  constexpr int kVectors = kColumns / kVector;
  if (vectors) {
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kVectors; i += kThreads) {
      const int row = i / kVectors, column = i % kVectors * kVector;
      const T* source = row_at(row);
      T* target = tile + row * kStride + column;
      if (source != nullptr && column < head_dim)
        copy_16_bytes(target, source + column);
      else
        *reinterpret_cast<uint4*>(target) = uint4{0, 0, 0, 0};
    }
    return;
  }
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kColumns; i += kThreads) {
    const int row = i / kColumns, column = i % kColumns;
    const T* source = row_at(row);
    tile[row * kStride + column] =
        source != nullptr && column < head_dim ? source[column] : static_cast<T>(0.0f);
  }
}

/// Stores the two elements at `column` of a row, as far as the head goes.
template <typename T>
__device__ __forceinline__ void store_two(T* row, int column, int head_dim, bool pairs, float first,
                                          float second) {
  if (pairs) {
    if (column >= head_dim) return;
    if constexpr (sizeof(T) == 4)
      *reinterpret_cast<float2*>(row + column) = float2{first, second};
    else
      *reinterpret_cast<std::uint32_t*>(row + column) = pack_two<T>(first, second);
    return;
  }
  if (column < head_dim) row[column] = static_cast<T>(first);
  if (column + 1 < head_dim) row[column + 1] = static_cast<T>(second);
}

/// From the number of a query's first element to that of the next query's.
__host__ __device__ __forceinline__ std::int64_t row_elements(const AttentionForward& args) {
  return args.all_positions > 0 ? args.all_positions : args.keys;
}

/// Factors of probabilities: 0 with the dropout's probability, else what keeps the mean. Computed
/// as on the CPU, for the same elements. A block of random words serves four keys in a row; where
/// no block reaches into the next row, the lanes that hold its four elements compute it once.
class DropoutFactors {
 public:
  __device__ __forceinline__ explicit DropoutFactors(const AttentionForward& args)
      : seed_(args.dropout_seed),
        stream_(args.dropout_stream),
        variables_(args.variables),
        threshold_(args.dropout),
        scale_(1.0f / (1.0f - args.dropout)),
        whole_(row_elements(args) % 4 == 0 && args.key_offset % 4 == 0) {}

  /// factors: of the lane's four elements of a tile with queries as rows and keys as columns.
  /// upper, lower: numbers of its first elements in both rows. All lanes of the warp take part.
  __device__ __forceinline__ void by_query(float (&factors)[4], std::uint64_t upper,
                                           std::uint64_t lower) const {
    if (whole_) {
      // The left of two lanes makes the words of the upper row for both, the right of the lower.
      const bool right = threadIdx.x % 2 != 0;
      const PhiloxWords words = philox_block(seed_, stream(), (right ? lower : upper) / 4);
      const std::uint32_t first = swap(right ? words.values[0] : words.values[2], 1);
      const std::uint32_t second = swap(right ? words.values[1] : words.values[3], 1);
      factors[0] = factor(right ? first : words.values[0]);
      factors[1] = factor(right ? second : words.values[1]);
      factors[2] = factor(right ? words.values[2] : first);
      factors[3] = factor(right ? words.values[3] : second);
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
      factors[i] = one((i < 2 ? upper : lower) + static_cast<std::uint64_t>(i % 2));
  }
  /// The same with keys as rows and queries as columns. elements: numbers of the four elements.
  __device__ __forceinline__ void by_key(float (&factors)[4],
                                         const std::uint64_t (&elements)[4]) const {
    if (whole_) {
      // Four lanes hold four keys in a row; number r makes the words of element r of all of them.
      const int r = lane_row() % 4;
      PhiloxWords words = philox_block(seed_, stream(), pick(elements, r) / 4);
      transpose<1>(words, r % 2 != 0);
      transpose<2>(words, r / 2 != 0);
#pragma unroll
      for (int i = 0; i < 4; ++i) factors[i] = factor(words.values[i]);
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) factors[i] = one(elements[i]);
  }

 private:
  // Not an index: what it reads would have to leave the registers.
  template <typename T>
  static __device__ __forceinline__ T pick(const T (&values)[4], int i) {
    return i == 0 ? values[0] : i == 1 ? values[1] : i == 2 ? values[2] : values[3];
  }
  static __device__ __forceinline__ std::uint32_t swap(std::uint32_t word, int lanes) {
    return __shfl_xor_sync(0xffffffffu, word, lanes);
  }
  /// One step of exchanging lanes and words: `odd` lanes give the even of two words for the odd
  /// one.
  template <int kDistance>
  static __device__ __forceinline__ void transpose(PhiloxWords& words, bool odd) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & kDistance) != 0) continue;
      const std::uint32_t even_word = words.values[i], odd_word = words.values[i + kDistance];
      const std::uint32_t received = swap(odd ? even_word : odd_word, kDistance * 4);
      words.values[i] = odd ? received : even_word;
      words.values[i + kDistance] = odd ? odd_word : received;
    }
  }
  __device__ __forceinline__ float one(std::uint64_t element) const {
    return factor(
        pick(philox_block(seed_, stream(), element / 4).values, static_cast<int>(element % 4)));
  }
  __device__ __forceinline__ float factor(std::uint32_t word) const {
    return uniform(word) >= threshold_ ? scale_ : 0.0f;
  }

  // Not kept: it would take registers from every kernel.
  __device__ __forceinline__ std::uint64_t stream() const {
    return variables_ != nullptr ? mix(variables_->step, stream_) : stream_;
  }

  std::uint64_t seed_, stream_;
  const PassVariables* variables_;
  float threshold_, scale_;
  bool whole_;  // rows are whole blocks
};

/// Number of the first of a row's elements.
__device__ __forceinline__ std::uint64_t first_element(const AttentionForward& args,
                                                       std::int64_t batch, int head, int query) {
  if (args.variables != nullptr) batch += args.variables->first_row;
  const std::int64_t heads = args.all_heads > 0 ? args.all_heads : args.heads;
  const std::int64_t queries = args.all_positions > 0 ? args.all_positions : args.queries;
  const std::int64_t row =
      ((args.batch_offset + batch) * heads + args.head_offset + head) * queries +
      args.query_offset + query;
  return static_cast<std::uint64_t>(row * row_elements(args) + args.key_offset);
}

/// Sum or largest over the four lanes that share a row.
__device__ __forceinline__ float row_sum(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}
__device__ __forceinline__ float row_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

/// Calls body(T{}, std::integral_constant<int, kDim>{}) with the element type and the smallest
/// width of tiles that holds head_dim.
template <typename T, typename Body>
void dispatch_head_width(std::int64_t head_dim, Body&& body) {
  if (head_dim <= 32) return body(T{}, std::integral_constant<int, 32>{});
  if (head_dim <= 64) return body(T{}, std::integral_constant<int, 64>{});
  if (head_dim <= 128) return body(T{}, std::integral_constant<int, 128>{});
  return body(T{}, std::integral_constant<int, 256>{});
}
template <typename Body>
void dispatch_attention(const AttentionForward& args, Body&& body) {
  switch (args.dtype) {
    case DType::fp32:
      return dispatch_head_width<float>(args.head_dim, body);
    case DType::bf16:
      return dispatch_head_width<__nv_bfloat16>(args.head_dim, body);
    case DType::fp16:
      return dispatch_head_width<__half>(args.head_dim, body);
    default:
      fail(Code::not_supported,
           std::string("attention works on fp32, bf16 and fp16, not on ") + to_string(args.dtype));
  }
}

}  // namespace tessera::kernels::cuda
