// SPDX-License-Identifier: Apache-2.0
// Padding behind sequences of different lengths: left out of copies, cleared in results; a warp for
// each row of an array.
#include "tessera/base/shape.hpp"

#include "device/cuda/launch.hpp"
#include "kernels/cuda/attention_padding.hpp"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 128, kRows = kThreads / 32;
constexpr std::int64_t kVector = 8;  // elements of 16 bits

__global__ void __launch_bounds__(kThreads) attention_padding_kernel(const AttentionPadding args) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kRows + threadIdx.x / 32;
  if (row >= args.batch * args.positions) return;
  const std::int64_t batch = row / args.positions, position = row % args.positions;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto most = static_cast<std::int32_t>(args.positions);
  const std::int32_t length = min(max(args.lengths[batch], 0), most);
  const bool padding = position >= length, first_array = blockIdx.y == 0;
  if (first_array && position == 0 && lane == 0 && args.in_range != nullptr)
    args.in_range[batch] = length;
  if (first_array && padding && args.lse != nullptr)
    for (std::int64_t h = lane; h < args.heads; h += 32)
      args.lse[(batch * args.heads + h) * args.positions + position] = 0;

  const PaddedArray& array = args.arrays[blockIdx.y];
  if (array.source == nullptr && !padding) return;
  const auto* source =
      reinterpret_cast<const uint4*>(static_cast<const std::uint16_t*>(array.source) +
                                     batch * array.source_batch + position * array.source_row);
  auto* target = reinterpret_cast<uint4*>(static_cast<std::uint16_t*>(array.target) +
                                          batch * array.target_batch + position * array.target_row);
  for (std::int64_t i = lane; i < array.width / kVector; i += 32)
    target[i] = padding ? uint4{0, 0, 0, 0} : source[i];
}

}  // namespace

void attention_padding(const Stream& stream, const AttentionPadding& args) {
  const std::int64_t blocks = ceil_divide(args.batch * args.positions, std::int64_t{kRows});
  tessera::cuda::launch<attention_padding_kernel>(
      stream, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(args.count)),
      dim3(kThreads), 0, args);
}

}  // namespace tessera::kernels::cuda
