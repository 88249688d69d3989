// SPDX-License-Identifier: Apache-2.0
#include "dam_break.hpp"

#include <cmath>

#include "shallow_water.hpp"

namespace {

constexpr double kDeep = 1, kShallow = 0.2, kTime = 0.1;

// Depth between the waves (Stoker 1957): where what the rarefaction on the left and the shock on
// the right say of the velocity agrees.
double middle_depth() {
  double low = kShallow, high = kDeep;
  for (int i = 0; i < 100; ++i) {
    const double h = (low + high) / 2;
    const double rarefaction = 2 * (std::sqrt(kDeep) - std::sqrt(h));
    const double shock = (h - kShallow) * std::sqrt((h + kShallow) / (2 * h * kShallow));
    (rarefaction > shock ? low : high) = h;
  }
  return low;
}

// Depth at `x` from the dam after kTime.
double exact_depth(double x) {
  const double h = middle_depth(), u = 2 * (std::sqrt(kDeep) - std::sqrt(h));
  const double speed = x / kTime, shock = h * u / (h - kShallow);
  if (speed < -std::sqrt(kDeep)) return kDeep;
  if (speed < u - std::sqrt(h)) return std::pow((2 * std::sqrt(kDeep) - speed) / 3, 2);
  return speed < shock ? h : kShallow;
}

// Mean error of the depth around the dam in the middle; the one at the periodic edge is far away.
double error(MPI_Comm communicator, int cells) {
  int rank = 0, ranks = 1;
  MPI_Comm_rank(communicator, &rank);
  MPI_Comm_size(communicator, &ranks);
  const int rows = 2;  // all alike
  ShallowWater water(communicator, cells, rows * rank, rows);
  for (int j = 0; j < rows; ++j)
    for (int i = 0; i < cells; ++i) water.at(j, i)[0] = 2 * i < cells ? kDeep : kShallow;
  const int steps = static_cast<int>(kTime * 2 * cells / 0.4);
  for (int step = 0; step < steps; ++step) {
    water.exchange();
    water.advance(kTime / steps, water.fluxes());
  }
  double sum = 0;
  for (int i = cells / 4; i < 3 * cells / 4; ++i)
    sum += std::abs(water.at(0, i)[0] - exact_depth((i + 0.5) / cells - 0.5)) / cells;
  return sum;
}

}  // namespace

double dam_break_order(MPI_Comm communicator) {
  return std::log2(error(communicator, 100) / error(communicator, 200));
}
