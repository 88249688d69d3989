// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding on a GPU. A block turns one row: its angles are made once for all
// heads.
#include <algorithm>

#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/shared_memory.cuh"

namespace tessera::kernels::cuda {
namespace {

struct Turn {
  float cosine, sine;
};

/// Cosine and sine of an angle up to 2^31, by Taylor series after reduction to [-pi/4, pi/4]: in
/// fp64, because at position 10^5 an fp32 angle has two correct digits after the point.
__device__ Turn turn_by(double angle) {
  constexpr double kTwoOverPi = 0.63661977236758134308;
  constexpr double kHalfPiHigh = 1.57079632679489655800, kHalfPiLow = 6.12323399573676603587e-17;
  const double quarter = rint(angle * kTwoOverPi);
  const double r = fma(-quarter, kHalfPiLow, fma(-quarter, kHalfPiHigh, angle));
  const double square = r * r;
  double sine = -1.0 / 39916800;
  sine = fma(sine, square, 1.0 / 362880);
  sine = fma(sine, square, -1.0 / 5040);
  sine = fma(sine, square, 1.0 / 120);
  sine = fma(sine, square, -1.0 / 6);
  sine = fma(sine * square, r, r);
  double cosine = -1.0 / 3628800;
  cosine = fma(cosine, square, 1.0 / 40320);
  cosine = fma(cosine, square, -1.0 / 720);
  cosine = fma(cosine, square, 1.0 / 24);
  cosine = fma(cosine, square, -0.5);
  cosine = fma(cosine, square, 1.0);
  const auto quadrant = static_cast<long long>(quarter) & 3;
  const double c = quadrant % 2 == 0 ? cosine : sine, s = quadrant % 2 == 0 ? sine : cosine;
  return {static_cast<float>(quadrant == 1 || quadrant == 2 ? -c : c),
          static_cast<float>(quadrant >= 2 ? -s : s)};
}

template <typename T, int N>
__global__ __launch_bounds__(kThreads) void rotary_kernel(Rotary args) {
  DYNAMIC_SHARED(Turn, turns);
  const int half = static_cast<int>(args.rotary_dim / 2), threads = static_cast<int>(blockDim.x);
  const double position = args.positions[blockIdx.x];
  for (int i = static_cast<int>(threadIdx.x); i < half; i += threads) {
    Turn turn = turn_by(position * static_cast<double>(args.inverse_frequency[i]));
    if (args.inverse) turn.sine = -turn.sine;
    turns[i] = turn;
  }
  __syncthreads();
  T* row = static_cast<T*>(args.x) + blockIdx.x * args.row_stride;
  const int packs = half / N, work = static_cast<int>(args.heads) * packs;
  for (int at = static_cast<int>(threadIdx.x); at < work; at += threads) {
    const int i = at % packs * N;
    T* low = row + at / packs * args.head_dim + i;
    const auto a = load<N>(low), b = load<N>(low + half);
    Pack<T, N> first, second;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const Turn turn = turns[i + k];
      first.values[k] = round_to<T>(fmaf(-b[k], turn.sine, a[k] * turn.cosine));
      second.values[k] = round_to<T>(fmaf(a[k], turn.sine, b[k] * turn.cosine));
    }
    store(low, first);
    store(low + half, second);
  }
}

}  // namespace

void rotary(const Stream& stream, const Rotary& args) {
  const std::int64_t half = args.rotary_dim / 2;
  if (half == 0 || args.heads == 0) return;
  dispatch_type(args.dtype, "rotary", [&]<typename T>(T) {
    constexpr int kWide = kPackWidth<T>;
    const bool wide = half % kWide == 0 && args.head_dim % kWide == 0 &&
                      args.row_stride % kWide == 0 && is_aligned<kWide>(static_cast<T*>(args.x));
    dispatch_width<kWide>(wide, [&]<int N>(Width<N>) {
      const std::int64_t work = std::max(half, args.heads * (half / N));
      const std::int64_t threads = std::min<std::int64_t>(kThreads, round_up(work, 32));
      tessera::cuda::launch<rotary_kernel<T, N>>(
          stream, dim3(blocks_for(args.rows, 1)), dim3(static_cast<unsigned>(threads)),
          static_cast<std::size_t>(half) * sizeof(Turn), args);
    });
  });
}

}  // namespace tessera::kernels::cuda
