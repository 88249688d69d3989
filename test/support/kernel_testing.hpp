// SPDX-License-Identifier: Apache-2.0
// Helpers of kernel tests: typed arrays with fp64 views, tolerances, numeric gradients.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/dtype.hpp"
#include "tessera/base/random.hpp"

namespace tessera::testing {

using Doubles = std::vector<double>;

/// Elements of one DType; values() is what the kernel sees, in fp64, so that a reference starts
/// from the rounded input.
class TypedArray {
 public:
  TypedArray(DType dtype, std::size_t count)
      : dtype_(dtype), count_(count), bytes_(count * size_of(dtype)) {}
  TypedArray(DType dtype, const Doubles& values) : TypedArray(dtype, values.size()) {
    convert(values.data(), DType::fp64, bytes_.data(), dtype, count_);
  }

  void* data() { return bytes_.data(); }
  const void* data() const { return bytes_.data(); }
  template <typename T>
  T* as() {
    return static_cast<T*>(data());
  }
  std::size_t size() const { return count_; }
  DType dtype() const { return dtype_; }
  Doubles values() const {
    Doubles result(count_);
    convert(bytes_.data(), dtype_, result.data(), DType::fp64, count_);
    return result;
  }
  /// Equal bit for bit, NaN included.
  bool operator==(const TypedArray& other) const { return bytes_ == other.bytes_; }

 private:
  DType dtype_;
  std::size_t count_;
  std::vector<unsigned char> bytes_;
};

/// Standard normal numbers times `scale`, the same in every run.
inline Doubles random_doubles(std::int64_t count, std::uint64_t seed, double scale = 1) {
  const RandomStream random(seed, 0);
  Doubles result(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < result.size(); ++i)
    result[i] = scale * static_cast<double>(random.normal(i));
  return result;
}

inline TypedArray random_array(DType dtype, std::int64_t count, std::uint64_t seed,
                               double scale = 1) {
  return {dtype, random_doubles(count, seed, scale)};
}

/// An array that shows when elements are not written or are written outside.
inline TypedArray filled_array(DType dtype, std::int64_t count, double value) {
  return {dtype, Doubles(static_cast<std::size_t>(count), value)};
}

/// Allowed error relative to the largest expected magnitude, for a result that is stored as `dtype`
/// after a short computation in fp32. Longer ones multiply it.
inline double tolerance(DType dtype) {
  switch (dtype) {
    case DType::fp64:
      return 1e-14;
    case DType::fp32:
      return 1e-6;
    case DType::bf16:
      return 0x1p-8;  // half a unit in the last place is 2^-9
    default:
      return 0x1p-11;
  }
}

/// Largest |actual - expected| over the largest |expected|; a NaN anywhere gives infinity.
inline double relative_error(const Doubles& actual, const Doubles& expected) {
  double error = 0, largest = std::numeric_limits<double>::min();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(actual[i] - expected[i]);
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    error = std::max(error, difference);
    largest = std::max(largest, std::abs(expected[i]));
  }
  return error / largest;
}

/// `factor` widens tolerance(actual.dtype()).
inline void expect_close(const TypedArray& actual, const Doubles& expected, double factor = 1,
                         const std::string& what = "") {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  EXPECT_LE(relative_error(actual.values(), expected), factor * tolerance(actual.dtype())) << what;
}

/// Central differences of a scalar function of x in fp64: function(Doubles) -> double.
template <typename Function>
Doubles numeric_gradient(Function&& function, Doubles x, double step = 1e-5) {
  Doubles gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double center = x[i];
    x[i] = center + step;
    const double above = function(x);
    x[i] = center - step;
    const double below = function(x);
    x[i] = center;
    gradient[i] = (above - below) / (2 * step);
  }
  return gradient;
}

/// Sum of a[i] * b[i]: turns a vector-valued reference into the scalar whose gradient is dy.
inline double dot(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Runs a scope with a number of OpenMP threads.
class WithThreads {
 public:
  explicit WithThreads(int count) : before_(threads()) { set_threads(count); }
  ~WithThreads() { set_threads(before_); }
  WithThreads(const WithThreads&) = delete;
  WithThreads& operator=(const WithThreads&) = delete;

 private:
  int before_;
};

/// Close to the largest number of the type.
inline double large_number(DType dtype) {
  return dtype == DType::fp16 ? 65000 : 3e38;
}

/// For INSTANTIATE_TEST_SUITE_P over the kernels' element types.
inline auto kernel_types() {
  return ::testing::Values(DType::fp32, DType::bf16, DType::fp16);
}
inline std::string type_name(const ::testing::TestParamInfo<DType>& info) {
  return to_string(info.param);
}

}  // namespace tessera::testing
