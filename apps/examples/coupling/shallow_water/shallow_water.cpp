// SPDX-License-Identifier: Apache-2.0
#include "shallow_water.hpp"

#include <algorithm>
#include <cmath>

namespace {

Water swapped(const Water& water) {
  return {water[0], water[2], water[1]};
}

double speed(const Water& water) {
  return std::sqrt(water[0]);
}

Water physical_flux(const Water& water) {
  const double velocity = water[1] / water[0];
  return {water[1], water[1] * velocity + 0.5 * water[0] * water[0], water[2] * velocity};
}

}  // namespace

Water rusanov(const Water& left, const Water& right) {
  const double wave = std::max(std::abs(left[1] / left[0]) + speed(left),
                               std::abs(right[1] / right[0]) + speed(right));
  const Water a = physical_flux(left), b = physical_flux(right);
  Water flux;
  for (int k = 0; k < 3; ++k) flux[k] = 0.5 * (a[k] + b[k]) - 0.5 * wave * (right[k] - left[k]);
  return flux;
}

ShallowWater::ShallowWater(MPI_Comm communicator, int cells, int first_row, int rows)
    : communicator_(communicator),
      cells_(cells),
      first_row_(first_row),
      rows_(rows),
      state_(static_cast<std::size_t>(rows + 4) * (cells + 4), Water{1, 0, 0}) {}

void ShallowWater::exchange() {
  for (int j = 0; j < rows_; ++j)
    for (int i = 0; i < 2; ++i) {
      at(j, cells_ + i) = at(j, i);
      at(j, i - 2) = at(j, cells_ + i - 2);
    }
  int rank = 0, ranks = 1;
  MPI_Comm_rank(communicator_, &rank);
  MPI_Comm_size(communicator_, &ranks);
  const int below = (rank + ranks - 1) % ranks, above = (rank + 1) % ranks;
  const int count = 2 * 3 * (cells_ + 4);
  MPI_Sendrecv(&at(rows_ - 2, -2), count, MPI_DOUBLE, above, 0, &at(-2, -2), count, MPI_DOUBLE,
               below, 0, communicator_, MPI_STATUS_IGNORE);
  MPI_Sendrecv(&at(0, -2), count, MPI_DOUBLE, below, 1, &at(rows_, -2), count, MPI_DOUBLE, above, 1,
               communicator_, MPI_STATUS_IGNORE);
}

std::array<Water, 4> ShallowWater::around_x(int j, int i) const {
  return {at(j, i - 2), at(j, i - 1), at(j, i), at(j, i + 1)};
}

std::array<Water, 4> ShallowWater::around_y(int j, int i) const {
  return {swapped(at(j - 2, i)), swapped(at(j - 1, i)), swapped(at(j, i)), swapped(at(j + 1, i))};
}

Faces ShallowWater::fluxes() const {
  Faces flux(cells_, rows_);
  for (int j = 0; j <= rows_; ++j)
    for (int i = 0; i < cells_; ++i) {
      if (j < rows_) flux.x[flux.at(j, i)] = rusanov(at(j, i - 1), at(j, i));
      flux.y[flux.at(j, i)] = rusanov(swapped(at(j - 1, i)), swapped(at(j, i)));
    }
  return flux;
}

void ShallowWater::advance(double time_step, const Faces& flux) {
  const double ratio = time_step / width();
  for (int j = 0; j < rows_; ++j)
    for (int i = 0; i < cells_; ++i) {
      const Water& left = flux.x[flux.at(j, i)];
      const Water& right = flux.x[flux.at(j, (i + 1) % cells_)];
      const Water below = swapped(flux.y[flux.at(j, i)]);
      const Water above = swapped(flux.y[flux.at(j + 1, i)]);
      Water& cell = at(j, i);
      for (int k = 0; k < 3; ++k) cell[k] -= ratio * (right[k] - left[k] + above[k] - below[k]);
    }
}

double ShallowWater::fastest() const {
  double result = 0;
  for (int j = 0; j < rows_; ++j)
    for (int i = 0; i < cells_; ++i) {
      const Water& cell = at(j, i);
      const double flow = std::max(std::abs(cell[1]), std::abs(cell[2])) / cell[0];
      result = std::max(result, flow + speed(cell));
    }
  MPI_Allreduce(MPI_IN_PLACE, &result, 1, MPI_DOUBLE, MPI_MAX, communicator_);
  return result;
}

double ShallowWater::mass() const {
  double result = 0;
  for (int j = 0; j < rows_; ++j)
    for (int i = 0; i < cells_; ++i) result += at(j, i)[0] * width() * width();
  MPI_Allreduce(MPI_IN_PLACE, &result, 1, MPI_DOUBLE, MPI_SUM, communicator_);
  return result;
}

void coarsen(const ShallowWater& fine, ShallowWater& coarse) {
  const int ratio = fine.cells() / coarse.cells();
  for (int j = 0; j < coarse.rows(); ++j)
    for (int i = 0; i < coarse.cells(); ++i) {
      Water mean{};
      for (int b = 0; b < ratio; ++b)
        for (int a = 0; a < ratio; ++a)
          for (int k = 0; k < 3; ++k)
            mean[k] += fine.at(j * ratio + b, i * ratio + a)[k] / (ratio * ratio);
      coarse.at(j, i) = mean;
    }
}
