// SPDX-License-Identifier: Apache-2.0
// A simulation that trains while it runs:
//
//   mpirun -n 4 shallow_water [FOLDER [EPISODES]]
//
// A fine grid is expensive, a coarse one wrong. While the fine solver computes some sloshing of
// water, the fluxes that a coarse solver misses are learned from it, step by step, on the ranks and
// in the memory of the solver. Then both coarse solvers, with and without the network, compute
// water that was not seen before. Called again, the program goes on learning from the checkpoint in
// FOLDER.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "dam_break.hpp"
#include "flux_closure.hpp"
#include "picture.hpp"
#include "shallow_water.hpp"

namespace {

constexpr int kCells = 48, kRatio = 4, kSteps = 80;
constexpr double kCourant = 0.4, kFastest = 2.0;  // no wave of these flows is faster
constexpr double kTimeStep = kCourant / kFastest / kCells;

// Some humps of water at rest, the same for the same seed on any number of ranks.
void pour(ShallowWater& water, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int j = 0; j < water.rows(); ++j)
    for (int i = 0; i < water.cells(); ++i) water.at(j, i) = {1, 0, 0};
  for (int hump = 0; hump < 4; ++hump) {
    const double x = uniform(random), y = uniform(random);
    const double height = 0.1 + 0.4 * uniform(random), size = 0.04 + 0.06 * uniform(random);
    for (int j = 0; j < water.rows(); ++j)
      for (int i = 0; i < water.cells(); ++i) {
        const double dx = std::remainder((i + 0.5) * water.width() - x, 1);
        const double dy = std::remainder((water.first_row() + j + 0.5) * water.width() - y, 1);
        water.at(j, i)[0] += height * std::exp(-(dx * dx + dy * dy) / (2 * size * size));
      }
  }
}

// A coarse time step on the fine grid; the mean fluxes through the faces of the coarse one.
Faces fine_step(ShallowWater& fine, int cells, int rows) {
  Faces mean(cells, rows);
  const double share = 1.0 / (kRatio * kRatio);
  for (int part = 0; part < kRatio; ++part) {
    fine.exchange();
    const Faces flux = fine.fluxes();
    for (int j = 0; j <= rows; ++j)
      for (int i = 0; i < cells; ++i)
        for (int n = 0; n < kRatio; ++n)
          for (int k = 0; k < 3; ++k) {
            if (j < rows)
              mean.x[mean.at(j, i)][k] += share * flux.x[flux.at(j * kRatio + n, i * kRatio)][k];
            mean.y[mean.at(j, i)][k] += share * flux.y[flux.at(j * kRatio, i * kRatio + n)][k];
          }
    fine.advance(kTimeStep / kRatio, flux);
  }
  return mean;
}

void subtract(Faces& from, const Faces& flux) {
  for (std::size_t f = 0; f < from.x.size(); ++f)
    for (int k = 0; k < 3; ++k) from.x[f][k] -= flux.x[f][k];
  for (std::size_t f = 0; f < from.y.size(); ++f)
    for (int k = 0; k < 3; ++k) from.y[f][k] -= flux.y[f][k];
}

// Mean distance of the depths, over all ranks.
double distance(const ShallowWater& a, const ShallowWater& b, MPI_Comm communicator) {
  double sum = 0;
  for (int j = 0; j < a.rows(); ++j)
    for (int i = 0; i < a.cells(); ++i) sum += std::abs(a.at(j, i)[0] - b.at(j, i)[0]);
  MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, communicator);
  return sum * a.width() * a.width();
}

class Program {
 public:
  Program(tessera::Runtime& runtime, MPI_Comm communicator, std::string folder)
      : communicator_(communicator),
        speaks_(runtime.rank() == 0),
        folder_(std::move(folder)),
        first_(kCells * runtime.rank() / runtime.size()),
        rows_(kCells * (runtime.rank() + 1) / runtime.size() - first_),
        closure_(runtime) {}

  void train(int episodes) {
    closure_.resume(folder_ + "/checkpoints");
    const int done = closure_.steps() / kSteps;
    if (done == 0)
      simulate(1,
               [&](const auto& coarse, const auto& wanted) { closure_.observe(coarse, wanted); });
    for (int episode = done + 1; episode <= done + episodes; ++episode) {
      double loss = 0;
      simulate(static_cast<unsigned>(episode), [&](const auto& coarse, const auto& wanted) {
        loss += closure_.learn(coarse, wanted) / kSteps;
      });
      if (speaks_) std::printf("episode %3d  loss %.5f\n", episode, loss);
    }
    closure_.save(folder_ + "/checkpoints");
  }

  /// Returns the ratio of the errors at the end: with the network over without it.
  double compare() {
    ShallowWater fine = grid(kRatio), truth = grid(1), plain = grid(1), corrected = grid(1);
    pour(fine, 0);  // which no episode has
    coarsen(fine, plain);
    coarsen(fine, corrected);
    const double mass = corrected.mass();
    if (speaks_) std::printf("\n   time   error alone   with the network\n");
    double alone = 0, helped = 0;
    for (int step = 1; step <= kSteps; ++step) {
      fine_step(fine, kCells, rows_);
      plain.exchange();
      plain.advance(kTimeStep, plain.fluxes());
      corrected.exchange();
      Faces flux = corrected.fluxes();
      closure_.correct(corrected, flux);
      corrected.advance(kTimeStep, flux);
      if (step % (kSteps / 8) != 0) continue;
      coarsen(fine, truth);
      alone = distance(plain, truth, communicator_);
      helped = distance(corrected, truth, communicator_);
      if (speaks_) std::printf("  %5.3f   %11.6f   %16.6f\n", step * kTimeStep, alone, helped);
    }
    const double lost = std::abs(corrected.mass() - mass);
    if (speaks_) std::printf("error x %.2f; water lost: %.1e\n", helped / alone, lost);
    write_picture(folder_ + "/depth.ppm", {&truth, &plain, &corrected}, communicator_);
    if (speaks_)
      std::printf("%s/depth.ppm: fine grid | coarse grid | coarse grid with the network\n",
                  folder_.c_str());
    return lost < 1e-10 ? helped / alone : 1e30;
  }

 private:
  // Runs the fine solver; each coarse step `visit` sees its state on the coarse grid and the
  // corrections of fluxes that a coarse solver would have needed.
  template <typename Visit>
  void simulate(unsigned seed, Visit&& visit) {
    ShallowWater fine = grid(kRatio), coarse = grid(1);
    pour(fine, seed);
    for (int step = 0; step < kSteps; ++step) {
      coarsen(fine, coarse);
      coarse.exchange();
      Faces wanted = fine_step(fine, kCells, rows_);
      subtract(wanted, coarse.fluxes());
      visit(coarse, wanted);
    }
  }

  ShallowWater grid(int ratio) const {
    return {communicator_, ratio * kCells, ratio * first_, ratio * rows_};
  }

  MPI_Comm communicator_;
  bool speaks_;
  std::string folder_;
  int first_, rows_;
  FluxClosure closure_;
};

int run(MPI_Comm communicator, const std::string& folder, int episodes) {
  tessera::Runtime runtime(communicator);
  const double order = dam_break_order(communicator);
  if (runtime.rank() == 0) {
    std::printf("dam break against the exact solution: order %.2f\n", order);
    std::filesystem::create_directories(folder);
  }
  Program program(runtime, communicator, folder);
  program.train(episodes);
  return program.compare() < 0.5 && order > 0.5 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int result = 1;
  try {
    result = run(MPI_COMM_WORLD, argc > 1 ? argv[1] : "shallow-water",
                 argc > 2 ? std::atoi(argv[2]) : 20);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return result;
}
