// SPDX-License-Identifier: Apache-2.0
// A tensor in a differentiable program, and the place where its gradient is collected.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "tessera/device/stream.hpp"
#include "tessera/kernels/activation.hpp"
#include "tessera/tensor/tensor.hpp"

namespace tessera::autograd {

/// Collects the contributions to one gradient. The first moves in without a copy, so one tensor can
/// be the gradient of several values at once (a residual sum); later ones are added in place when
/// nobody else sees the elements, else into a copy.
class GradientSlot {
 public:
  bool empty() const { return !gradient_; }
  const Tensor& gradient() const { return gradient_; }
  Tensor take() { return std::exchange(gradient_, {}); }
  void add(const Stream& stream, Tensor contribution);

  struct Target {
    Tensor tensor;
    bool accumulate;  // add to what is there; else overwrite
  };
  /// For kernels that can add to their output: the tensor to write the next contribution to.
  Target target(const Stream& stream, const Shape& shape, DType dtype, Device device);

 private:
  Tensor gradient_;
};

/// What a backward pass keeps of a value: the tensor, or how to compute it again.
class SavedTensor {
 public:
  SavedTensor() = default;
  explicit SavedTensor(Tensor tensor) : tensor_(std::move(tensor)) {}
  explicit SavedTensor(std::function<Tensor()> rebuild) : rebuild_(std::move(rebuild)) {}
  Tensor get() const { return rebuild_ ? rebuild_() : tensor_; }

 private:
  Tensor tensor_;
  std::function<Tensor()> rebuild_;
};

/// How a value was made by a pointwise function. Who computes its gradient by a matrix product may
/// multiply by the function's derivative in the same step and add the result to `slot`.
struct ActivationOrigin {
  kernels::Activation function;
  Tensor argument;
  std::shared_ptr<GradientSlot> slot;  // of the argument's gradient
};

/// A cheap handle; copies share elements and gradient.
class Value {
 public:
  Value() = default;
  /// A constant.
  explicit Value(Tensor data) : data_(std::move(data)) {}
  /// A leaf whose gradient is wanted.
  static Value leaf(Tensor data) {
    return Value(std::move(data), std::make_shared<GradientSlot>());
  }
  Value(Tensor data, std::shared_ptr<GradientSlot> slot)
      : data_(std::move(data)), slot_(std::move(slot)) {}

  const Tensor& data() const { return data_; }
  const Shape& shape() const { return data_.shape(); }
  bool requires_gradient() const { return slot_ != nullptr; }
  const std::shared_ptr<GradientSlot>& slot() const { return slot_; }
  /// Undefined tensor when there is none (yet).
  Tensor gradient() const { return slot_ ? slot_->gradient() : Tensor(); }

  /// Backward passes that need this value keep `rebuild` instead of the elements.
  void set_rebuild(std::function<Tensor()> rebuild) { rebuild_ = std::move(rebuild); }
  SavedTensor save() const { return rebuild_ ? SavedTensor(rebuild_) : SavedTensor(data_); }
  /// nullptr: not by a pointwise function, or no gradient is wanted.
  const std::shared_ptr<const ActivationOrigin>& activation_origin() const { return origin_; }
  void set_activation_origin(ActivationOrigin origin) {
    origin_ = std::make_shared<const ActivationOrigin>(std::move(origin));
  }
  /// Gives the tensor up, e.g. to write a result in place of a value that nobody needs any more.
  Tensor take_data() { return std::exchange(data_, {}); }

 private:
  Tensor data_;
  std::shared_ptr<GradientSlot> slot_;
  std::function<Tensor()> rebuild_;
  std::shared_ptr<const ActivationOrigin> origin_;
};

}  // namespace tessera::autograd
