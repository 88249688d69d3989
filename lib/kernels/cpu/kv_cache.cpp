// SPDX-License-Identifier: Apache-2.0
// Filling a cache of keys and values on the CPU.
#include "tessera/kernels/kv_cache.hpp"

#include <cstddef>
#include <cstring>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"

namespace tessera::kernels {
namespace {

void kv_append_cpu(const KvAppend& args) {
  const std::size_t element = size_of(args.dtype);
  const auto bytes = static_cast<std::size_t>(args.width) * element;
  const auto copy = [&](void* cached, std::int64_t to, const void* fresh, std::int64_t from) {
    std::memcpy(static_cast<std::byte*>(cached) + static_cast<std::size_t>(to) * element,
                static_cast<const std::byte*>(fresh) + static_cast<std::size_t>(from) * element,
                bytes);
  };
  parallel_rows(args.rows * args.count, 2 * args.width, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t position = first; position < last; ++position) {
      const std::int64_t row = position / args.count, t = position % args.count;
      const std::int64_t to = (row * args.capacity + args.length + t) * args.width;
      copy(args.cached_keys, to, args.keys, position * args.stride);
      copy(args.cached_values, to, args.values, position * args.stride);
    }
  });
}

}  // namespace

void kv_append(const Stream& stream, const KvAppend& args) {
  TESSERA_CHECK(args.length >= 0 && args.length + args.count <= args.capacity,
                Code::invalid_argument,
                fmt::format("kv_append: {} positions after {} do not fit a cache of {}", args.count,
                            args.length, args.capacity));
  if (args.rows == 0 || args.count == 0 || args.width == 0) return;
  if (!stream.device().is_cpu()) return cuda::kv_append(stream, args);
  kv_append_cpu(args);
}

}  // namespace tessera::kernels
