// SPDX-License-Identifier: Apache-2.0
#include "tessera/autograd/joined_linear.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/kernels/elementwise.hpp"
#include "tessera/kernels/gemm.hpp"

#include "autograd/weight_gradient.hpp"

namespace tessera::autograd {
namespace {

/// One call, with everything that its closures need.
class JoinedLinear {
 public:
  JoinedLinear(const Stream& stream, const Shape& x, std::vector<LinearPart> parts, Joined joined,
               const WeightHolders& holders)
      : stream_(stream), parts_(std::move(parts)), joined_(joined), holders_(holders), x_(x) {
    for (const LinearPart& part : parts_) check(part);
    inputs_ = x_[-1];
    rows_ = inputs_ == 0 ? 0 : x_.numel() / inputs_;
    for (const LinearPart& part : parts_) begins_.push_back(begins_.back() + outputs(part));
  }

  Tensor forward(const Tensor& x) const {
    const ProfileScope profile("gemm forward");
    Tensor y(result_shape(), x.dtype(), x.device());
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      kernels::gemm(stream_, {.a = x.data(),
                              .b = attached_value(*parts_[i].weight),
                              .c = at(y, i),
                              .bias = parts_[i].bias ? attached_value(*parts_[i].bias) : nullptr,
                              .m = rows_,
                              .n = outputs(i),
                              .k = inputs_,
                              .transpose_b = true,
                              .ldc = row_stride(i),
                              .input_type = x.dtype(),
                              .output_type = x.dtype()});
    }
    return y;
  }

  /// dx (+)= dy W, part by part.
  void backward_input(const Tensor& dy, GradientSlot& slot) const {
    const ProfileScope profile("gemm backward input");
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const GradientSlot::Target dx = slot.target(stream_, x_, dy.dtype(), dy.device());
      kernels::gemm(stream_, {.a = at(dy, i),
                              .b = attached_value(*parts_[i].weight),
                              .c = dx.tensor.data(),
                              .m = rows_,
                              .n = inputs_,
                              .k = outputs(i),
                              .lda = row_stride(i),
                              .beta = dx.accumulate ? 1.0f : 0.0f,
                              .input_type = dy.dtype(),
                              .output_type = dy.dtype()});
    }
  }

  void backward_weight(const Tensor& dy, const Tensor& x) const {
    for (std::size_t i = 0; i < parts_.size(); ++i)
      if (parts_[i].weight->trainable && !is_shared(i)) {
        const GradientTarget target = gradient_target(*parts_[i].weight);
        multiply(dy, x, i, target.data, target.dtype, target.accumulate);
      }
    const Tensor biases = bias_gradients(dy);
    for (std::size_t i = 0; i < parts_.size(); ++i)
      if (trains_bias(i) && !is_shared(i))
        write_gradient(stream_, biases.rows(begins_[i], begins_[i + 1]), *parts_[i].bias);
    if (holders_.group != nullptr) backward_shared(dy, x, biases);
  }

  bool trains() const {
    return std::ranges::any_of(parts_, [](const LinearPart& part) {
      return part.weight->trainable || (part.bias != nullptr && part.bias->trainable);
    });
  }

 private:
  void check(const LinearPart& part) const {
    attached_value(*part.weight);
    const Shape& weight = part.weight->value.shape();
    TESSERA_CHECK(
        x_.rank() > 0 && weight.rank() == 2 && weight[1] == x_[-1] &&
            (part.bias == nullptr || part.bias->value.numel() == weight[0]) &&
            (joined_ == Joined::columns || weight[0] == parts_.front().weight->value.size(0)),
        Code::invalid_argument,
        fmt::format("a linear map with weight {} cannot take {} beside {} others",
                    weight.to_string(), x_.to_string(), parts_.size() - 1));
  }
  static std::int64_t outputs(const LinearPart& part) { return part.weight->value.size(0); }
  std::int64_t outputs(std::size_t part) const { return begins_[part + 1] - begins_[part]; }
  bool is_shared(std::size_t part) const {
    return holders_.group != nullptr && parts_[part].held_by_several;
  }
  bool trains_bias(std::size_t part) const {
    return parts_[part].bias != nullptr && parts_[part].bias->trainable;
  }

  Shape result_shape() const {
    std::vector<std::int64_t> shape = x_.sizes();
    shape.back() = joined_ == Joined::columns ? begins_.back() : outputs(std::size_t{0});
    if (joined_ == Joined::planes)
      shape.insert(shape.begin(), static_cast<std::int64_t>(parts_.size()));
    return Shape(std::move(shape));
  }
  std::int64_t row_stride(std::size_t part) const {
    return joined_ == Joined::columns ? begins_.back() : outputs(part);
  }
  /// Where a part's result begins.
  std::byte* at(const Tensor& joined, std::size_t part) const {
    const std::int64_t element = begins_[part] * (joined_ == Joined::columns ? 1 : rows_);
    return joined.as<std::byte>() + static_cast<std::size_t>(element) * size_of(joined.dtype());
  }

  /// dW (+)= dy^T x
  void multiply(const Tensor& dy, const Tensor& x, std::size_t part, void* gradient, DType dtype,
                bool accumulate) const {
    const ProfileScope profile("gemm backward weight");
    kernels::gemm(stream_, {.a = at(dy, part),
                            .b = x.data(),
                            .c = gradient,
                            .m = outputs(part),
                            .n = inputs_,
                            .k = rows_,
                            .transpose_a = true,
                            .lda = row_stride(part),
                            .beta = accumulate ? 1.0f : 0.0f,
                            .input_type = dy.dtype(),
                            .output_type = dtype});
  }

  /// Of all parts' biases, one after the other, fp32; undefined if none is trained.
  Tensor bias_gradients(const Tensor& dy) const {
    bool any = false;
    for (std::size_t i = 0; i < parts_.size(); ++i) any = any || trains_bias(i);
    if (!any) return {};
    const ProfileScope profile("bias gradient");
    const Tensor sums(Shape{begins_.back()}, DType::fp32, dy.device());
    const auto sum = [&](const void* from, std::int64_t begin, std::int64_t columns) {
      kernels::column_sum(stream_, {.x = from,
                                    .y = sums.as<float>() + begin,
                                    .output_type = DType::fp32,
                                    .accumulate = false,
                                    .rows = rows_,
                                    .columns = columns,
                                    .dtype = dy.dtype()});
    };
    if (joined_ == Joined::columns)
      sum(dy.data(), 0, begins_.back());
    else
      for (std::size_t i = 0; i < parts_.size(); ++i) sum(at(dy, i), begins_[i], outputs(i));
    return sums;
  }

  /// The gradients of what is held by several, in one exchange.
  void backward_shared(const Tensor& dy, const Tensor& x, const Tensor& biases) const {
    std::vector<std::pair<Weight*, std::int64_t>> places;  // and how many elements
    std::int64_t count = 0;
    const auto add = [&](Weight* weight) {
      places.emplace_back(weight, weight->value.numel());
      count += weight->value.numel();
    };
    for (std::size_t i = 0; i < parts_.size(); ++i)
      if (is_shared(i)) {
        if (parts_[i].weight->trainable) add(parts_[i].weight);
        if (trains_bias(i)) add(parts_[i].bias);
      }
    const Tensor own(Shape{count}, DType::fp32, dy.device());
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      if (!is_shared(i)) continue;
      if (parts_[i].weight->trainable) {
        multiply(dy, x, i, own.as<float>() + begin, DType::fp32, false);
        begin += outputs(i) * inputs_;
      }
      if (trains_bias(i)) {
        stream_.copy(own.as<float>() + begin, biases.as<float>() + begins_[i],
                     static_cast<std::size_t>(outputs(i)) * sizeof(float));
        begin += outputs(i);
      }
    }
    const Tensor sum = sum_over_holders(own);
    begin = 0;
    for (const auto& [weight, elements] : places) {
      write_gradient(stream_, sum.rows(begin, begin + elements), *weight);
      begin += elements;
    }
  }

  /// Every holder sends its elements to every other one.
  Tensor sum_over_holders(const Tensor& own) const {
    const ProfileScope profile("tensor all-to-all");
    Communicator& group = *holders_.group;
    const std::int64_t count = own.numel();
    std::vector<std::int64_t> counts(static_cast<std::size_t>(group.size()), 0);
    for (std::int64_t rank = holders_.ranks.begin; rank < holders_.ranks.end; ++rank)
      if (rank != group.rank()) counts[static_cast<std::size_t>(rank)] = count;
    const std::int64_t others = holders_.ranks.size() - 1;
    const Tensor sent = scratch(others * count, own), received = scratch(others * count, own);
    for (std::int64_t other = 0; other < others; ++other)
      stream_.copy(sent.as<float>() + other * count, own.data(), own.bytes());
    group.all_to_all_v(sent.data(), counts, received.data(), counts, DType::fp32, stream_).wait();
    const Tensor sum = Tensor::zeros(Shape{count}, DType::fp32, stream_);
    const std::int64_t before = group.rank() - holders_.ranks.begin;
    for (std::int64_t other = 0; other <= others; ++other) {
      const float* from = other == before
                              ? own.as<float>()
                              : received.as<float>() + (other < before ? other : other - 1) * count;
      kernels::accumulate(stream_, from, DType::fp32, 1, sum.data(), DType::fp32, count);
    }
    return sum;
  }
  static Tensor scratch(std::int64_t elements, const Tensor& like) {
    return Tensor(Shape{elements}, DType::fp32, like.device(), Purpose::workspace);
  }

  Stream stream_;
  std::vector<LinearPart> parts_;
  Joined joined_;
  WeightHolders holders_;
  Shape x_;
  std::int64_t inputs_ = 0, rows_ = 0;
  std::vector<std::int64_t> begins_{0};  // of the parts' columns, and their end
};

}  // namespace

Value joined_linear(Tape& tape, const Value& x, const std::vector<LinearPart>& parts, Joined joined,
                    const WeightHolders& holders) {
  const JoinedLinear op(tape.stream(), x.shape(), parts, joined, holders);
  Value y = tape.result(op.forward(x.data()), x.requires_gradient() || op.trains());
  if (!y.requires_gradient()) return y;
  Node node{
      .name = "joined_linear", .output = y.slot(), .backward_input = {}, .backward_weight = {}};
  if (x.requires_gradient())
    node.backward_input = [op, slot = x.slot()](Tensor& dy) { op.backward_input(dy, *slot); };
  if (op.trains())
    node.backward_weight = [op, saved = x.save()](const Tensor& dy) {
      op.backward_weight(dy, saved.get());
    };
  tape.record(std::move(node));
  return y;
}

}  // namespace tessera::autograd
