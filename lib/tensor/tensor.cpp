// SPDX-License-Identifier: Apache-2.0
// Allocation, views and copies of tensors.
#include "tessera/tensor/tensor.hpp"

#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/kernels/elementwise.hpp"

namespace tessera {

Tensor::Tensor(Shape shape, DType dtype, Device device, Purpose purpose)
    : shape_(std::move(shape)), dtype_(dtype), device_(device), defined_(true) {
  const std::int64_t bytes =
      checked_multiply(shape_.numel(), static_cast<std::int64_t>(size_of(dtype)));
  buffer_ = std::make_shared<Buffer>(allocate(static_cast<std::size_t>(bytes), device, purpose));
  data_ = buffer_->data();
}

Tensor Tensor::borrow(void* data, Shape shape, DType dtype, Device device) {
  TESSERA_CHECK(data != nullptr || shape.numel() == 0, Code::invalid_argument,
                fmt::format("a tensor of shape {} without memory", shape.to_string()));
  Tensor tensor;
  tensor.data_ = data;
  tensor.shape_ = std::move(shape);
  tensor.dtype_ = dtype;
  tensor.device_ = device;
  tensor.defined_ = true;
  return tensor;
}

Tensor Tensor::zeros(Shape shape, DType dtype, const Stream& stream, Purpose purpose) {
  Tensor tensor(std::move(shape), dtype, stream.device(), purpose);
  if (tensor.numel() > 0) stream.fill_zero(tensor.data(), tensor.bytes());
  return tensor;
}

Tensor Tensor::view(Shape shape) const {
  TESSERA_CHECK(shape.numel() == numel(), Code::invalid_argument,
                fmt::format("a tensor of shape {} cannot be seen as {}: {} elements against {}",
                            shape_.to_string(), shape.to_string(), numel(), shape.numel()));
  Tensor result = *this;
  result.shape_ = std::move(shape);
  return result;
}

Tensor Tensor::rows(std::int64_t begin, std::int64_t end) const {
  TESSERA_CHECK(
      shape_.rank() > 0 && 0 <= begin && begin <= end && end <= shape_[0], Code::invalid_argument,
      fmt::format("rows {} to {} of a tensor of shape {}", begin, end, shape_.to_string()));
  std::vector<std::int64_t> sizes = shape_.sizes();
  const std::int64_t row = shape_[0] == 0 ? 0 : numel() / shape_[0];
  sizes[0] = end - begin;
  Tensor result = *this;
  result.shape_ = Shape(std::move(sizes));
  if (data_ != nullptr)
    result.data_ =
        static_cast<std::byte*>(data_) + static_cast<std::size_t>(begin * row) * size_of(dtype_);
  return result;
}

Tensor Tensor::clone(const Stream& stream) const {
  Tensor result(shape_, dtype_, device_, buffer_ ? buffer_->purpose() : Purpose::activations);
  if (numel() > 0) stream.copy(result.data(), data_, bytes());
  return result;
}

Tensor Tensor::on(const Stream& stream) const {
  if (device_ == stream.device()) return *this;
  Tensor result(shape_, dtype_, stream.device(),
                buffer_ ? buffer_->purpose() : Purpose::activations);
  if (numel() > 0) stream.copy(result.data(), data_, bytes());
  return result;
}

Tensor Tensor::on_host(const Stream& stream) const {
  if (device_.is_cpu()) return *this;
  Tensor result(shape_, dtype_, Device{}, buffer_ ? buffer_->purpose() : Purpose::activations);
  if (numel() > 0) stream.copy(result.data(), data_, bytes());
  stream.synchronize();
  return result;
}

Tensor Tensor::to(DType dtype, const Stream& stream) const {
  if (dtype == dtype_) return *this;
  Tensor result(shape_, dtype, device_, buffer_ ? buffer_->purpose() : Purpose::activations);
  kernels::cast(stream, data_, dtype_, result.data(), dtype, numel());
  return result;
}

}  // namespace tessera
