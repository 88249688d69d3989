// SPDX-License-Identifier: Apache-2.0
// Filling a cache of keys and values on a GPU: one launch, whatever the number of positions.
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/pack.cuh"

namespace tessera::kernels::cuda {
namespace {

/// Elements are counted as if the new positions lay one after the other.
template <typename T>
struct KvCopy {
  static constexpr int kWidth = kPackWidth<T>;
  const T* keys;
  const T* values;
  T* cached_keys;
  T* cached_values;
  std::int64_t count, width, stride, capacity, length;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    const std::int64_t position = i / width, column = i - position * width;
    const std::int64_t row = position / count, t = position - row * count;
    const std::int64_t from = position * stride + column;
    const std::int64_t to = (row * capacity + length + t) * width + column;
    const auto key = load<N>(keys + from), value = load<N>(values + from);
    store(cached_keys + to, key);
    store(cached_values + to, value);
  }
};

}  // namespace

void kv_append(const Stream& stream, const KvAppend& args) {
  dispatch_type(args.dtype, "kv_append", [&]<typename T>(T) {
    const KvCopy<T> op{.keys = static_cast<const T*>(args.keys),
                       .values = static_cast<const T*>(args.values),
                       .cached_keys = static_cast<T*>(args.cached_keys),
                       .cached_values = static_cast<T*>(args.cached_values),
                       .count = args.count,
                       .width = args.width,
                       .stride = args.stride,
                       .capacity = args.capacity,
                       .length = args.length};
    const bool wide = args.width % op.kWidth == 0 && args.stride % op.kWidth == 0 &&
                      all_aligned<op.kWidth>(op.keys, op.values, op.cached_keys, op.cached_values);
    launch_elementwise(stream, op, args.rows * args.count * args.width, wide);
  });
}

}  // namespace tessera::kernels::cuda
