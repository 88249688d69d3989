// SPDX-License-Identifier: Apache-2.0
// fp32 master weights split into two halves on a GPU.
#include "kernels/cuda/master.cuh"
#include "kernels/cuda/operations.hpp"

namespace tessera::kernels::cuda {
namespace {

/// Moves numbers from one kind of master to another.
template <typename From, typename To>
struct Move {
  static constexpr int kWidth = 4;
  From from;
  To to;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    to.set(i, from.template get<N>(i));
  }
};

template <typename From, typename To>
void launch_move(const Stream& stream, From from, To to, std::int64_t count) {
  const Move<From, To> op{from, to};
  launch_elementwise(stream, op, count,
                     from.template is_wide<op.kWidth>() && to.template is_wide<op.kWidth>());
}

SplitMaster halves_of(const bf16* high, const std::uint16_t* low) {
  return {reinterpret_cast<std::uint16_t*>(const_cast<bf16*>(high)),
          const_cast<std::uint16_t*>(low)};
}

}  // namespace

void split(const Stream& stream, const float* master, bf16* high, std::uint16_t* low,
           std::int64_t count) {
  launch_move(stream, PlainMaster{const_cast<float*>(master)}, halves_of(high, low), count);
}

void join(const Stream& stream, const bf16* high, const std::uint16_t* low, float* master,
          std::int64_t count) {
  launch_move(stream, halves_of(high, low), PlainMaster{master}, count);
}

}  // namespace tessera::kernels::cuda
