// SPDX-License-Identifier: Apache-2.0
// Dropout on the CPU, with Philox computed for a vector of blocks at a time.
#include "tessera/kernels/dropout.hpp"

#include <fmt/format.h>

#include "tessera/base/random.hpp"

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dropout.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/philox-inl.hpp"
#include "kernels/cpu/vector-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

/// Elements whose random words are made before they are used; they stay in the first-level cache.
inline constexpr std::int64_t kTile = 1024;

template <typename T>
void dropout_range(const kernels::Dropout& args, std::int64_t begin, std::int64_t end) {
  const FloatTag tag;
  const auto* x = static_cast<const T*>(args.x);
  const auto* residual = static_cast<const T*>(args.residual);
  auto* y = static_cast<T*>(args.y);
  const auto scale = hn::Set(tag, 1.0f / (1.0f - args.probability));
  const auto threshold = hn::Set(tag, args.probability), unit = hn::Set(tag, 0x1p-24f);
  const hn::RebindToSigned<FloatTag> integers;
  PhiloxWords<kTile> words(args.seed, args.stream);
  for (std::int64_t tile = begin; tile < end; tile += kTile) {
    const std::int64_t last = std::min(end, tile + kTile);
    // `bits` is one whole vector longer than the tile, so that it can be read beyond its end.
    const std::uint32_t* bits =
        words.fill(static_cast<std::uint64_t>(args.offset + tile), last - tile);
    for_each_vector(tile, last, [=](std::int64_t i, auto extent) {
      const auto word = hn::ShiftRight<8>(hn::LoadU(WordTag(), bits + (i - tile)));
      const auto uniform = hn::Mul(hn::ConvertTo(tag, hn::BitCast(integers, word)), unit);
      const auto kept =
          hn::IfThenElseZero(hn::Ge(uniform, threshold), hn::Mul(load(tag, x + i, extent), scale));
      const auto result =
          residual != nullptr ? hn::Add(load(tag, residual + i, extent), kept) : kept;
      store(tag, result, y + i, extent);
    });
  }
}

void dropout_cpu(const kernels::Dropout& args) {
  kernels::dispatch_float(args.dtype, "dropout", [&]<typename T>(T) {
    kernels::parallel_chunks(args.count, [&](std::int64_t begin, std::int64_t end) {
      dropout_range<T>(args, begin, end);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(dropout_cpu);

kernels::Dropout with_variables(kernels::Dropout args) {
  if (args.variables == nullptr) return args;
  args.stream = mix(args.variables->step, args.stream);
  args.offset += args.variables->first_row * args.row_elements;
  return args;
}

}  // namespace

namespace kernels {

void dropout(const Stream& stream, const Dropout& args) {
  TESSERA_CHECK(args.probability >= 0 && args.probability < 1, Code::invalid_argument,
                fmt::format("dropout: probability {} is not in [0, 1)", args.probability));
  if (!stream.device().is_cpu()) return cuda::dropout(stream, args);
  HWY_DYNAMIC_DISPATCH(dropout_cpu)(with_variables(args));
}

}  // namespace kernels
}  // namespace tessera
#endif
