// SPDX-License-Identifier: Apache-2.0
// The scale of a chart's axis and the round numbers that are marked on it.
#pragma once

#include <string>
#include <vector>

namespace tessera::app {

struct Tick {
  double value;
  std::string label;
};

/// A range of numbers, linear or logarithmic. Where the range is empty or not finite, some room is
/// made around it.
class Axis {
 public:
  enum class Scale { linear, logarithmic };

  /// Logarithmic needs 0 < low.
  Axis(double low, double high, Scale scale = Scale::linear);
  /// The same with its ends moved outwards to ticks.
  Axis rounded() const;

  double low() const { return low_; }
  double high() const { return high_; }
  Scale scale() const { return scale_; }
  /// 0 at the low end, 1 at the high end.
  double position(double value) const;
  /// At round numbers, about `count` of them or fewer. With `whole` only at integers.
  std::vector<Tick> ticks(int count, bool whole = false) const;

 private:
  std::vector<Tick> linear_ticks(int count, bool whole) const;
  std::vector<Tick> logarithmic_ticks() const;

  double low_, high_;
  Scale scale_;
};

/// 1, 2 or 5 times a power of ten, so that `range` has at most `count` of them (at least 1).
double round_step(double range, int count);

/// 0.25, 12, 20k, 1.5M, 3e-4: as many digits as multiples of `step` need, in a unit that suits
/// `largest`, which all labels of an axis share.
std::string tick_label(double value, double step, double largest);

}  // namespace tessera::app
