// SPDX-License-Identifier: Apache-2.0
// The solver of solver.c in C++: it trains a surrogate of its expensive reaction rate while it
// runs.
#include <cmath>
#include <cstdio>
#include <exception>
#include <vector>

#include "tessera/comm/runtime.hpp"
#include "tessera/engine/guest_config.hpp"
#include "tessera/engine/learner.hpp"

constexpr int kCells = 256, kSteps = 800;
constexpr const char* kConfig =
    "model: {model_type: mlp, layer_sizes: [2, 32, 32, 1], activation: tanh,\n"
    "        normalize_inputs: true, normalize_outputs: true}\n"
    "engine: {optimizer: {type: Adam, params: {lr: 5e-3}}}\n";

/// What the surrogate shall replace: the rate at a concentration and a temperature.
float reaction(float u, float kelvin) {
  return u * (1 - u) * std::exp(-1000 / kelvin);
}

int run(MPI_Comm communicator) {
  tessera::Runtime runtime(communicator);
  tessera::engine::Learner surrogate(runtime.world(),
                                     tessera::engine::read_guest_config(kConfig, runtime));

  // The solver's own arrays, [cells, 2] and [cells].
  std::vector<float> state(2 * kCells), rate(kCells);
  const auto inputs = tessera::Tensor::borrow(state.data(), {kCells, 2}, tessera::DType::fp32);
  const auto targets = tessera::Tensor::borrow(rate.data(), {kCells}, tessera::DType::fp32);

  for (int step = 0; step < kSteps; ++step) {
    for (int i = 0; i < kCells; ++i) {
      const float x = (i + 0.5f) / kCells, t = 0.01f * step;
      float* cell = &state[2 * i];
      cell[0] = 0.5f + 0.5f * std::sin(6 * x + t + runtime.rank());
      cell[1] = 700 + 300 * std::cos(9 * x - 2 * t);
      rate[i] = reaction(cell[0], cell[1]);
    }
    if (step % 100 == 0) surrogate.observe(inputs, targets);
    const auto outcome = surrogate.train_step(inputs, targets);
    if (runtime.rank() == 0 && step % 100 == 0)
      std::printf("step %3d  loss %.6f\n", step, outcome.loss);
  }

  const tessera::Tensor outputs = surrogate.predict(inputs);
  float largest = 0;
  for (int i = 0; i < kCells; ++i)
    largest = std::fmax(largest, std::fabs(outputs.as<float>()[i] - rate[i]));
  if (runtime.rank() == 0) std::printf("largest error %.5f of rates up to 0.09\n", largest);
  surrogate.engine().save_checkpoint(".", {.tag = "surrogate", .client_state = "{\"time\": 8.0}"});
  return largest < 0.01f ? 0 : 1;
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int result = 1;
  try {
    result = run(MPI_COMM_WORLD);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return result;
}
