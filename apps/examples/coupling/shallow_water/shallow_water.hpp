// SPDX-License-Identifier: Apache-2.0
// The shallow water equations on a periodic square, by first-order finite volumes with Rusanov's
// flux. Rows are divided over the ranks of a communicator. Units: gravity and mean depth are 1.
#pragma once

#include <array>
#include <vector>

#include <mpi.h>

/// Depth and momenta, or their fluxes, seen from a face: along its normal first.
using Water = std::array<double, 3>;  // h, h u_normal, h u_tangential

/// One value for every face that this rank needs: x(j, i) lies left of cell i in row j, y(j, i)
/// below row j, where j goes one further.
struct Faces {
  Faces(int cells, int rows) : cells(cells), rows(rows), x(at(rows, 0)), y(at(rows + 1, 0)) {}
  std::size_t at(int j, int i) const { return static_cast<std::size_t>(j) * cells + i; }

  int cells, rows;
  std::vector<Water> x, y;
};

class ShallowWater {
 public:
  /// `cells` squared on all ranks together, of which this one has `rows`, in the order of ranks.
  ShallowWater(MPI_Comm communicator, int cells, int first_row, int rows);

  int cells() const { return cells_; }
  int rows() const { return rows_; }
  int first_row() const { return first_row_; }
  double width() const { return 1.0 / cells_; }
  /// h, h u, h v of a cell; up to two cells beyond the rows and columns after exchange().
  Water& at(int j, int i) { return state_[index(j, i)]; }
  const Water& at(int j, int i) const { return state_[index(j, i)]; }

  /// Copies what lies beyond the edges from where it belongs. Collective.
  void exchange();
  /// Cells -2 … 1 around a face, each in the face's directions. After exchange().
  std::array<Water, 4> around_x(int j, int i) const;
  std::array<Water, 4> around_y(int j, int i) const;
  /// Rusanov's fluxes. After exchange().
  Faces fluxes() const;
  /// One explicit step with these fluxes.
  void advance(double time_step, const Faces& flux);
  /// Largest speed of a wave. Collective.
  double fastest() const;
  /// Of the depth, per unit of area. Collective.
  double mass() const;

 private:
  std::size_t index(int j, int i) const {
    return static_cast<std::size_t>(j + 2) * (cells_ + 4) + (i + 2);
  }

  MPI_Comm communicator_;
  int cells_, first_row_, rows_;
  std::vector<Water> state_;
};

Water rusanov(const Water& left, const Water& right);

/// The means of a solution over squares of ratio x ratio cells.
void coarsen(const ShallowWater& fine, ShallowWater& coarse);
