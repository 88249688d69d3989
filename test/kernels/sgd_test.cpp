// SPDX-License-Identifier: Apache-2.0
// Stochastic gradient descent against torch.optim.SGD's formula in fp64.
#include "tessera/kernels/sgd.hpp"

#include "tessera/base/error.hpp"
#include "tessera/kernels/split_master.hpp"

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

namespace on_device = testing::on_device;
using testing::Doubles;
using testing::TypedArray;

struct Hyper {
  double lr = 0.01, momentum = 0.9, dampening = 0.2, weight_decay = 0.1;
  bool nesterov = false;
};

void reference_step(Doubles& w, Doubles& buffer, const Doubles& gradient, const Hyper& h,
                    bool first) {
  for (std::size_t i = 0; i < w.size(); ++i) {
    double g = gradient[i] + h.weight_decay * w[i];
    if (h.momentum != 0) {
      buffer[i] = first ? g : h.momentum * buffer[i] + (1 - h.dampening) * g;
      g = h.nesterov ? g + h.momentum * buffer[i] : buffer[i];
    }
    w[i] -= h.lr * g;
  }
}

Sgd arguments(std::vector<float>& w, float* buffer, const TypedArray& gradient, const Hyper& h,
              bool first) {
  return {.parameter = w.data(),
          .momentum_buffer = buffer,
          .gradient = gradient.data(),
          .gradient_type = gradient.dtype(),
          .lr = h.lr,
          .momentum = h.momentum,
          .dampening = h.dampening,
          .weight_decay = h.weight_decay,
          .nesterov = h.nesterov,
          .first_step = first,
          .count = std::ssize(w)};
}

const Hyper kHypers[] = {
    {}, {.momentum = 0}, {.dampening = 0, .nesterov = true}, {.weight_decay = 0}};

TEST(SgdTest, TenStepsFollowFp64) {
  for (const Hyper& h : kHypers) {
    for (const DType type : {DType::fp32, DType::bf16, DType::fp16}) {
      for (const std::int64_t count : {1, 3, 17, 65, 17000}) {
        Doubles expected = TypedArray(DType::fp32, testing::random_doubles(count, 1)).values();
        Doubles expected_buffer(expected.size());
        std::vector<float> w(expected.begin(), expected.end()), buffer(w.size());
        for (int step = 1; step <= 10; ++step) {
          const auto gradient =
              testing::random_array(type, count, static_cast<std::uint64_t>(step) + 1);
          float* kept = h.momentum != 0 ? buffer.data() : nullptr;
          on_device::sgd(arguments(w, kept, gradient, h, step == 1));
          reference_step(expected, expected_buffer, gradient.values(), h, step == 1);
        }
        EXPECT_LE(testing::relative_error(Doubles(w.begin(), w.end()), expected), 1e-6);
        EXPECT_LE(testing::relative_error(Doubles(buffer.begin(), buffer.end()), expected_buffer),
                  1e-6);
      }
    }
  }
}

TEST(SgdTest, SplitMasterHasTheBitsOfPlainFp32) {
  const std::int64_t count = 65;
  const auto values = testing::random_doubles(count, 1);
  std::vector<float> w(values.begin(), values.end()), buffer(w.size()), other_buffer(w.size());
  std::vector<bf16> high(w.size());
  std::vector<std::uint16_t> low(w.size());
  on_device::split(w.data(), high.data(), low.data(), count);
  for (int step = 1; step <= 3; ++step) {
    const auto gradient = testing::random_array(DType::bf16, count, 5);
    auto args = arguments(w, buffer.data(), gradient, {}, step == 1);
    on_device::sgd(args);
    args.parameter = high.data();
    args.low = low.data();
    args.momentum_buffer = other_buffer.data();
    on_device::sgd(args);
  }
  std::vector<float> joined(w.size());
  on_device::join(high.data(), low.data(), joined.data(), count);
  EXPECT_EQ(joined, w);
}

TEST(SgdTest, RoundedMasterHasTheBitsOfPlainFp32) {
  const std::int64_t count = 65;
  const auto values = testing::random_doubles(count, 1);
  std::vector<float> w(values.begin(), values.end()), master = w, buffer(w.size()), other(w.size());
  TypedArray rounded(DType::fp16, w.size()), expected = rounded;
  for (int step = 1; step <= 3; ++step) {
    const auto gradient = testing::random_array(DType::fp16, count, 5);
    on_device::sgd(arguments(w, buffer.data(), gradient, {}, step == 1));
    auto args = arguments(master, other.data(), gradient, {}, step == 1);
    args.rounded = rounded.as<fp16>();
    on_device::sgd(args);
  }
  EXPECT_EQ(master, w);
  convert(w.data(), DType::fp32, expected.data(), DType::fp16, w.size());
  EXPECT_TRUE(rounded == expected);
}

TEST(SgdTest, GradientScaleMultipliesFirst) {
  std::vector<float> w{1}, scaled{1};
  const TypedArray gradient(DType::fp32, Doubles{2.0}), quadruple(DType::fp32, Doubles{8.0});
  on_device::sgd(arguments(w, nullptr, gradient, {.momentum = 0}, true));
  auto args = arguments(scaled, nullptr, quadruple, {.momentum = 0}, true);
  args.gradient_scale = 0.25f;
  on_device::sgd(args);
  EXPECT_EQ(w, scaled);
}

TEST(SgdTest, MomentumNeedsItsBuffer) {
  std::vector<float> w{1};
  const TypedArray gradient(DType::fp32, Doubles{2.0});
  EXPECT_THROW(on_device::sgd(arguments(w, nullptr, gradient, {}, true)), Error);
}

}  // namespace
}  // namespace tessera::kernels
