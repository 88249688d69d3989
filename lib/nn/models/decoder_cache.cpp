// SPDX-License-Identifier: Apache-2.0
// A decoder's attention over cached keys and values.
#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/kernels/attention.hpp"
#include "tessera/kernels/kv_cache.hpp"

#include "nn/models/decoder_pass.hpp"

namespace tessera::nn {
namespace {

std::byte* at(const Tensor& tensor, std::int64_t element) {
  return tensor.as<std::byte>() + static_cast<std::size_t>(element) * size_of(tensor.dtype());
}

/// Copies keys and values of the new positions, in the last columns, behind the cached ones.
void append(const Stream& stream, const Tensor& qkv, const KvCache::Layer& layer,
            std::int64_t length) {
  const std::int64_t columns = qkv.size(2), width = layer.keys.size(2);
  kernels::kv_append(stream, {.keys = at(qkv, columns - 2 * width),
                              .values = at(qkv, columns - width),
                              .cached_keys = layer.keys.data(),
                              .cached_values = layer.values.data(),
                              .rows = qkv.size(0),
                              .count = qkv.size(1),
                              .width = width,
                              .stride = columns,
                              .capacity = layer.keys.size(1),
                              .length = length,
                              .dtype = qkv.dtype()});
}

}  // namespace

KvCache Decoder::make_cache(std::int64_t rows, std::int64_t capacity, Device device) const {
  require_whole("cached keys and values");
  TESSERA_CHECK(rows > 0 && capacity > 0 && capacity <= sizes_.positions, Code::invalid_argument,
                fmt::format("a cache of {} rows and {} positions; the model has {} positions", rows,
                            capacity, sizes_.positions));
  KvCache cache{.layers = {}, .rows = rows, .capacity = capacity, .length = 0};
  const Shape shape{rows, capacity, sizes_.kv_heads * sizes_.head_dim};
  for (int layer = 1; layer < final_layer(); ++layer) {
    KvCache::Layer& own = cache.layers.emplace_back();
    if (has_layer(layer))
      own = {Tensor(shape, options_.dtype, device), Tensor(shape, options_.dtype, device)};
  }
  return cache;
}

void Decoder::check_cache(const Tensor& ids, const KvCache& cache) const {
  TESSERA_CHECK(
      static_cast<std::int64_t>(cache.layers.size()) == sizes_.layers && cache.rows == ids.size(0),
      Code::invalid_argument,
      fmt::format("a cache of {} layers and {} rows for {} layers and {} rows", cache.layers.size(),
                  cache.rows, sizes_.layers, ids.size(0)));
  TESSERA_CHECK(cache.length + ids.size(1) <= cache.capacity, Code::invalid_argument,
                fmt::format("{} more tokens do not fit the cache: {} of {} positions are filled",
                            ids.size(1), cache.length, cache.capacity));
}

autograd::Value Decoder::attend_cached(autograd::Tape& tape, const Pass& pass, std::int64_t layer,
                                       const Tensor& qkv, float scale) {
  const autograd::ProfileScope profile("attention forward");
  const KvCache& cache = *pass.cache;
  const KvCache::Layer& cached = cache.layers[static_cast<std::size_t>(layer)];
  append(tape.stream(), qkv, cached, cache.length);
  const std::int64_t rows = qkv.size(0), count = qkv.size(1), columns = qkv.size(2);
  const std::int64_t width = sizes_.heads * sizes_.head_dim, kv_width = cached.keys.size(2);
  Tensor y(Shape{rows, count, width}, qkv.dtype(), qkv.device());
  kernels::AttentionForward args{};
  args.q = qkv.data();
  args.k = cached.keys.data();
  args.v = cached.values.data();
  args.y = y.data();
  args.batch = rows;
  args.heads = sizes_.heads;
  args.kv_heads = sizes_.kv_heads;
  args.queries = count;
  args.keys = cache.length + count;
  args.head_dim = sizes_.head_dim;
  args.q_row_stride = columns;
  args.k_row_stride = args.v_row_stride = kv_width;
  args.y_row_stride = width;
  args.q_batch_stride = count * columns;
  args.k_batch_stride = args.v_batch_stride = cache.capacity * kv_width;
  args.y_batch_stride = count * width;
  args.scale = scale;
  args.dtype = qkv.dtype();
  kernels::attention_forward(tape.stream(), args);
  return autograd::Value(std::move(y));
}

Tensor Decoder::last_positions(const Stream& stream, const Tensor& x) const {
  const std::int64_t rows = x.size(0), count = x.size(1), width = x.size(2);
  if (count == 1) return x.view(Shape{rows, width});
  Tensor last(Shape{rows, width}, x.dtype(), x.device());
  const auto bytes = static_cast<std::size_t>(width) * size_of(x.dtype());
  for (std::int64_t row = 0; row < rows; ++row)
    stream.copy(at(last, row * width), at(x, ((row + 1) * count - 1) * width), bytes);
  return last;
}

}  // namespace tessera::nn
