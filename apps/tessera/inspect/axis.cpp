// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/axis.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace tessera::app {
namespace {

constexpr int kUsualTicks = 5;
constexpr double kLargest = 1e300, kSmallest = 1e-300;

// Where only integers are marked, steps are integers.
double step_of(double range, int count, bool whole) {
  const double step = round_step(range, count);
  return whole ? std::max(1.0, step) : step;
}

// "1.50" -> "1.5", "2.0" -> "2"
std::string without_zeros(std::string text) {
  if (text.find('.') == std::string::npos) return text;
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text;
}

}  // namespace

double round_step(double range, int count) {
  if (!(range > 0) || !std::isfinite(range)) return 1;
  const double least = range / std::max(1, count);
  const double power = std::pow(10.0, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

std::string tick_label(double value, double step, double largest) {
  if (std::abs(value) < step * 1e-6) return "0";
  const int power = static_cast<int>(std::floor(std::log10(largest) + 1e-9));
  double divisor = 1;
  std::string unit;
  if (power < -2 || power > 14) {
    divisor = std::pow(10.0, power);
    unit = fmt::format("e{}", power);
  } else if (power >= 4) {
    const int thousands = power / 3;
    divisor = std::pow(1000.0, thousands);
    unit = std::string(1, " kMGT"[thousands]);
  }
  const double decimals = std::ceil(-std::log10(step / divisor) - 1e-9);
  const int shown = static_cast<int>(std::clamp(decimals, 0.0, 9.0));
  return without_zeros(fmt::format("{:.{}f}", value / divisor, shown)) + unit;
}

Axis::Axis(double low, double high, Scale scale) : low_(low), high_(high), scale_(scale) {
  if (!std::isfinite(low_) || !std::isfinite(high_) || low_ > high_) low_ = 0, high_ = 1;
  // Room for the arithmetic below.
  low_ = std::clamp(low_, -kLargest, kLargest);
  high_ = std::clamp(high_, -kLargest, kLargest);
  if (scale_ == Scale::logarithmic) {
    low_ = std::max(low_, kSmallest);
    if (low_ >= high_) low_ /= 2, high_ = 4 * low_;
    return;
  }
  // A range that rounding swallows would have ticks on top of each other.
  const double room = std::max(std::abs(low_), std::abs(high_)) * 1e-9;
  if (high_ - low_ > room + kSmallest) return;
  const double half = std::abs(high_) / 10;
  low_ -= half;
  high_ += half <= kSmallest ? 1 : half;
}

Axis Axis::rounded() const {
  if (scale_ == Scale::logarithmic) {
    // To the next of 1, 2, 5 times a power of ten.
    const auto outwards = [](double value, bool up) {
      const double power = std::pow(10.0, std::floor(std::log10(value)));
      double best = up ? 10 * power : power;
      for (const double factor : {1.0, 2.0, 5.0})
        if (up && factor * power >= value)
          return factor * power;
        else if (!up && factor * power <= value)
          best = factor * power;
      return best;
    };
    return {outwards(low_, false), outwards(high_, true), scale_};
  }
  const double step = round_step(high_ - low_, kUsualTicks);
  return {std::floor(low_ / step + 1e-9) * step, std::ceil(high_ / step - 1e-9) * step, scale_};
}

double Axis::position(double value) const {
  if (scale_ == Scale::logarithmic) return std::log(value / low_) / std::log(high_ / low_);
  return (value - low_) / (high_ - low_);
}

std::vector<Tick> Axis::ticks(int count, bool whole) const {
  return scale_ == Scale::logarithmic ? logarithmic_ticks() : linear_ticks(count, whole);
}

std::vector<Tick> Axis::linear_ticks(int count, bool whole) const {
  std::vector<Tick> ticks;
  const double step = step_of(high_ - low_, count, whole);
  const double largest = std::max(std::abs(low_), std::abs(high_));
  for (double n = std::ceil(low_ / step - 1e-9); n * step <= high_ + step * 1e-9; ++n)
    ticks.push_back({n * step, tick_label(n * step, step, largest)});
  return ticks;
}

std::vector<Tick> Axis::logarithmic_ticks() const {
  std::vector<Tick> ticks;
  const double decades = std::log10(high_ / low_);
  const double stride = std::ceil(decades / 6);  // powers of ten between two ticks
  for (double power = std::floor(std::log10(low_)); power <= std::log10(high_) + 1e-9;
       power += stride)
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor > 1 && decades > 3) continue;
      const double value = factor * std::pow(10.0, power);
      if (value >= low_ * (1 - 1e-9) && value <= high_ * (1 + 1e-9))
        ticks.push_back({value, tick_label(value, value, value)});
    }
  return ticks;
}

}  // namespace tessera::app
