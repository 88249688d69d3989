// SPDX-License-Identifier: Apache-2.0
// Dropout with counter-based random numbers on a GPU: the masks of the CPU.
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/philox.cuh"

namespace tessera::kernels::cuda {
namespace {

template <typename T, bool kResidual>
struct DropoutOp {
  static constexpr int kWidth = kPackWidth<T>;
  const T* x;
  const T* residual;
  T* y;
  std::int64_t offset;
  float probability, scale;
  std::uint64_t seed, stream;
  const PassVariables* variables;
  std::int64_t row_elements;

  /// Wide packs begin at a multiple of 4 of the global index (the launch sees to that), so each
  /// block of random words is made once.
  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    auto index = static_cast<std::uint64_t>(offset + i);
    std::uint64_t numbers = stream;
    if (variables != nullptr) {
      index += static_cast<std::uint64_t>(variables->first_row * row_elements);
      numbers = mix(variables->step, stream);
    }
    const auto in = load<N>(x + i);
    Pack<T, N> before, out;
    if constexpr (kResidual) before = load<N>(residual + i);
#pragma unroll
    for (int k = 0; k < N; k += 4) {
      const PhiloxWords words = philox_block(seed, numbers, (index + k) / 4);
#pragma unroll
      for (int j = 0; j < (N < 4 ? N : 4); ++j) {
        const std::uint32_t word = N == 1 ? pick(words, index % 4) : words.values[j];
        const float kept = uniform(word) >= probability ? in[k + j] * scale : 0.0f;
        if constexpr (kResidual)
          out.values[k + j] = round_to<T>(before[k + j] + kept);
        else
          out.values[k + j] = round_to<T>(kept);
      }
    }
    store(y + i, out);
  }

 private:
  static __device__ std::uint32_t pick(const PhiloxWords& words, std::uint64_t at) {
    const std::uint32_t low = at == 0 ? words.values[0] : words.values[1];
    const std::uint32_t high = at == 2 ? words.values[2] : words.values[3];
    return at < 2 ? low : high;
  }
};

template <typename T, bool kResidual>
void launch_dropout(const Stream& stream, const Dropout& args) {
  const DropoutOp<T, kResidual> op{static_cast<const T*>(args.x),
                                   static_cast<const T*>(args.residual),
                                   static_cast<T*>(args.y),
                                   args.offset,
                                   args.probability,
                                   1.0f / (1.0f - args.probability),
                                   args.seed,
                                   args.stream,
                                   args.variables,
                                   args.row_elements};
  const bool wide = args.offset % 4 == 0 && args.row_elements % 4 == 0 &&
                    all_aligned<op.kWidth>(op.x, op.residual, op.y);
  launch_elementwise(stream, op, args.count, wide);
}

}  // namespace

void dropout(const Stream& stream, const Dropout& args) {
  dispatch_type(args.dtype, "dropout", [&]<typename T>(T) {
    if (args.residual != nullptr)
      launch_dropout<T, true>(stream, args);
    else
      launch_dropout<T, false>(stream, args);
  });
}

}  // namespace tessera::kernels::cuda
