// SPDX-License-Identifier: Apache-2.0
// The kernels of the emulation's own tests, some with mistakes on request.
#include <tuple>

#include "emulation/kernels.hpp"

namespace tessera::emulation_test {

namespace {

template <auto Kernel, typename... Arguments>
void launch(cudaStream_t stream, dim3 blocks, dim3 threads, std::size_t shared_bytes,
            Arguments... arguments) {
  emulation::launch(__PRETTY_FUNCTION__, blocks, threads, shared_bytes, stream,
                    [all = std::make_tuple(arguments...)] { std::apply(Kernel, all); });
}

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__device__ float warp_sum(float value) {
  for (int bits = 16; bits > 0; bits /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, bits);
  }
  return value;
}

__device__ float block_sum(float value, float* sums, bool barrier) {
  value = warp_sum(value);
  const unsigned warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) {
    sums[warp] = value;
  }
  if (barrier) {
    __syncthreads();
  }
  float sum = 0.0f;
  for (int w = 0; w < kWarps; ++w) {
    sum += sums[w];
  }
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    normalize_kernel(const float* __restrict__ input, float* __restrict__ output, int columns,
                     int missing) {
  __shared__ float sums[kWarps];
  const float* row = input + blockIdx.x * static_cast<unsigned>(columns);
  float sum = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += kThreads) {
    sum += row[i];
  }
  const float mean = block_sum(sum, sums, missing != 1) / static_cast<float>(columns);
  if (missing != 2) {
    __syncthreads();
  }
  float squares = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += kThreads) {
    squares += (row[i] - mean) * (row[i] - mean);
  }
  const float variance = block_sum(squares, sums, missing != 3) / static_cast<float>(columns);
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += kThreads) {
    output[blockIdx.x * static_cast<unsigned>(columns) + static_cast<unsigned>(i)] =
        (row[i] - mean) * rsqrtf(variance);
  }
}

constexpr int kTile = 32;

__global__ void multiply_kernel(const float* a, const float* b, float* c, int size, int missing) {
  __shared__ float tile_a[kTile][kTile + 1];
  __shared__ float tile_b[kTile][kTile + 1];
  const int x = static_cast<int>(threadIdx.x);
  const int y = static_cast<int>(threadIdx.y);
  const int row = static_cast<int>(blockIdx.y) * kTile + y;
  const int column = static_cast<int>(blockIdx.x) * kTile + x;
  float sum = 0.0f;
  for (int k = 0; k < size; k += kTile) {
    tile_a[y][x] = a[row * size + k + x];
    tile_b[y][x] = b[(k + y) * size + column];
    if (missing != 1) {
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      sum = __fmaf_rn(tile_a[y][i], tile_b[i][x], sum);
    }
    if (missing != 2) {
      __syncthreads();
    }
  }
  c[row * size + column] = sum;
}

__global__ void sum_warps_kernel(const int* input, int* output, int missing) {
  DYNAMIC_SHARED(volatile int, values);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  volatile int* mine = values + (threadIdx.x - static_cast<unsigned>(lane));
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  mine[lane] = input[i];
  int step = 1;
  for (int half = 16; half > 0; half /= 2, ++step) {
    if (missing != step) {
      __syncwarp();
    }
    if (lane < half) {
      mine[lane] = mine[lane] + mine[lane + half];
    }
  }
  if (lane == 0) {
    output[i / 32] = mine[0];
  }
}

__global__ void histogram_kernel(const std::uint32_t* values, unsigned* counts, int n, int bins) {
  DYNAMIC_SHARED(unsigned, local);
  for (unsigned b = threadIdx.x; b < static_cast<unsigned>(bins); b += blockDim.x) {
    local[b] = 0;
  }
  __syncthreads();
  const auto i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) {
    atomicAdd(&local[__ldg(values + i) % static_cast<unsigned>(bins)], 1u);
  }
  __syncthreads();
  for (unsigned b = threadIdx.x; b < static_cast<unsigned>(bins); b += blockDim.x) {
    atomicAdd(counts + b, local[b]);
  }
}

__global__ void warp_operations_kernel(int* output) {
  const int lane = static_cast<int>(threadIdx.x);
  const int value = 100 + lane;
  constexpr unsigned kAll = 0xffffffffu;
  output[0 * 32 + lane] = __shfl_sync(kAll, value, 5);
  output[1 * 32 + lane] = __shfl_up_sync(kAll, value, 3);
  output[2 * 32 + lane] = __shfl_down_sync(kAll, value, 3);
  output[3 * 32 + lane] = __shfl_xor_sync(kAll, value, 9);
  output[4 * 32 + lane] = __shfl_sync(kAll, value, 13, 8);
  output[5 * 32 + lane] = __shfl_up_sync(kAll, value, 3, 8);
  output[6 * 32 + lane] = __shfl_down_sync(kAll, value, 3, 8);
  output[7 * 32 + lane] = static_cast<int>(__ballot_sync(kAll, lane % 3 == 0));
  output[8 * 32 + lane] = __any_sync(kAll, lane == 7);
  output[9 * 32 + lane] = __all_sync(kAll, lane != 7);
  // The two halves gather apart from each other.
  int sum = value;
  if (lane < 16) {
    sum = __reduce_add_sync(0x0000ffffu, value);
  } else {
    for (int bits = 8; bits > 0; bits /= 2) {
      sum += __shfl_xor_sync(0xffff0000u, sum, bits);
    }
  }
  output[10 * 32 + lane] = sum;
}

__global__ void fill_kernel(float* data, float value, int n) {
  const auto i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) {
    data[i] = value;
  }
}

__global__ void increment_kernel(float* data, int n) {
  const auto i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) {
    data[i] += 1.0f;
  }
}

__global__ void wrong_kernel(Wrong how, float* data) {
  __shared__ float values[64];
  DYNAMIC_SHARED(float, dynamic);
  const unsigned i = threadIdx.x;
  switch (how) {
    case Wrong::divergent_barrier:
      if (i < 32) {
        __syncthreads();
      } else {
        __syncthreads();
      }
      break;
    case Wrong::barrier_and_warp:
      if (i % 32 < 16) {
        __syncthreads();
      } else {
        __syncwarp();
      }
      break;
    case Wrong::lacking_lane:
      __syncwarp(1u << ((i + 1) % 32));
      break;
    case Wrong::different_shuffles:
      data[i] = i % 2 == 0 ? __shfl_xor_sync(0xffffffffu, data[i], 1)
                           : static_cast<float>(__ballot_sync(0xffffffffu, 1));
      break;
    case Wrong::endless_wait:
      if (i == 3) {
        __syncthreads();
      }
      __syncwarp();
      __syncthreads();
      break;
    case Wrong::trap:
      __trap();
    case Wrong::static_overrun:
      values[i + static_cast<unsigned>(data != nullptr)] = 1.0f;
      __syncthreads();
      data[i] = values[63 - i];
      break;
    case Wrong::dynamic_overrun:
      dynamic[i + 4] = 1.0f;
      break;
    case Wrong::misaligned_vector:
      data[i] = reinterpret_cast<const float4*>(data + 1 + 4 * i)->x;
      break;
  }
}

__global__ void read_unwritten_kernel(float* output) {
  __shared__ float fixed[64];
  DYNAMIC_SHARED(float, dynamic);
  const unsigned i = threadIdx.x;
  output[blockIdx.x * 128 + i] = fixed[i];
  output[blockIdx.x * 128 + 64 + i] = dynamic[i];
  __syncthreads();
  fixed[i] = 0.0f;
  dynamic[i] = 0.0f;
}

unsigned blocks_for(int n) {
  return static_cast<unsigned>((n + kThreads - 1) / kThreads);
}

}  // namespace

void normalize_rows(cudaStream_t stream, const float* input, float* output, int rows, int columns,
                    int missing) {
  launch<normalize_kernel>(stream, static_cast<unsigned>(rows), kThreads, 0, input, output, columns,
                           missing);
}

void multiply(cudaStream_t stream, const float* a, const float* b, float* c, int size,
              int missing) {
  const auto tiles = static_cast<unsigned>(size / kTile);
  launch<multiply_kernel>(stream, dim3(tiles, tiles), dim3(kTile, kTile), 0, a, b, c, size,
                          missing);
}

void sum_warps(cudaStream_t stream, const int* input, int* output, int groups, int missing) {
  launch<sum_warps_kernel>(stream, static_cast<unsigned>(groups / 2), 64, 64 * sizeof(int), input,
                           output, missing);
}

void histogram(cudaStream_t stream, const std::uint32_t* values, unsigned* counts, int n,
               int bins) {
  launch<histogram_kernel>(stream, blocks_for(n), kThreads,
                           static_cast<std::size_t>(bins) * sizeof(unsigned), values, counts, n,
                           bins);
}

void warp_operations(cudaStream_t stream, int* output) {
  launch<warp_operations_kernel>(stream, 1, 32, 0, output);
}

void fill(cudaStream_t stream, float* data, float value, int n) {
  launch<fill_kernel>(stream, blocks_for(n), kThreads, 0, data, value, n);
}

void increment(cudaStream_t stream, float* data, int n) {
  launch<increment_kernel>(stream, blocks_for(n), kThreads, 0, data, n);
}

void go_wrong(cudaStream_t stream, Wrong how, float* data) {
  launch<wrong_kernel>(stream, 1, 64, 64 * sizeof(float), how, data);
}

void read_unwritten(cudaStream_t stream, float* output) {
  launch<read_unwritten_kernel>(stream, 3, 64, 64 * sizeof(float), output);
}

}  // namespace tessera::emulation_test
