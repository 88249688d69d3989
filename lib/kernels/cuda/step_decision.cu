// SPDX-License-Identifier: Apache-2.0
// Decisions about a step on a GPU, with the CPU's bits. They are small: what matters is that the
// host does not wait for them.
#include <cmath>
#include <limits>

#include "kernels/cuda/group.cuh"
#include "kernels/cuda/operations.hpp"

namespace tessera::kernels::cuda {
namespace {

inline constexpr int kTotalWarps = 16;
inline constexpr int kTotalThreads = kTotalWarps * 32;
inline constexpr unsigned kSearchBlocks = 256;
inline constexpr float kLargest = std::numeric_limits<float>::max();

/// The numbers one after the other, from 0. A warp reads ahead for the one chain of additions that
/// all its lanes follow; the zeros beyond the end change nothing.
__device__ double sum_in_order(const double* values, std::int64_t count, int lane) {
  constexpr int kAhead = 4;
  double sum = 0;
  for (std::int64_t begin = 0; begin < count; begin += kAhead * 32) {
    double ahead[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const std::int64_t at = begin + k * 32 + lane;
      ahead[k] = at < count ? values[at] : 0.0;
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (begin + k * 32 >= count) break;
#pragma unroll
      for (int other = 0; other < 32; ++other) sum += __shfl_sync(kWholeWarp, ahead[k], other);
    }
  }
  return sum;
}

/// One block: a warp for each group in turn, then one for the groups' sums.
__global__ __launch_bounds__(kTotalThreads) void block_total_kernel(BlockTotal args) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  for (std::int64_t group = warp; group < args.groups; group += kTotalWarps) {
    const std::int64_t first = args.first[group];
    const double sum = sum_in_order(args.blocks + first, args.first[group + 1] - first, lane);
    if (lane == 0) args.group_sums[group] = sum;
  }
  __syncthreads();
  if (warp > 0) return;
  const double total = sum_in_order(args.group_sums, args.groups, lane);
  if (lane == 0) *args.total = total;
}

__global__ __launch_bounds__(1) void decide_step_kernel(DecideStep args) {
  double squares = 0;
  for (std::int64_t i = 0; i < args.count; ++i) squares = __dadd_rn(squares, args.squares[i]);
  const double norm = __ddiv_rn(__dsqrt_rn(squares), args.loss_scale);
  StepDecision decision{};
  decision.norm = norm;
  decision.former_applied = args.decision->applied;
  if (isfinite(norm)) {
    decision.clip_coefficient = 1;
    if (args.largest_norm != 0) {
      const double ratio = __ddiv_rn(args.largest_norm, __dadd_rn(norm, 1e-6));
      if (ratio < 1) decision.clip_coefficient = ratio;
    }
    decision.gradient_scale =
        static_cast<float>(__ddiv_rn(decision.clip_coefficient, args.loss_scale));
    decision.applied = 1;
  }
  *args.decision = decision;
}

/// Keeps the smallest index as the largest complement: maxima do not depend on the order.
template <typename T>
__global__ __launch_bounds__(kThreads) void find_non_finite_piece_kernel(FindNonFinitePiece args) {
  if (args.decision->applied != 0) return;
  const std::int64_t thread =
      static_cast<std::int64_t>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  for (std::int64_t p = 0; p < args.count; ++p) {
    const auto* x = static_cast<const T*>(args.pieces[p].data);
    bool finite = true;
    for (std::int64_t i = thread; i < args.pieces[p].count; i += kSearchBlocks * kThreads)
      finite = finite && fabsf(to_float(x[i])) <= kLargest;
    if (!finite) atomicMax(&args.decision->non_finite_from_last, ~static_cast<std::uint32_t>(p));
  }
}

}  // namespace

void block_total(const Stream& stream, const BlockTotal& args) {
  tessera::cuda::launch<block_total_kernel>(stream, dim3(1), dim3(kTotalThreads), 0, args);
}

void decide_step(const Stream& stream, const DecideStep& args) {
  tessera::cuda::launch<decide_step_kernel>(stream, dim3(1), dim3(1), 0, args);
}

void find_non_finite_piece(const Stream& stream, const FindNonFinitePiece& args) {
  dispatch_type(args.dtype, "find_non_finite_piece", [&]<typename T>(T) {
    tessera::cuda::launch<find_non_finite_piece_kernel<T>>(stream, dim3(kSearchBlocks),
                                                           dim3(kThreads), 0, args);
  });
}

}  // namespace tessera::kernels::cuda
