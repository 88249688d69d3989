// SPDX-License-Identifier: Apache-2.0
// Calls of attention, and a plain fp64 computation of them that keeps the whole matrix of
// probabilities.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "tessera/base/random.hpp"
#include "tessera/kernels/attention.hpp"

#include "support/device_arrays.hpp"

namespace tessera::testing::attention {

using namespace kernels;  // NOLINT(google-build-using-namespace): the operation under test

struct Problem {
  std::int64_t batch, heads, kv_heads, queries, keys, head_dim;
  bool causal = true;
  float dropout = 0;
  std::int64_t row_pad = 0, batch_pad = 0;
  std::vector<std::int32_t> lengths = {};  // one for each batch entry; empty: whole

  /// How many of a batch entry's rows are no padding.
  std::int64_t filled(std::int64_t entry, std::int64_t rows) const {
    return lengths.empty() ? rows : lengths[static_cast<std::size_t>(entry)];
  }
};

inline std::string describe(const Problem& p) {
  return fmt::format(
      "batch {} heads {}/{} queries {} keys {} head_dim {} causal {} dropout {} lengths {}",
      p.batch, p.heads, p.kv_heads, p.queries, p.keys, p.head_dim, p.causal, p.dropout,
      fmt::join(p.lengths, ","));
}

// Strides of a [batch, rows, heads, head_dim] array with unused elements between rows and batches.
struct Layout {
  std::int64_t row, batch, size;
  Layout(const Problem& p, std::int64_t rows, std::int64_t heads)
      : row(heads * p.head_dim + p.row_pad),
        batch(rows * row + p.batch_pad),
        size(p.batch * batch) {}
};

/// Calls body(index) for each element of the rows of batch entry b from `first` on.
template <typename Body>
void for_each_element(const Problem& p, const Layout& layout, std::int64_t heads, std::int64_t b,
                      std::int64_t first, std::int64_t rows, Body&& body) {
  for (std::int64_t r = first; r < rows; ++r)
    for (std::int64_t i = 0; i < heads * p.head_dim; ++i)
      body(static_cast<std::size_t>(b * layout.batch + r * layout.row + i));
}
/// The same for the padding of all batch entries.
template <typename Body>
void for_each_in_padding(const Problem& p, const Layout& layout, std::int64_t heads,
                         std::int64_t rows, Body&& body) {
  for (std::int64_t b = 0; b < p.batch; ++b)
    for_each_element(p, layout, heads, b, p.filled(b, rows), rows, body);
}

// Random numbers, and NaN in the padding.
inline TypedArray operand(const Problem& p, DType dtype, const Layout& layout, std::int64_t heads,
                          std::int64_t rows, std::uint64_t seed) {
  Doubles values = random_doubles(layout.size, seed);
  for_each_in_padding(p, layout, heads, rows,
                      [&](std::size_t i) { values[i] = std::numeric_limits<double>::quiet_NaN(); });
  return {dtype, values};
}

// The arrays of one call, on the host, and where the kernels find them.
struct Arrays {
  Layout q_layout, k_layout;
  TypedArray q, k, v, y, lse, dy, dq, dk, dv, lengths;
  DeviceArrays on_device;
  Arrays(const Problem& p, DType dtype, Device device = {})
      : q_layout(p, p.queries, p.heads),
        k_layout(p, p.keys, p.kv_heads),
        q(operand(p, dtype, q_layout, p.heads, p.queries, 1)),
        k(operand(p, dtype, k_layout, p.kv_heads, p.keys, 2)),
        v(operand(p, dtype, k_layout, p.kv_heads, p.keys, 3)),
        y(filled_array(dtype, q_layout.size, 7)),
        lse(filled_array(DType::fp32, p.batch * p.heads * p.queries, 7)),
        dy(operand(p, dtype, q_layout, p.heads, p.queries, 4)),
        dq(filled_array(dtype, q_layout.size, 7)),
        dk(filled_array(dtype, k_layout.size, 7)),
        dv(filled_array(dtype, k_layout.size, 7)),
        lengths(DType::int32, p.lengths.size()),
        on_device(device) {
    std::ranges::copy(p.lengths, lengths.as<std::int32_t>());
  }

  void* at(TypedArray& array) { return on_device.at(array); }
  void run(const AttentionForward& args) {
    attention_forward(on_device.stream(), args);
    on_device.fetch();
  }
  void run(const AttentionBackward& args) {
    attention_forward(on_device.stream(), args.forward);
    attention_backward(on_device.stream(), args);
    on_device.fetch();
  }
};

inline AttentionForward forward_args(const Problem& p, Arrays& a) {
  AttentionForward args{};
  args.q = a.at(a.q);
  args.k = a.at(a.k);
  args.v = a.at(a.v);
  args.y = a.at(a.y);
  args.lse = static_cast<float*>(a.at(a.lse));
  args.batch = p.batch;
  args.heads = p.heads;
  args.kv_heads = p.kv_heads;
  args.queries = p.queries;
  args.keys = p.keys;
  args.head_dim = p.head_dim;
  args.q_row_stride = args.y_row_stride = a.q_layout.row;
  args.k_row_stride = args.v_row_stride = a.k_layout.row;
  args.q_batch_stride = args.y_batch_stride = a.q_layout.batch;
  args.k_batch_stride = args.v_batch_stride = a.k_layout.batch;
  args.scale = 0.75f / std::sqrt(static_cast<float>(p.head_dim));
  args.causal = p.causal;
  args.dtype = a.q.dtype();
  args.dropout = p.dropout;
  args.dropout_seed = 42;
  args.dropout_stream = 7;
  args.batch_offset = 3;
  if (!p.lengths.empty()) args.lengths = static_cast<const std::int32_t*>(a.at(a.lengths));
  return args;
}

inline AttentionBackward backward_args(const Problem& p, Arrays& a) {
  return {forward_args(p, a), a.at(a.dy), a.at(a.dq), a.at(a.dk), a.at(a.dv)};
}

/// The same call in fp64 on values of `Arrays`.
class Reference {
 public:
  Reference(const Problem& p, const AttentionForward& args, const Arrays& a)
      : p_(p), args_(args), q_layout_(a.q_layout), k_layout_(a.k_layout) {}

  Doubles y, lse, dq, dk, dv;

  void forward(const Doubles& q, const Doubles& k, const Doubles& v) {
    y = Doubles(q.size(), 7);
    lse.clear();
    for_each_row([&](std::int64_t b, std::int64_t h, std::int64_t t) {
      const Doubles p = probabilities(q, k, b, h, t);
      for (std::int64_t i = 0; i < p_.head_dim; ++i) {
        double sum = 0;
        for (std::int64_t s = 0; s < seen(b, t); ++s)
          sum += p[index(s)] * keep(b, h, t, s) * v[at_key(b, h, s, i)];
        y[at_query(b, h, t, i)] = sum;
      }
    });
  }

  void backward(const Doubles& q, const Doubles& k, const Doubles& v, const Doubles& dy) {
    dq = Doubles(q.size(), 7);
    dk = dv = Doubles(k.size(), 7);
    for (std::int64_t b = 0; b < p_.batch; ++b) {
      zero(dq, q_layout_, p_.heads, b, p_.queries);
      zero(dk, k_layout_, p_.kv_heads, b, p_.keys);
      zero(dv, k_layout_, p_.kv_heads, b, p_.keys);
    }
    for_each_row([&](std::int64_t b, std::int64_t h, std::int64_t t) {
      const Doubles p = probabilities(q, k, b, h, t);
      Doubles dp(p.size());
      double shift = 0;
      for (std::int64_t s = 0; s < seen(b, t); ++s) {
        const double factor = keep(b, h, t, s);
        for (std::int64_t i = 0; i < p_.head_dim; ++i) {
          dp[index(s)] += dy[at_query(b, h, t, i)] * v[at_key(b, h, s, i)] * factor;
          dv[at_key(b, h, s, i)] += p[index(s)] * factor * dy[at_query(b, h, t, i)];
        }
        shift += p[index(s)] * dp[index(s)];
      }
      for (std::int64_t s = 0; s < seen(b, t); ++s) {
        const double ds = p[index(s)] * (dp[index(s)] - shift) * double{args_.scale};
        for (std::int64_t i = 0; i < p_.head_dim; ++i) {
          dq[at_query(b, h, t, i)] += ds * k[at_key(b, h, s, i)];
          dk[at_key(b, h, s, i)] += ds * q[at_query(b, h, t, i)];
        }
      }
    });
  }

 private:
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
  std::size_t at_query(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t i) const {
    return index(b * q_layout_.batch + t * q_layout_.row + h * p_.head_dim + i);
  }
  std::size_t at_key(std::int64_t b, std::int64_t h, std::int64_t s, std::int64_t i) const {
    const std::int64_t kv_head = h / (p_.heads / p_.kv_heads);
    return index(b * k_layout_.batch + s * k_layout_.row + kv_head * p_.head_dim + i);
  }
  /// None by what is padding.
  std::int64_t seen(std::int64_t b, std::int64_t t) const {
    if (t >= p_.filled(b, p_.queries)) return 0;
    return p_.causal ? t + p_.keys - p_.queries + 1 : p_.filled(b, p_.keys);
  }
  double keep(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t s) const {
    if (p_.dropout == 0) return 1;
    const RandomStream random(args_.dropout_seed, args_.dropout_stream);
    const std::int64_t row = ((args_.batch_offset + b) * p_.heads + h) * p_.queries + t;
    const auto element = static_cast<std::uint64_t>(row * p_.keys + s);
    return random.uniform(element) >= p_.dropout ? 1 / (1 - double{p_.dropout}) : 0;
  }
  template <typename Body>
  void for_each_row(Body&& body) const {
    for (std::int64_t b = 0; b < p_.batch; ++b)
      for (std::int64_t h = 0; h < p_.heads; ++h)
        for (std::int64_t t = 0; t < p_.queries; ++t) body(b, h, t);
  }
  void zero(Doubles& x, const Layout& layout, std::int64_t heads, std::int64_t b,
            std::int64_t rows) const {
    for_each_element(p_, layout, heads, b, 0, rows, [&](std::size_t i) { x[i] = 0; });
  }
  Doubles probabilities(const Doubles& q, const Doubles& k, std::int64_t b, std::int64_t h,
                        std::int64_t t) {
    Doubles p(index(seen(b, t)));
    if (p.empty()) {
      lse.push_back(0);
      return p;
    }
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    for (std::int64_t s = 0; s < seen(b, t); ++s) {
      for (std::int64_t i = 0; i < p_.head_dim; ++i)
        p[index(s)] += q[at_query(b, h, t, i)] * k[at_key(b, h, s, i)] * double{args_.scale};
      largest = std::max(largest, p[index(s)]);
    }
    for (double& x : p) sum += x = std::exp(x - largest);
    for (double& x : p) x /= sum;
    lse.push_back(largest + std::log(sum));
    return p;
  }

  const Problem& p_;
  const AttentionForward& args_;
  Layout q_layout_, k_layout_;
};

/// One call against the plain computation.
inline void expect_right_forward(const Problem& p, DType dtype, Device device) {
  Arrays a(p, dtype, device);
  const AttentionForward args = forward_args(p, a);
  a.run(args);
  Reference reference(p, args, a);
  reference.forward(a.q.values(), a.k.values(), a.v.values());
  expect_close(a.y, reference.y, 2, describe(p));
  expect_close(a.lse, reference.lse, 2, describe(p));
}
inline void expect_right_gradients(const Problem& p, Arrays& a, const AttentionForward& args,
                                   const std::string& what) {
  Reference reference(p, args, a);
  reference.backward(a.q.values(), a.k.values(), a.v.values(), a.dy.values());
  if (p.keys == 1) {  // the only probability is 1, whatever its score
    EXPECT_NEAR(a.dq.values()[0], 0, 1e-6);
    EXPECT_NEAR(a.dk.values()[0], 0, 1e-6);
  } else {
    expect_close(a.dq, reference.dq, 4, what + " dq");
    expect_close(a.dk, reference.dk, 4, what + " dk");
  }
  expect_close(a.dv, reference.dv, 4, what + " dv");
}
inline void expect_right_backward(const Problem& p, DType dtype, Device device) {
  Arrays a(p, dtype, device);
  const AttentionBackward args = backward_args(p, a);
  a.run(args);
  expect_right_gradients(p, a, args.forward, describe(p));
}
inline void expect_same_bits(const Arrays& one, const Arrays& other) {
  EXPECT_EQ(one.y, other.y);
  EXPECT_EQ(one.lse, other.lse);
  EXPECT_EQ(one.dq, other.dq);
  EXPECT_EQ(one.dk, other.dk);
  EXPECT_EQ(one.dv, other.dv);
}

}  // namespace tessera::testing::attention
