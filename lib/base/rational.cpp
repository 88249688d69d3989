// SPDX-License-Identifier: Apache-2.0
// Exact fractions: every operation reduces before it multiplies, so that it overflows late.
#include "tessera/base/rational.hpp"

#include <numeric>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/shape.hpp"

namespace tessera {

Rational::Rational(std::int64_t numerator, std::int64_t denominator) {
  TESSERA_CHECK(denominator != 0, Code::invalid_argument,
                fmt::format("the fraction {}/0 has no value", numerator));
  const std::int64_t common = std::gcd(numerator, denominator) * (denominator < 0 ? -1 : 1);
  numerator_ = numerator / common;
  denominator_ = denominator / common;
}

std::string Rational::to_string() const {
  return denominator_ == 1 ? fmt::format("{}", numerator_)
                           : fmt::format("{}/{}", numerator_, denominator_);
}

Rational operator+(const Rational& a, const Rational& b) {
  const std::int64_t common = std::gcd(a.denominator_, b.denominator_);
  const std::int64_t left = checked_multiply(a.numerator_, b.denominator_ / common);
  const std::int64_t right = checked_multiply(b.numerator_, a.denominator_ / common);
  return {checked_add(left, right), checked_multiply(a.denominator_ / common, b.denominator_)};
}

Rational operator-(const Rational& a, const Rational& b) {
  return a + b * Rational(-1);
}

Rational operator*(const Rational& a, const Rational& b) {
  const Rational x(a.numerator_, b.denominator_);
  const Rational y(b.numerator_, a.denominator_);
  return {checked_multiply(x.numerator_, y.numerator_),
          checked_multiply(x.denominator_, y.denominator_)};
}

Rational operator/(const Rational& a, const Rational& b) {
  return a * Rational(b.denominator_, b.numerator_);
}

std::strong_ordering operator<=>(const Rational& a, const Rational& b) {
  using Wide = __int128;  // two 64-bit factors always fit
  return static_cast<Wide>(a.numerator_) * b.denominator_ <=>
         static_cast<Wide>(b.numerator_) * a.denominator_;
}

}  // namespace tessera
