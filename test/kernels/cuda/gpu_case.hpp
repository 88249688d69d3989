// SPDX-License-Identifier: Apache-2.0
// Operations with arrays of their own on the GPU, for tests of what kernels do beside computing:
// the bytes that they move, and the barriers that they need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/random.hpp"

#include "support/on_device.hpp"

namespace tessera::testing {

/// One call of an operation on [rows, columns].
class GpuCase {
 public:
  GpuCase(std::string operation, DType dtype, std::int64_t rows, std::int64_t columns)
      : operation_(std::move(operation)), dtype_(dtype), rows_(rows), columns_(columns) {}

  // Arrays. What is read or written once is part of the least that the operation can move; an array
  // that is `aside` is not, and least() takes what has to be said by hand.
  const void* read(DType dtype, std::int64_t count) { return add(dtype, count, 1, false); }
  void* write(DType dtype, std::int64_t count) { return add(dtype, count, 1, true); }
  void* update(DType dtype, std::int64_t count) { return add(dtype, count, 2, true); }
  void* aside(DType dtype, std::int64_t count) { return add(dtype, count, 0, true); }
  const float* read_floats(std::int64_t count) {
    return static_cast<const float*>(read(DType::fp32, count));
  }
  float* write_floats(std::int64_t count) { return static_cast<float*>(write(DType::fp32, count)); }
  float* update_floats(std::int64_t count) {
    return static_cast<float*>(update(DType::fp32, count));
  }
  /// Different ones as long as there are: 0, step, 2 step, … modulo limit.
  const std::int32_t* indices(std::int64_t count, std::int64_t limit, std::int64_t step) {
    auto* data = static_cast<std::int32_t*>(add(DType::int32, count, 1, false));
    auto& host = arrays_.back().begin;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto index = static_cast<std::int32_t>(i * step % limit);
      std::memcpy(host.data() + static_cast<std::size_t>(i) * sizeof(index), &index, sizeof(index));
    }
    return data;
  }
  const std::int64_t* integers(const std::vector<std::int64_t>& values) {
    const void* data = add(DType::int64, std::ssize(values), 1, false);
    std::memcpy(arrays_.back().begin.data(), values.data(), values.size() * sizeof(std::int64_t));
    return static_cast<const std::int64_t*>(data);
  }
  void least(std::int64_t bytes) { least_ += bytes; }
  void calls(std::function<void(const Stream&)> body) { body_ = std::move(body); }

  /// Fills the arrays as they were at the beginning.
  void prepare() const {
    for (const Array& array : arrays_)
      test_stream().copy(array.memory.data(), array.begin.data(), array.begin.size());
    test_stream().synchronize();
  }
  void run() const {
    body_(test_stream());
    test_stream().synchronize();
  }
  using Bytes = std::vector<std::byte>;
  std::vector<Bytes> results() const {
    std::vector<Bytes> all;
    for (const Array& array : arrays_)
      if (array.is_result) {
        Bytes& bytes = all.emplace_back(array.begin.size());
        test_stream().copy(bytes.data(), array.memory.data(), bytes.size());
      }
    test_stream().synchronize();
    return all;
  }

  const std::string& operation() const { return operation_; }
  std::string type() const { return to_string(dtype_); }
  std::string shape() const {
    return rows_ == 1 ? std::to_string(columns_) : fmt::format("{} × {}", rows_, columns_);
  }
  std::int64_t elements() const { return rows_ * columns_; }
  /// Bytes.
  std::int64_t least() const { return least_; }

 private:
  struct Array {
    Bytes begin;
    Buffer memory;
    bool is_result;
  };

  void* add(DType dtype, std::int64_t count, std::int64_t times, bool is_result) {
    const auto bytes = static_cast<std::size_t>(count) * size_of(dtype);
    least_ += times * static_cast<std::int64_t>(bytes);
    const StreamScope scope(test_stream());
    Array& array = arrays_.emplace_back(Array{
        Bytes(bytes), allocate(bytes, test_stream().device(), Purpose::workspace), is_result});
    fill(array.begin, dtype);
    return array.memory.data();
  }
  /// Numbers in (0, 1), which every operation takes; their period has no divisor in common with
  /// rows.
  void fill(Bytes& bytes, DType dtype) {
    if (dtype == DType::int32 || dtype == DType::int64) return;
    constexpr std::size_t kPeriod = 4099;
    const RandomStream random(arrays_.size(), 0);
    std::vector<float> numbers;
    for (std::size_t i = 0; i < kPeriod; ++i) numbers.push_back(random.uniform(i));
    Bytes period(kPeriod * size_of(dtype));
    convert(numbers.data(), DType::fp32, period.data(), dtype, kPeriod);
    for (std::size_t at = 0; at < bytes.size(); at += period.size())
      std::memcpy(bytes.data() + at, period.data(), std::min(period.size(), bytes.size() - at));
  }

  std::string operation_;
  DType dtype_;
  std::int64_t rows_, columns_;
  std::int64_t least_ = 0;
  std::vector<Array> arrays_;
  std::function<void(const Stream&)> body_;
};

}  // namespace tessera::testing
