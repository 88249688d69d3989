// SPDX-License-Identifier: Apache-2.0
// Pieces of PTX: matrix fragments, tensor-core products and copies that bypass registers, each with
// a twin for the emulation.
#pragma once

#include <cstdint>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace tessera::kernels::cuda {

/// 16 x 16 left operand of one warp: lane l holds, packed by two, columns 2 (l % 4) and the next of
/// rows l / 4 and l / 4 + 8, then the same 8 columns further.
struct LeftFragment {
  std::uint32_t words[4];
};

/// 16 x 8 right operand of one warp: lane l holds rows 2 (l % 4) and the next of column l / 4, then
/// the same 8 rows further.
struct RightFragment {
  std::uint32_t words[2];
};

template <typename T>
__device__ __forceinline__ std::uint32_t pack_two(float first, float second);
template <>
__device__ __forceinline__ std::uint32_t pack_two<__nv_bfloat16>(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  std::uint32_t word;
  memcpy(&word, &pair, sizeof(word));
  return word;
}
template <>
__device__ __forceinline__ std::uint32_t pack_two<__half>(float first, float second) {
  const __half2 pair = __floats2half2_rn(first, second);
  std::uint32_t word;
  memcpy(&word, &pair, sizeof(word));
  return word;
}

#ifndef TESSERA_CUDA_EMULATION

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void load_matrices(std::uint32_t (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&words)[4],
                                                         const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}

/// The 16 x 16 corner of a row-major matrix in shared memory, rows aligned to 16 bytes.
template <typename T>
__device__ __forceinline__ LeftFragment load_left(const T* corner, int stride) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  LeftFragment fragment;
  load_matrices(fragment.words, corner + lane % 16 * stride + lane / 16 * 8);
  return fragment;
}

/// Right operands of columns 0..7 and 8..15 from a matrix that has a row for each column.
template <typename T>
__device__ __forceinline__ void load_right_columns(RightFragment (&pair)[2], const T* corner,
                                                   int stride) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  std::uint32_t words[4];
  load_matrices(words, corner + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8);
  pair[0] = {{words[0], words[1]}};
  pair[1] = {{words[2], words[3]}};
}

/// Right operands of columns 0..7 and 8..15 from a matrix with rows as they are.
template <typename T>
__device__ __forceinline__ void load_right_rows(RightFragment (&pair)[2], const T* corner,
                                                int stride) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  std::uint32_t words[4];
  load_matrices_transposed(words, corner + lane % 16 * stride + lane / 16 * 8);
  pair[0] = {{words[0], words[1]}};
  pair[1] = {{words[2], words[3]}};
}

/// sums += left right: lane l holds columns 2 (l % 4) and the next of row l / 4, then of row l / 4
/// +
/// 8. All lanes of the warp take part.
template <typename T>
__device__ __forceinline__ void multiply_add(float (&sums)[4], const LeftFragment& left,
                                             const RightFragment& right);
template <>
__device__ __forceinline__ void multiply_add<__nv_bfloat16>(float (&sums)[4],
                                                            const LeftFragment& left,
                                                            const RightFragment& right) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(left.words[0]), "r"(left.words[1]), "r"(left.words[2]), "r"(left.words[3]),
        "r"(right.words[0]), "r"(right.words[1]));
}
template <>
__device__ __forceinline__ void multiply_add<__half>(float (&sums)[4], const LeftFragment& left,
                                                     const RightFragment& right) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(left.words[0]), "r"(left.words[1]), "r"(left.words[2]), "r"(left.words[3]),
        "r"(right.words[0]), "r"(right.words[1]));
}

/// Starts copying 16 bytes from global to shared memory, both aligned to 16 bytes.
__device__ __forceinline__ void copy_16_bytes(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(global)
               : "memory");
}

/// Waits until the copies that this thread has started are done.
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

#else

// The twins read the elements that a lane receives, instead of the row whose address it gives: the
// same bytes for the warp, under the same synchronisation.

template <typename T>
std::uint32_t two_elements(const T* first, int step) {
  const T pair[2] = {first[0], first[step]};
  std::uint32_t word;
  std::memcpy(&word, pair, sizeof(word));
  return word;
}

template <typename T>
LeftFragment load_left(const T* corner, int stride) {
  const int lane = static_cast<int>(threadIdx.x) % 32, row = lane / 4, column = lane % 4 * 2;
  LeftFragment fragment;
  for (int i = 0; i < 4; ++i)
    fragment.words[i] = two_elements(corner + (row + i % 2 * 8) * stride + column + i / 2 * 8, 1);
  return fragment;
}

template <typename T>
void load_right_columns(RightFragment (&pair)[2], const T* corner, int stride) {
  const int lane = static_cast<int>(threadIdx.x) % 32, column = lane / 4, row = lane % 4 * 2;
  for (int i = 0; i < 4; ++i)
    pair[i / 2].words[i % 2] =
        two_elements(corner + (column + i / 2 * 8) * stride + row + i % 2 * 8, 1);
}

template <typename T>
void load_right_rows(RightFragment (&pair)[2], const T* corner, int stride) {
  const int lane = static_cast<int>(threadIdx.x) % 32, column = lane / 4, row = lane % 4 * 2;
  for (int i = 0; i < 4; ++i)
    pair[i / 2].words[i % 2] =
        two_elements(corner + (row + i % 2 * 8) * stride + column + i / 2 * 8, stride);
}

template <typename T>
void spread(std::uint32_t word, float& first, float& second) {
  T pair[2];
  std::memcpy(static_cast<void*>(pair), &word, sizeof(word));
  first = static_cast<float>(pair[0]);
  second = static_cast<float>(pair[1]);
}

/// What one lane brings to a product of its warp.
template <typename T>
struct Product {
  LeftFragment left;
  RightFragment right;
  float* sums;

  /// Run for all lanes by the last that comes.
  static void multiply(void* const* lanes, std::uint32_t) {
    const auto at = [&](int lane) { return static_cast<const Product*>(lanes[lane]); };
    float left[16][16], right[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int row = lane / 4, column = lane % 4 * 2;
      for (int i = 0; i < 4; ++i) {
        float* target = &left[row + i % 2 * 8][column + i / 2 * 8];
        spread<T>(at(lane)->left.words[i], target[0], target[1]);
      }
      for (int i = 0; i < 2; ++i)
        spread<T>(at(lane)->right.words[i], right[column + i * 8][row],
                  right[column + i * 8 + 1][row]);
    }
    for (int row = 0; row < 16; ++row) {
      float sums[8] = {};
      for (int k = 0; k < 16; ++k)
        for (int column = 0; column < 8; ++column) sums[column] += left[row][k] * right[k][column];
      for (int column = 0; column < 8; ++column)
        at(row % 8 * 4 + column / 2)->sums[row / 8 * 2 + column % 2] += sums[column];
    }
  }
};

template <typename T>
void multiply_add(float (&sums)[4], const LeftFragment& left, const RightFragment& right) {
  Product<T> product{left, right, sums};
  emulation::warp_together(0xffffffffu, &Product<T>::multiply, &product,
                           emulation::Site::current());
}

inline void copy_16_bytes(void* shared, const void* global) {
  emulation::start_copy(shared, global, 16);
}
__forceinline__ void wait_for_copies(const emulation::Site& site = emulation::Site::current()) {
  emulation::wait_for_copies(site);
}

#endif

}  // namespace tessera::kernels::cuda
