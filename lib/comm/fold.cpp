// SPDX-License-Identifier: Apache-2.0
// The fold of several ranks' contributions, vectorised.
#include "comm/fold.hpp"

#include <algorithm>
#include <cstring>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/shape.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "comm/fold.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "base/simd-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera::comm {
namespace HWY_NAMESPACE {
using namespace tessera::HWY_NAMESPACE;  // NOLINT: Highway's way to share helpers

template <typename T>
struct AccumulatorOf {
  using type = T;
};
template <>
struct AccumulatorOf<bf16> {
  using type = float;
};
template <>
struct AccumulatorOf<fp16> {
  using type = float;
};
template <typename T>
using Accumulator = typename AccumulatorOf<T>::type;

template <typename D, typename T>
HWY_INLINE hn::Vec<D> load_wide(D tag, const T* p) {
  if constexpr (std::is_same_v<hn::TFromD<D>, float>)
    return load_float(tag, p);
  else
    return hn::LoadU(tag, p);
}

template <typename D, typename T>
HWY_INLINE void store_narrow(D tag, hn::Vec<D> value, T* p) {
  if constexpr (std::is_same_v<hn::TFromD<D>, float>)
    store_float(tag, value, p);
  else
    hn::StoreU(value, tag, p);
}

struct Sum {
  template <typename V>
  static HWY_INLINE V combine(V a, V b) {
    return hn::Add(a, b);
  }
};

// A NaN on either side wins: `b` is taken when it is one, and `a` stays when it is one.
struct Min {
  template <typename V>
  static HWY_INLINE V combine(V a, V b) {
    if constexpr (hwy::IsFloat<hn::TFromV<V>>())
      return hn::IfThenElse(hn::Or(hn::Lt(b, a), hn::IsNaN(b)), b, a);
    else
      return hn::Min(a, b);
  }
};
struct Max {
  template <typename V>
  static HWY_INLINE V combine(V a, V b) {
    if constexpr (hwy::IsFloat<hn::TFromV<V>>())
      return hn::IfThenElse(hn::Or(hn::Gt(b, a), hn::IsNaN(b)), b, a);
    else
      return hn::Max(a, b);
  }
};

/// The pieces of a request with their types restored.
template <typename Source, typename Target>
struct Typed {
  const Source* const* sources;
  const int* node_ends;
  int nodes;
  Target* const* targets;
  int n_targets;
  bool scaled;
  Accumulator<Source> scale;
};

/// Integers are never scaled: their mean is refused.
template <class D>
HWY_INLINE hn::Vec<D> scale_if(D tag, hn::Vec<D> value, bool scaled, hn::TFromD<D> scale) {
  if constexpr (hwy::IsFloat<hn::TFromD<D>>())
    return scaled ? hn::Mul(value, hn::Set(tag, scale)) : value;
  else
    return value;
}

template <class Op, class D, typename Source, typename Target>
HWY_INLINE hn::Vec<D> fold_vector(D tag, const Typed<Source, Target>& typed, std::int64_t at) {
  int s = 0;
  auto total = hn::Zero(tag);
  for (int node = 0; node < typed.nodes; ++node) {
    auto partial = load_wide(tag, typed.sources[s] + at);
    for (++s; s < typed.node_ends[node]; ++s)
      partial = Op::combine(partial, load_wide(tag, typed.sources[s] + at));
    total = node == 0 ? partial : Op::combine(total, partial);
  }
  return scale_if(tag, total, typed.scaled, typed.scale);
}

template <class D, typename Source, typename Target>
HWY_INLINE void store_all(D tag, hn::Vec<D> value, const Typed<Source, Target>& typed,
                          std::int64_t at) {
  for (int t = 0; t < typed.n_targets; ++t) store_narrow(tag, value, typed.targets[t] + at);
}

/// The last elements, through padded copies, so that they meet the same instructions.
template <class Op, typename Source, typename Target>
HWY_NOINLINE void fold_tail(const Typed<Source, Target>& typed, std::int64_t at,
                            std::int64_t left) {
  const hn::ScalableTag<Accumulator<Source>> tag;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(tag));
  std::vector<Source> padded(static_cast<std::size_t>(lanes * typed.node_ends[typed.nodes - 1]),
                             Source{});
  std::vector<const Source*> sources;
  for (int s = 0; s < typed.node_ends[typed.nodes - 1]; ++s) {
    Source* copy = padded.data() + s * lanes;
    std::copy_n(typed.sources[s] + at, left, copy);
    sources.push_back(copy);
  }
  std::vector<Target> result(static_cast<std::size_t>(lanes));
  Target* const target = result.data();
  Typed<Source, Target> small = typed;
  small.sources = sources.data();
  small.targets = &target;
  small.n_targets = 1;
  store_all(tag, fold_vector<Op>(tag, small, 0), small, 0);
  for (int t = 0; t < typed.n_targets; ++t) std::copy_n(target, left, typed.targets[t] + at);
}

/// Two ranks on one node, the commonest case on small machines: no loops inside.
template <class Op, typename Source, typename Target>
std::int64_t fold_pairs(const Typed<Source, Target>& typed, std::int64_t begin, std::int64_t end) {
  const hn::ScalableTag<Accumulator<Source>> tag;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(tag));
  const Source* a = typed.sources[0];
  const Source* b = typed.sources[1];
  Target* first = typed.targets[0];
  Target* second = typed.targets[typed.n_targets - 1];
  const bool two = typed.n_targets == 2;
  std::int64_t i = begin;
  for (; i + lanes <= end; i += lanes) {
    const auto value = scale_if(tag, Op::combine(load_wide(tag, a + i), load_wide(tag, b + i)),
                                typed.scaled, typed.scale);
    store_narrow(tag, value, first + i);
    if (two) store_narrow(tag, value, second + i);
  }
  return i;
}

template <class Op, typename Source, typename Target>
std::int64_t fold_many(const Typed<Source, Target>& typed, std::int64_t begin, std::int64_t end) {
  const hn::ScalableTag<Accumulator<Source>> tag;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(tag));
  std::int64_t i = begin;
  for (; i + lanes <= end; i += lanes) store_all(tag, fold_vector<Op>(tag, typed, i), typed, i);
  return i;
}

template <class Op, typename Source, typename Target>
void fold_range(const Fold& request, std::int64_t begin, std::int64_t end) {
  using Wide = Accumulator<Source>;
  const bool scaled = request.reduction == Reduction::mean && request.ranks > 0;
  const Typed<Source, Target> typed{reinterpret_cast<const Source* const*>(request.sources.data()),
                                    request.node_ends.data(),
                                    static_cast<int>(request.node_ends.size()),
                                    reinterpret_cast<Target* const*>(request.targets.data()),
                                    static_cast<int>(request.targets.size()),
                                    scaled,
                                    scaled ? Wide(1) / static_cast<Wide>(request.ranks) : Wide(1)};
  const bool pair = typed.nodes == 1 && request.sources.size() == 2 && request.targets.size() <= 2;
  const std::int64_t done =
      pair ? fold_pairs<Op>(typed, begin, end) : fold_many<Op>(typed, begin, end);
  if (done < end) fold_tail<Op>(typed, done, end - done);
}

template <typename Source, typename Target>
void fold_typed(const Fold& request, std::int64_t begin, std::int64_t end) {
  switch (request.reduction) {
    case Reduction::min:
      return fold_range<Min, Source, Target>(request, begin, end);
    case Reduction::max:
      return fold_range<Max, Source, Target>(request, begin, end);
    default:
      return fold_range<Sum, Source, Target>(request, begin, end);
  }
}

template <typename Source>
void fold_from(const Fold& request, std::int64_t begin, std::int64_t end) {
  using Wide = Accumulator<Source>;
  if (request.target_type == request.source_type)
    return fold_typed<Source, Source>(request, begin, end);
  if constexpr (!std::is_same_v<Source, Wide>) {
    return fold_typed<Source, Wide>(request, begin, end);
  } else if constexpr (std::is_same_v<Source, float>) {
    if (request.target_type == DType::bf16) return fold_typed<float, bf16>(request, begin, end);
    if (request.target_type == DType::fp16) return fold_typed<float, fp16>(request, begin, end);
  }
}

void fold_any(const Fold& request, std::int64_t begin, std::int64_t end) {
  switch (request.source_type) {
    case DType::fp32:
      return fold_from<float>(request, begin, end);
    case DType::bf16:
      return fold_from<bf16>(request, begin, end);
    case DType::fp16:
      return fold_from<fp16>(request, begin, end);
    case DType::fp64:
      return fold_from<double>(request, begin, end);
    case DType::int32:
      return fold_from<int32_t>(request, begin, end);
    case DType::int64:
      return fold_from<int64_t>(request, begin, end);
    default:
      return;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::comm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::comm {
namespace {

HWY_EXPORT(fold_any);

constexpr std::int64_t kThreadedBytes = 512 << 10;
/// Pieces of threads begin at multiples of this many elements.
constexpr std::int64_t kGrain = 1024;

/// Runs body(begin, end) over [0, count), on several threads when there is enough to do.
template <typename Body>
void in_pieces(std::int64_t count, std::int64_t bytes, const Body& body) {
  const int workers = bytes >= kThreadedBytes ? threads() : 1;
  if (workers <= 1) return body(std::int64_t{0}, count);
  const std::int64_t piece = round_up(ceil_divide(count, workers), kGrain);
#pragma omp parallel for num_threads(workers) schedule(static)
  for (int worker = 0; worker < workers; ++worker) {
    const std::int64_t begin = std::min(count, worker * piece);
    const std::int64_t end = std::min(count, begin + piece);
    if (begin < end) body(begin, end);
  }
}

}  // namespace

FoldOrder::FoldOrder(const NodeMap& nodes) {
  for (int node = 0; node < nodes.nodes(); ++node) {
    for (const int rank : nodes.ranks_of(node)) ranks.push_back(rank);
    node_ends.push_back(static_cast<int>(ranks.size()));
  }
}

DType accumulator_of(DType dtype) {
  return dtype == DType::bf16 || dtype == DType::fp16 ? DType::fp32 : dtype;
}

void fold(const Fold& request) {
  if (request.count <= 0) return;
  const auto width = static_cast<std::int64_t>(size_of(request.source_type));
  const std::int64_t bytes =
      request.count * width * static_cast<std::int64_t>(request.sources.size());
  in_pieces(request.count, bytes, [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(fold_any)(request, begin, end);
  });
}

void copy_bytes(void* target, const void* source, std::int64_t bytes) {
  if (bytes <= 0 || target == source) return;
  in_pieces(bytes, bytes, [&](std::int64_t begin, std::int64_t end) {
    std::memcpy(static_cast<std::byte*>(target) + begin,
                static_cast<const std::byte*>(source) + begin,
                static_cast<std::size_t>(end - begin));
  });
}

}  // namespace tessera::comm
#endif
