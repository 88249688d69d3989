// SPDX-License-Identifier: Apache-2.0
// The Adam update against fp64, in all its types, and its independence of slices.
#include "tessera/kernels/adamw.hpp"

#include "tessera/kernels/split_master.hpp"

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

namespace on_device = testing::on_device;
using testing::Doubles;
using testing::TypedArray;

struct Hyper {
  double lr = 3e-3, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1;
  bool decoupled = true;
  double scale = 0.5;
};

/// torch.optim.AdamW and Adam, written down in fp64.
struct Reference {
  Doubles w, m, v;

  void step(const Doubles& gradient, const Hyper& h, int step) {
    for (std::size_t i = 0; i < w.size(); ++i) {
      double g = gradient[i] * h.scale;
      if (h.decoupled)
        w[i] *= 1 - h.lr * h.weight_decay;
      else
        g += h.weight_decay * w[i];
      m[i] = h.beta1 * m[i] + (1 - h.beta1) * g;
      v[i] = h.beta2 * v[i] + (1 - h.beta2) * g * g;
      const double m_hat = m[i] / (1 - std::pow(h.beta1, step));
      const double v_hat = v[i] / (1 - std::pow(h.beta2, step));
      w[i] -= h.lr * m_hat / (std::sqrt(v_hat) + h.epsilon);
    }
  }
};

enum class Master { plain, split, rounded };

/// Master weights of one kind with their states.
struct State {
  State(const Doubles& values, Master kind)
      : master_kind(kind),
        weights(values.begin(), values.end()),
        high(values.size()),
        low(values.size()),
        half(values.size()),
        m(values.size()),
        v(values.size()) {
    if (is_split()) on_device::split(weights.data(), high.data(), low.data(), std::ssize(weights));
  }
  bool is_split() const { return master_kind == Master::split; }
  AdamW args(const TypedArray& gradient, const Hyper& h, int step, std::int64_t begin,
             std::int64_t end) {
    const auto bytes = static_cast<std::int64_t>(size_of(gradient.dtype()));
    return {.parameter = is_split() ? static_cast<void*>(high.data() + begin)
                                    : static_cast<void*>(weights.data() + begin),
            .low = is_split() ? low.data() + begin : nullptr,
            .rounded = master_kind == Master::rounded ? half.data() + begin : nullptr,
            .exp_avg = m.data() + begin,
            .exp_avg_sq = v.data() + begin,
            .gradient = static_cast<const char*>(gradient.data()) + begin * bytes,
            .gradient_type = gradient.dtype(),
            .gradient_scale = static_cast<float>(h.scale),
            .lr = h.lr,
            .beta1 = h.beta1,
            .beta2 = h.beta2,
            .epsilon = h.epsilon,
            .weight_decay = h.weight_decay,
            .correction1 = 1 - std::pow(h.beta1, step),
            .correction2 = 1 - std::pow(h.beta2, step),
            .decoupled = h.decoupled,
            .count = end - begin};
  }
  std::vector<float> master() const {
    if (!is_split()) return weights;
    std::vector<float> joined(weights.size());
    on_device::join(high.data(), low.data(), joined.data(), std::ssize(joined));
    return joined;
  }

  Master master_kind;
  std::vector<float> weights;
  std::vector<bf16> high;
  std::vector<std::uint16_t> low;
  std::vector<fp16> half;
  std::vector<float> m, v;
};

Doubles widened(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

struct Kind {
  Master master;
  DType gradient;
};
const Kind kKinds[] = {{Master::plain, DType::fp32},  {Master::plain, DType::bf16},
                       {Master::plain, DType::fp16},  {Master::split, DType::fp32},
                       {Master::split, DType::bf16},  {Master::rounded, DType::fp32},
                       {Master::rounded, DType::fp16}};

TEST(AdamW, TwentyStepsFollowFp64) {
  for (const bool decoupled : {true, false}) {
    for (const Kind kind : kKinds) {
      for (const std::int64_t count : {1, 3, 17, 65, 17000}) {
        const Hyper h{.decoupled = decoupled};
        State state(testing::random_doubles(count, 1), kind.master);
        Reference reference{widened(state.weights), Doubles(state.m.size()),
                            Doubles(state.m.size())};
        for (int step = 1; step <= 20; ++step) {
          const auto gradient =
              testing::random_array(kind.gradient, count, static_cast<std::uint64_t>(step) + 1);
          on_device::adamw(state.args(gradient, h, step, 0, count));
          reference.step(gradient.values(), h, step);
        }
        EXPECT_LE(testing::relative_error(widened(state.master()), reference.w), 1e-6);
        EXPECT_LE(testing::relative_error(widened(state.m), reference.m), 1e-6);
        EXPECT_LE(testing::relative_error(widened(state.v), reference.v), 1e-6);
      }
    }
  }
}

TEST(AdamW, SplitMasterHasTheBitsOfPlainFp32) {
  const std::int64_t count = 1000;
  const Hyper h;
  State plain(testing::random_doubles(count, 1), Master::plain),
      pair(testing::random_doubles(count, 1), Master::split);
  for (int step = 1; step <= 5; ++step) {
    const auto gradient =
        testing::random_array(DType::bf16, count, static_cast<std::uint64_t>(step) + 1);
    on_device::adamw(plain.args(gradient, h, step, 0, count));
    on_device::adamw(pair.args(gradient, h, step, 0, count));
  }
  EXPECT_EQ(plain.master(), pair.master());
  EXPECT_EQ(plain.v, pair.v);
}

TEST(AdamW, RoundedMasterHasTheBitsOfPlainFp32) {
  const std::int64_t count = 1000;
  const Hyper h;
  State plain(testing::random_doubles(count, 1), Master::plain),
      both(testing::random_doubles(count, 1), Master::rounded);
  for (int step = 1; step <= 5; ++step) {
    const auto gradient =
        testing::random_array(DType::fp16, count, static_cast<std::uint64_t>(step) + 1);
    on_device::adamw(plain.args(gradient, h, step, 0, count));
    on_device::adamw(both.args(gradient, h, step, 0, count));
  }
  EXPECT_EQ(plain.master(), both.master());
  EXPECT_EQ(plain.v, both.v);
  for (std::size_t i = 0; i < both.half.size(); ++i)
    EXPECT_EQ(both.half[i].bits, fp16::from_float(plain.weights[i]).bits);
}

TEST(AdamW, SlicesGiveTheSameBits) {
  const std::int64_t count = 1000;
  const Hyper h;
  for (const Kind kind : kKinds) {
    State whole(testing::random_doubles(count, 1), kind.master), cut = whole;
    const auto gradient = testing::random_array(kind.gradient, count, 2);
    on_device::adamw(whole.args(gradient, h, 1, 0, count));
    for (std::int64_t begin = 0, size = 1; begin < count; begin += size, size = size * 2 + 1)
      on_device::adamw(cut.args(gradient, h, 1, begin, std::min(count, begin + size)));
    EXPECT_EQ(whole.master(), cut.master());
    EXPECT_EQ(whole.m, cut.m);
    EXPECT_EQ(whole.v, cut.v);
  }
}

TEST(AdamW, ZeroGradientChangesNothingWithoutDecay) {
  State state(testing::random_doubles(33, 1), Master::split);
  const auto before = state.master();
  on_device::adamw(
      state.args(testing::filled_array(DType::bf16, 33, 0), {.weight_decay = 0}, 1, 0, 33));
  EXPECT_EQ(state.master(), before);
}

}  // namespace
}  // namespace tessera::kernels
