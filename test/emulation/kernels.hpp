// SPDX-License-Identifier: Apache-2.0
// Kernels for the emulation's own tests. `missing` names the barrier that a kernel leaves out, from
// 1; 0 leaves out none.
#pragma once

#include <cstdint>
#include <driver_types.h>

namespace tessera::emulation_test {

/// One block of 256 threads per row: output = (input − mean) / standard deviation. Barriers: 1 and
/// 3 between the sums of the warps and their sum, 2 before the sums are written again. 4: the
/// __syncwarp of a sum over lanes through shared memory.
inline constexpr int kNormalizeBarriers = 3;
void normalize_rows(cudaStream_t stream, const float* input, float* output, int rows, int columns,
                    int missing);

/// C = A B with square matrices of `size`, a multiple of 32, in tiles of shared memory. Barriers: 1
/// before the product of a tile, 2 after it.
inline constexpr int kMultiplyBarriers = 2;
void multiply(cudaStream_t stream, const float* a, const float* b, float* c, int size, int missing);

/// Sum of each group of 32 through dynamic shared memory. Barriers: 1 to 5, one for each halving.
inline constexpr int kWarpBarriers = 5;
void sum_warps(cudaStream_t stream, const int* input, int* output, int groups, int missing);

/// counts[v % bins] of all values, by atomics in shared and global memory.
void histogram(cudaStream_t stream, const std::uint32_t* values, unsigned* counts, int n, int bins);

/// output[0…31] of one warp each: shuffles by index, up, down and exclusive or with widths 32 and
/// 8, a ballot, any, all, and a sum of half the warp.
inline constexpr int kWarpResults = 11;
void warp_operations(cudaStream_t stream, int* output);

/// data[i] = value, i < n + beyond.
void fill(cudaStream_t stream, float* data, float value, int n);
/// data[i] += 1.
void increment(cudaStream_t stream, float* data, int n);

enum class Wrong {
  divergent_barrier,   ///< half of the block waits at one barrier, half at another
  barrier_and_warp,    ///< half of a warp at a barrier, half in __syncwarp
  lacking_lane,        ///< a mask without the calling lane
  different_shuffles,  ///< lanes of one mask in different operations
  endless_wait,        ///< lanes wait for one that waits at the barrier
  trap,
  static_overrun,     ///< writes behind a static shared array
  dynamic_overrun,    ///< writes behind dynamic shared memory
  misaligned_vector,  ///< reads a float4 4 bytes behind where one may lie
};
void go_wrong(cudaStream_t stream, Wrong how, float* data);

/// output[i] = what thread i finds in shared memory that nobody wrote.
void read_unwritten(cudaStream_t stream, float* output);

}  // namespace tessera::emulation_test
