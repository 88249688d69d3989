// SPDX-License-Identifier: Apache-2.0
// Exact fractions, for formulas that a test compares without tolerance.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

namespace tessera {

/// numerator / denominator in 64 bits, always reduced, the denominator positive. Arithmetic throws
/// invalid_argument when a result does not fit or a denominator is zero.
class Rational {
 public:
  constexpr Rational(std::int64_t whole = 0) : numerator_(whole) {}  // a whole number is a fraction
  Rational(std::int64_t numerator, std::int64_t denominator);

  std::int64_t numerator() const { return numerator_; }
  std::int64_t denominator() const { return denominator_; }
  double value() const {
    return static_cast<double>(numerator_) / static_cast<double>(denominator_);
  }
  /// "57/2"; "3" when it is whole.
  std::string to_string() const;

  friend Rational operator+(const Rational& a, const Rational& b);
  friend Rational operator-(const Rational& a, const Rational& b);
  friend Rational operator*(const Rational& a, const Rational& b);
  friend Rational operator/(const Rational& a, const Rational& b);
  friend bool operator==(const Rational& a, const Rational& b) = default;
  friend std::strong_ordering operator<=>(const Rational& a, const Rational& b);

 private:
  std::int64_t numerator_ = 0;
  std::int64_t denominator_ = 1;
};

}  // namespace tessera
