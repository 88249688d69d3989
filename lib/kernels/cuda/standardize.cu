// SPDX-License-Identifier: Apache-2.0
// Scaling of columns on a GPU.
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/pack.cuh"

namespace tessera::kernels::cuda {
namespace {

struct Scaling {
  static constexpr int kWidth = kPackWidth<float>;
  Standardize args;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    auto pack = load<N>(args.x + i);
    std::int64_t column = i % args.columns;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const auto x = static_cast<double>(pack[k]);
      const double mean = args.mean[column], deviation = args.deviation[column];
      pack.values[k] =
          static_cast<float>(args.inverse ? x * deviation + mean : (x - mean) / deviation);
      if (++column == args.columns) column = 0;
    }
    store(args.y + i, pack);
  }
};

}  // namespace

void standardize(const Stream& stream, const Standardize& args) {
  const bool wide = all_aligned<Scaling::kWidth>(args.x, args.y);
  launch_elementwise(stream, Scaling{args}, args.rows * args.columns, wide);
}

}  // namespace tessera::kernels::cuda
