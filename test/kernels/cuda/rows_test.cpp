// SPDX-License-Identifier: Apache-2.0
// CUDA kernels that share rows among threads, against the CPU's: every way in which a row can be
// held or read again, aligned or not.
#include <algorithm>

#include "tessera/kernels/cross_entropy.hpp"
#include "tessera/kernels/layer_norm.hpp"
#include "tessera/kernels/rms_norm.hpp"
#include "tessera/kernels/softmax.hpp"

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

namespace on_device = testing::on_device;
using testing::TypedArray;

struct Size {
  std::int64_t rows, columns;
};

class CudaRows : public ::testing::TestWithParam<DType> {
 protected:
  TypedArray random(std::int64_t count, std::uint64_t seed) const {
    return testing::random_array(GetParam(), count, seed);
  }
  TypedArray nothing(const TypedArray& like) const {
    return testing::filled_array(like.dtype(), static_cast<std::int64_t>(like.size()), 77);
  }
};
INSTANTIATE_TEST_SUITE_P(Types, CudaRows, testing::kernel_types(), testing::type_name);

/// Groups of 32, 64, 128, 256 and 512 threads, rows too long for them, rows that packs do not
/// divide; fewer and more rows than a block takes, and a last block that is not full.
const Size kNormSizes[] = {{1, 8},    {5, 64},   {40, 512}, {37, 768},   {19, 1600}, {9, 2048},
                           {7, 4096}, {3, 8192}, {3, 8200}, {2, 12288},  {3, 771},   {130, 33},
                           {2, 9001}, {2049, 8}, {0, 64},   {1100, 136}, {4100, 16}};

TEST_P(CudaRows, LayerNorm) {
  for (const auto [rows, columns] : kNormSizes) {
    const auto x = random(rows * columns, 1), weight = random(columns, 2),
               bias = random(columns, 3);
    const auto dy = random(rows * columns, 4);
    auto y = nothing(x), expected_y = y;
    TypedArray mean(DType::fp32, static_cast<std::size_t>(rows)), rstd = mean;
    LayerNormForward forward{.x = x.data(),
                             .weight = weight.data(),
                             .bias = bias.data(),
                             .y = y.data(),
                             .mean = mean.as<float>(),
                             .rstd = rstd.as<float>(),
                             .rows = rows,
                             .columns = columns,
                             .epsilon = 1e-5f,
                             .dtype = GetParam()};
    on_device::layer_norm_forward(forward);
    forward.y = expected_y.data();
    layer_norm_forward(Stream(), forward);
    const std::string what = std::to_string(rows) + " x " + std::to_string(columns);
    testing::expect_close(y, expected_y.values(), 2, what);
    for (const bool accumulate : {false, true}) {
      auto dx = dy, expected_dx = dx;
      auto dweight = testing::random_array(DType::fp32, columns, 5), expected_dweight = dweight;
      auto dbias = testing::random_array(DType::fp32, columns, 6), expected_dbias = dbias;
      LayerNormBackward backward{.dy = dy.data(),
                                 .x = x.data(),
                                 .weight = weight.data(),
                                 .mean = mean.as<float>(),
                                 .rstd = rstd.as<float>(),
                                 .dx = dx.data(),
                                 .accumulate_dx = accumulate,
                                 .dweight = dweight.data(),
                                 .dbias = dbias.data(),
                                 .gradient_type = DType::fp32,
                                 .accumulate = accumulate,
                                 .rows = rows,
                                 .columns = columns,
                                 .dtype = GetParam()};
      on_device::layer_norm_backward(backward);
      backward.dx = expected_dx.data();
      backward.dweight = expected_dweight.data();
      backward.dbias = expected_dbias.data();
      layer_norm_backward(Stream(), backward);
      testing::expect_close(dx, expected_dx.values(), 2, what + " dx");
      testing::expect_close(dweight, expected_dweight.values(), 3, what + " dweight");
      testing::expect_close(dbias, expected_dbias.values(), 3, what + " dbias");
    }
  }
}

TEST_P(CudaRows, RmsNorm) {
  for (const auto [rows, columns] : kNormSizes) {
    const auto x = random(rows * columns, 1), weight = random(columns, 2);
    const auto dy = random(rows * columns, 4);
    auto y = nothing(x), expected_y = y;
    TypedArray rstd(DType::fp32, static_cast<std::size_t>(rows));
    RmsNormForward forward{.x = x.data(),
                           .weight = weight.data(),
                           .y = y.data(),
                           .rstd = rstd.as<float>(),
                           .rows = rows,
                           .columns = columns,
                           .epsilon = 1e-5f,
                           .dtype = GetParam()};
    on_device::rms_norm_forward(forward);
    forward.y = expected_y.data();
    rms_norm_forward(Stream(), forward);
    const std::string what = std::to_string(rows) + " x " + std::to_string(columns);
    testing::expect_close(y, expected_y.values(), 2, what);
    auto dx = nothing(x), expected_dx = dx;
    auto dweight = nothing(weight), expected_dweight = dweight;
    RmsNormBackward backward{.dy = dy.data(),
                             .x = x.data(),
                             .weight = weight.data(),
                             .rstd = rstd.as<float>(),
                             .dx = dx.data(),
                             .dweight = dweight.data(),
                             .gradient_type = GetParam(),
                             .accumulate = false,
                             .rows = rows,
                             .columns = columns,
                             .dtype = GetParam()};
    on_device::rms_norm_backward(backward);
    backward.dx = expected_dx.data();
    backward.dweight = expected_dweight.data();
    rms_norm_backward(Stream(), backward);
    testing::expect_close(dx, expected_dx.values(), 2, what + " dx");
    testing::expect_close(dweight, expected_dweight.values(), 3, what + " dweight");
  }
}

/// Rows for 256 threads, for 1024, too long for them, and not aligned.
const Size kSoftmaxSizes[] = {{3, 1},     {5, 8},     {2, 4096},  {2, 4104}, {3, 8192}, {1, 8200},
                              {1, 28672}, {1, 57344}, {1, 57352}, {2, 333},  {1, 5001}};

TEST_P(CudaRows, Softmax) {
  for (const auto [rows, columns] : kSoftmaxSizes) {
    const auto x = testing::random_array(GetParam(), rows * columns, 1, 3);
    const auto dy = random(rows * columns, 2);
    auto y = nothing(x), expected_y = y;
    on_device::softmax_forward({x.data(), y.data(), rows, columns, GetParam()});
    softmax_forward(Stream(), {x.data(), expected_y.data(), rows, columns, GetParam()});
    const std::string what = std::to_string(rows) + " x " + std::to_string(columns);
    testing::expect_close(y, expected_y.values(), 3, what);
    auto dx = dy, expected_dx = dy;  // in place
    on_device::softmax_backward({dx.data(), y.data(), dx.data(), rows, columns, GetParam()});
    softmax_backward(Stream(),
                     {expected_dx.data(), y.data(), expected_dx.data(), rows, columns, GetParam()});
    testing::expect_close(dx, expected_dx.values(), 3, what + " dx");
  }
}

TEST_P(CudaRows, CrossEntropy) {
  for (const auto [rows, columns] : kSoftmaxSizes) {
    const auto logits = testing::random_array(GetParam(), rows * columns, 1, 3);
    const std::int64_t valid = std::max<std::int64_t>(1, columns - 5);
    std::vector<std::int32_t> targets;
    for (std::int64_t r = 0; r < rows; ++r)
      targets.push_back(r == 1 ? -100 : static_cast<std::int32_t>(valid - 1 - r % valid));
    auto gradient = logits, expected_gradient = logits;  // in place
    TypedArray losses(DType::fp32, static_cast<std::size_t>(rows)), expected_losses = losses;
    CrossEntropy args{.logits = gradient.data(),
                      .targets = targets.data(),
                      .losses = losses.as<float>(),
                      .dlogits = gradient.data(),
                      .scale = 0.5f,
                      .rows = rows,
                      .columns = columns,
                      .valid_columns = valid,
                      .dtype = GetParam()};
    on_device::cross_entropy(args);
    args.logits = args.dlogits = expected_gradient.data();
    args.losses = expected_losses.as<float>();
    cross_entropy(Stream(), args);
    const std::string what = std::to_string(rows) + " x " + std::to_string(columns);
    testing::expect_close(losses, expected_losses.values(), 2, what);
    testing::expect_close(gradient, expected_gradient.values(), 3, what);
  }
}

}  // namespace
}  // namespace tessera::kernels
