// SPDX-License-Identifier: Apache-2.0
// Table look-up on the CPU, and its gradient without races: rows are bucketed by id first, then
// each table row is summed by one thread.
#include "tessera/kernels/embedding.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/embedding.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/vector-inl.hpp"
// clang-format on

#ifndef TESSERA_KERNELS_CPU_EMBEDDING_BUCKETS
#define TESSERA_KERNELS_CPU_EMBEDDING_BUCKETS
namespace tessera::kernels {

/// Rows of one table row: rows[starts[i]] … rows[starts[i + 1] - 1], ascending.
struct Buckets {
  std::vector<std::int64_t> starts;
  std::vector<std::int64_t> rows;

  explicit Buckets(const EmbeddingBackward& args)
      : starts(static_cast<std::size_t>(args.table_rows) + 1),
        rows(static_cast<std::size_t>(args.rows)) {
    for_each_held(args, [&](std::size_t held, std::int64_t) { ++starts[held + 1]; });
    std::partial_sum(starts.begin(), starts.end(), starts.begin());
    auto next = starts;
    for_each_held(args, [&](std::size_t held, std::int64_t r) {
      rows[static_cast<std::size_t>(next[held]++)] = r;
    });
  }

 private:
  template <typename Body>
  static void for_each_held(const EmbeddingBackward& args, Body&& body) {
    for (std::int64_t r = 0; r < args.rows; ++r) {
      const std::int64_t held = args.ids[r] - args.slice.first;
      if (held >= 0 && held < args.table_rows) body(static_cast<std::size_t>(held), r);
    }
  }
};

}  // namespace tessera::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

using kernels::Buckets;
using kernels::EmbeddingBackward;
using kernels::EmbeddingForward;

template <typename T>
void add_row(const T* source, T* target, std::int64_t columns) {
  const FloatTag tag;
  for_each_vector(0, columns, [=](std::int64_t i, auto extent) {
    const auto sum = hn::Add(load(tag, target + i, extent), load(tag, source + i, extent));
    store(tag, sum, target + i, extent);
  });
}

void embedding_forward_cpu(const EmbeddingForward& args) {
  kernels::dispatch_float(args.dtype, "embedding", [&]<typename T>(T) {
    const auto* table = static_cast<const T*>(args.table);
    auto* y = static_cast<T*>(args.y);
    const std::int64_t columns = args.columns;
    kernels::parallel_rows(args.rows, columns, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) {
        const std::int64_t held = args.ids[row] - args.slice.first;
        T* target = y + row * columns;
        if (held < 0 || held >= args.table_rows) {
          if (!args.accumulate) std::fill_n(target, columns, T{});
        } else if (args.accumulate) {
          add_row(table + held * columns, target, columns);
        } else {
          std::memcpy(target, table + held * columns,
                      static_cast<std::size_t>(columns) * sizeof(T));
        }
      }
    });
  });
}

/// Columns summed at a time: their sums stay in registers while the rows go by.
inline constexpr std::int64_t kVectors = 4;

/// sum over `rows` of dy[row, begin …) for kVectors vectors, or one partial one.
template <typename T, typename G>
void sum_bucket(const EmbeddingBackward& args, const std::int64_t* rows, std::int64_t count,
                G* target) {
  const FloatTag tag;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(tag));
  const auto* dy = static_cast<const T*>(args.dy);
  const std::int64_t columns = args.columns;
  const bool add = args.accumulate;
  const auto finish = [=](auto sum, std::int64_t i, auto extent) {
    if (add) sum = hn::Add(load(tag, target + i, extent), sum);
    store(tag, sum, target + i, extent);
  };
  std::int64_t i = 0;
  for (; i + kVectors * lanes <= columns; i += kVectors * lanes) {
    auto s0 = hn::Zero(tag), s1 = s0, s2 = s0, s3 = s0;
    for (std::int64_t r = 0; r < count; ++r) {
      const T* p = dy + rows[r] * columns + i;
      s0 = hn::Add(s0, load_float(tag, p));
      s1 = hn::Add(s1, load_float(tag, p + lanes));
      s2 = hn::Add(s2, load_float(tag, p + 2 * lanes));
      s3 = hn::Add(s3, load_float(tag, p + 3 * lanes));
    }
    finish(s0, i, Whole());
    finish(s1, i + lanes, Whole());
    finish(s2, i + 2 * lanes, Whole());
    finish(s3, i + 3 * lanes, Whole());
  }
  for_each_vector(i, columns, [&](std::int64_t at, auto extent) {
    auto sum = hn::Zero(tag);
    for (std::int64_t r = 0; r < count; ++r)
      sum = hn::Add(sum, load(tag, dy + rows[r] * columns + at, extent));
    finish(sum, at, extent);
  });
}

void embedding_backward_cpu(const EmbeddingBackward& args) {
  const Buckets buckets(args);
  const std::int64_t* starts = buckets.starts.data();
  const std::int64_t* rows = buckets.rows.data();
  const bool parallel = args.rows * args.columns > kernels::kChunk;
  kernels::dispatch_float(args.dtype, "embedding", [&]<typename T>(T) {
    kernels::dispatch_float(args.gradient_type, "embedding", [&]<typename G>(G) {
      auto* dtable = static_cast<G*>(args.dtable);
      const auto bytes = static_cast<std::size_t>(args.columns) * sizeof(G);
#pragma omp parallel for schedule(dynamic, 8) if (parallel)
      for (std::int64_t id = 0; id < args.table_rows; ++id) {
        const std::int64_t count = starts[id + 1] - starts[id];
        G* target = dtable + id * args.columns;
        if (count > 0)
          sum_bucket<T>(args, rows + starts[id], count, target);
        else if (!args.accumulate)
          std::memset(static_cast<void*>(target), 0, bytes);
      }
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(embedding_forward_cpu);
HWY_EXPORT(embedding_backward_cpu);

template <typename Args>
void check_ids(const Args& args) {
  const std::int64_t known = args.slice.vocabulary > 0 ? args.slice.vocabulary : args.table_rows;
  for (std::int64_t r = 0; r < args.rows; ++r)
    TESSERA_CHECK(args.ids[r] >= 0 && args.ids[r] < known, Code::invalid_argument,
                  fmt::format("embedding: id {} at index {} is outside the table's {} rows; is the "
                              "tokenizer the one that the model was made with?",
                              args.ids[r], r, known));
}

}  // namespace

namespace kernels {

void embedding_forward(const Stream& stream, const EmbeddingForward& args) {
  if (!stream.device().is_cpu()) return cuda::embedding_forward(stream, args);
  check_ids(args);
  HWY_DYNAMIC_DISPATCH(embedding_forward_cpu)(args);
}

void embedding_backward(const Stream& stream, const EmbeddingBackward& args) {
  if (!stream.device().is_cpu()) return cuda::embedding_backward(stream, args);
  check_ids(args);
  HWY_DYNAMIC_DISPATCH(embedding_backward_cpu)(args);
}

void position_ids(const Stream& stream, std::int32_t* ids, std::int64_t rows,
                  std::int64_t positions, std::int64_t first) {
  if (!stream.device().is_cpu()) return cuda::position_ids(stream, ids, rows, positions, first);
  for (std::int64_t i = 0; i < rows * positions; ++i)
    ids[i] = static_cast<std::int32_t>(first + i % positions);
}

}  // namespace kernels
}  // namespace tessera
#endif
