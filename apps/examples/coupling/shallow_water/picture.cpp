// SPDX-License-Identifier: Apache-2.0
#include "picture.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>

namespace {

constexpr int kPixels = 6;  // of a cell's edge
constexpr double kLow = 0.9, kHigh = 1.25;

// All rows of a grid, on rank 0.
std::vector<double> gather_depths(const ShallowWater& grid, MPI_Comm communicator) {
  int rank = 0, ranks = 1;
  MPI_Comm_rank(communicator, &rank);
  MPI_Comm_size(communicator, &ranks);
  std::vector<double> mine;
  for (int j = 0; j < grid.rows(); ++j)
    for (int i = 0; i < grid.cells(); ++i) mine.push_back(grid.at(j, i)[0]);
  const int count = static_cast<int>(mine.size());
  std::vector<int> counts(ranks), begins(ranks);
  MPI_Gather(&count, 1, MPI_INT, counts.data(), 1, MPI_INT, 0, communicator);
  for (int r = 1; r < ranks; ++r) begins[r] = begins[r - 1] + counts[r - 1];
  std::vector<double> all(rank == 0 ? static_cast<std::size_t>(grid.cells()) * grid.cells() : 0);
  MPI_Gatherv(mine.data(), count, MPI_DOUBLE, all.data(), counts.data(), begins.data(), MPI_DOUBLE,
              0, communicator);
  return all;
}

std::string colour(double depth) {
  const double place = std::clamp((depth - kLow) / (kHigh - kLow), 0.0, 1.0);
  const auto part = [](double value) {
    return static_cast<char>(static_cast<unsigned char>(255 * std::clamp(value, 0.0, 1.0)));
  };
  return {part(2 * place), part(1 - std::abs(2 * place - 1)), part(2 - 2 * place)};
}

}  // namespace

void write_picture(const std::string& path, const std::vector<const ShallowWater*>& grids,
                   MPI_Comm communicator) {
  std::vector<std::vector<double>> depths;
  for (const ShallowWater* grid : grids) depths.push_back(gather_depths(*grid, communicator));
  if (depths.front().empty()) return;
  const int cells = grids.front()->cells(), edge = cells * kPixels;
  std::ofstream file(path, std::ios::binary);
  file << "P6\n" << edge * static_cast<int>(grids.size()) << ' ' << edge << "\n255\n";
  for (int y = 0; y < edge; ++y)
    for (const std::vector<double>& depth : depths)
      for (int x = 0; x < edge; ++x)
        file << colour(depth[static_cast<std::size_t>(y / kPixels) * cells + x / kPixels]);
}
