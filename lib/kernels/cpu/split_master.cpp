// SPDX-License-Identifier: Apache-2.0
// Splitting and joining fp32 master weights on the CPU.
#include "tessera/kernels/split_master.hpp"

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/split_master.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/split_master-inl.hpp"
#include "kernels/cpu/vector-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

void split_cpu(const float* master, bf16* high, std::uint16_t* low, std::int64_t count) {
  kernels::parallel_chunks(count, [=](std::int64_t begin, std::int64_t end) {
    const FloatTag tag;
    for_each_vector(begin, end, [=](std::int64_t i, auto extent) {
      store_split(tag, load(tag, master + i, extent), high + i, low + i, extent);
    });
  });
}

void join_cpu(const bf16* high, const std::uint16_t* low, float* master, std::int64_t count) {
  kernels::parallel_chunks(count, [=](std::int64_t begin, std::int64_t end) {
    const FloatTag tag;
    for_each_vector(begin, end, [=](std::int64_t i, auto extent) {
      store(tag, load_split(tag, high + i, low + i, extent), master + i, extent);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(split_cpu);
HWY_EXPORT(join_cpu);

}  // namespace

namespace kernels {

void split(const Stream& stream, const float* master, bf16* high, std::uint16_t* low,
           std::int64_t count) {
  if (!stream.device().is_cpu()) return cuda::split(stream, master, high, low, count);
  HWY_DYNAMIC_DISPATCH(split_cpu)(master, high, low, count);
}

void join(const Stream& stream, const bf16* high, const std::uint16_t* low, float* master,
          std::int64_t count) {
  if (!stream.device().is_cpu()) return cuda::join(stream, high, low, master, count);
  HWY_DYNAMIC_DISPATCH(join_cpu)(high, low, master, count);
}

}  // namespace kernels
}  // namespace tessera
#endif
