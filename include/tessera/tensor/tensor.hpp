// SPDX-License-Identifier: Apache-2.0
// A shared buffer with a shape and an element type; contiguous, row-major.
#pragma once

#include <cstdint>
#include <memory>

#include "tessera/base/dtype.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/device/buffer.hpp"
#include "tessera/device/stream.hpp"

namespace tessera {

/// A cheap handle; copies share the elements. Default-constructed: no tensor.
class Tensor {
 public:
  Tensor() = default;
  /// Uninitialised.
  Tensor(Shape shape, DType dtype, Device device = {}, Purpose purpose = Purpose::activations);
  /// A view of memory that somebody else owns and keeps alive.
  static Tensor borrow(void* data, Shape shape, DType dtype, Device device = {});
  static Tensor zeros(Shape shape, DType dtype, const Stream& stream = {},
                      Purpose purpose = Purpose::activations);

  explicit operator bool() const { return defined_; }
  void* data() const { return data_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  const Shape& shape() const { return shape_; }
  std::int64_t size(int dimension) const { return shape_[dimension]; }
  std::int64_t numel() const { return shape_.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }

  /// The same elements in another shape; the number of elements must agree.
  Tensor view(Shape shape) const;
  /// Rows [begin, end) of the first dimension.
  Tensor rows(std::int64_t begin, std::int64_t end) const;
  Tensor clone(const Stream& stream = {}) const;
  /// The elements of a host tensor on the stream's device: a copy, or the tensor itself on the CPU.
  /// The original may change at once.
  Tensor on(const Stream& stream) const;
  /// The elements in host memory, after waiting for the stream: a copy, or the tensor itself if it
  /// is there.
  Tensor on_host(const Stream& stream) const;
  /// Converted copy (or the tensor itself when the type is the same).
  Tensor to(DType dtype, const Stream& stream = {}) const;
  /// True when no other handle or view shares the elements, so that they may be overwritten. Never
  /// true for borrowed memory.
  bool unique() const { return buffer_ != nullptr && buffer_.use_count() == 1; }

 private:
  std::shared_ptr<Buffer> buffer_;
  void* data_ = nullptr;
  Shape shape_{0};
  DType dtype_ = DType::fp32;
  Device device_;
  bool defined_ = false;
};

}  // namespace tessera
