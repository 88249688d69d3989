// SPDX-License-Identifier: Apache-2.0
// Plain references of the collectives, element by element, to compare bit for bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/base/random.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/comm/node_map.hpp"

namespace tessera::test {

template <typename T>
inline constexpr bool is_half = std::is_same_v<T, bf16> || std::is_same_v<T, fp16>;
template <typename T>
using Wide = std::conditional_t<is_half<T>, float, T>;

template <typename T>
Wide<T> widen(T value) {
  if constexpr (is_half<T>)
    return value.to_float();
  else
    return value;
}
template <typename T>
T narrow(Wide<T> value) {
  if constexpr (is_half<T>)
    return T::from_float(value);
  else
    return value;
}

/// What rank r contributes: magnitudes over many powers of two, so that the order of a sum shows.
template <typename T>
std::vector<T> contribution(int rank, std::int64_t count, std::uint64_t seed) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint64_t bits = mix(seed * 1000 + static_cast<std::uint64_t>(rank), i);
    if constexpr (std::is_integral_v<T>) {
      values[i] = static_cast<T>(bits);
    } else {
      const double mantissa = static_cast<double>(bits >> 40) / (1 << 23) - 1.0;
      const auto value =
          static_cast<Wide<T>>(std::ldexp(mantissa, static_cast<int>(bits % 12) - 6));
      values[i] = narrow<T>(value);
    }
  }
  return values;
}

template <typename W>
W combine(W a, W b, Reduction reduction) {
  if constexpr (std::is_integral_v<W>) {
    using Unsigned = std::make_unsigned_t<W>;
    if (reduction == Reduction::min) return b < a ? b : a;
    if (reduction == Reduction::max) return b > a ? b : a;
    return static_cast<W>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b));
  } else {
    if (reduction == Reduction::min)
      return std::isnan(a) || std::isnan(b) ? a + b : (b < a ? b : a);
    if (reduction == Reduction::max)
      return std::isnan(a) || std::isnan(b) ? a + b : (b > a ? b : a);
    return a + b;
  }
}

/// The fold of doc/architecture.md section 4 for one element.
template <typename T>
T fold_element(const std::vector<std::vector<T>>& all, const NodeMap& nodes, std::size_t i,
               Reduction reduction) {
  Wide<T> total{};
  for (int node = 0; node < nodes.nodes(); ++node) {
    const std::vector<int> ranks = nodes.ranks_of(node);
    Wide<T> partial = widen(all[static_cast<std::size_t>(ranks[0])][i]);
    for (std::size_t k = 1; k < ranks.size(); ++k)
      partial = combine(partial, widen(all[static_cast<std::size_t>(ranks[k])][i]), reduction);
    total = node == 0 ? partial : combine(total, partial, reduction);
  }
  if constexpr (!std::is_integral_v<T>)
    if (reduction == Reduction::mean) total *= Wide<T>(1) / static_cast<Wide<T>>(all.size());
  return narrow<T>(total);
}

template <typename T>
std::vector<std::vector<T>> contributions(int ranks, std::int64_t count, std::uint64_t seed) {
  std::vector<std::vector<T>> all;
  for (int r = 0; r < ranks; ++r) all.push_back(contribution<T>(r, count, seed));
  return all;
}

template <typename T>
std::vector<T> folded(const std::vector<std::vector<T>>& all, const NodeMap& nodes,
                      Reduction reduction) {
  std::vector<T> result(all[0].size());
  for (std::size_t i = 0; i < result.size(); ++i)
    result[i] = fold_element(all, nodes, i, reduction);
  return result;
}

/// Index of the first element whose bits differ, or -1.
template <typename T>
std::int64_t first_difference(const T* actual, const std::vector<T>& expected) {
  for (std::size_t i = 0; i < expected.size(); ++i)
    if (std::memcmp(actual + i, &expected[i], sizeof(T)) != 0) return static_cast<std::int64_t>(i);
  return -1;
}

}  // namespace tessera::test
