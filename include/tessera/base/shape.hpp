// SPDX-License-Identifier: Apache-2.0
// Sizes of a contiguous row-major array, and 64-bit arithmetic that refuses to overflow.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace tessera {

/// a * b, a + b; throw invalid_argument naming both values when the result does not fit 64 bits.
std::int64_t checked_multiply(std::int64_t a, std::int64_t b);
std::int64_t checked_add(std::int64_t a, std::int64_t b);

constexpr std::int64_t ceil_divide(std::int64_t a, std::int64_t b) {
  return a / b + (a % b > 0 ? 1 : 0);
}
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) {
  return ceil_divide(a, b) * b;
}

/// Dimensions, slowest first. A scalar has none. Negative sizes are refused.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) : Shape(std::vector<std::int64_t>(sizes)) {}
  explicit Shape(std::vector<std::int64_t> sizes);

  int rank() const { return static_cast<int>(sizes_.size()); }
  /// Size of dimension i; negative i counts from the last.
  std::int64_t operator[](int i) const;
  std::int64_t numel() const { return numel_; }
  const std::vector<std::int64_t>& sizes() const { return sizes_; }
  bool operator==(const Shape& other) const { return sizes_ == other.sizes_; }
  /// "[4, 256, 384]"
  std::string to_string() const;

 private:
  std::vector<std::int64_t> sizes_;
  std::int64_t numel_ = 1;
};

}  // namespace tessera
