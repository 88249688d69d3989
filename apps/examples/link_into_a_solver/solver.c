// SPDX-License-Identifier: Apache-2.0
// A solver in C that trains a surrogate of its expensive reaction rate while it runs.
#include <math.h>
#include <stdio.h>

#include "tessera/tessera.h"

enum { kCells = 256, kSteps = 800 };

static void check(tessera_code code) {
  if (code == TESSERA_OK) return;
  fprintf(stderr, "%s: %s\n", tessera_code_name(code), tessera_last_error());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

// What the surrogate shall replace: the rate at a concentration and a temperature.
static double reaction(double u, double kelvin) {
  return u * (1 - u) * exp(-1000 / kelvin);
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);

  tessera_runtime* runtime = NULL;
  tessera_network* surrogate = NULL;
  const tessera_network_options options = {
      .struct_size = sizeof options,
      .config =
          "model: {model_type: mlp, layer_sizes: [2, 32, 32, 1], activation: tanh,\n"
          "        normalize_inputs: true, normalize_outputs: true}\n"
          "engine: {optimizer: {type: Adam, params: {lr: 5e-3}}}\n"};
  check(tessera_runtime_create(MPI_COMM_WORLD, NULL, &runtime));
  check(tessera_network_create(runtime, &options, &surrogate));

  // The solver's own arrays; the network reads and writes them where they are.
  static double state[2][kCells], rate[kCells], predicted[kCells];
  const tessera_array inputs = {.data = state,  // a sample is state[0][i], state[1][i]
                                .dtype = TESSERA_FP64,
                                .rank = 2,
                                .dims = {kCells, 2},
                                .strides = {1, kCells}};
  const tessera_array targets = {.data = rate, .dtype = TESSERA_FP64, .rank = 1, .dims = {kCells}};
  const tessera_array outputs = {
      .data = predicted, .dtype = TESSERA_FP64, .rank = 1, .dims = {kCells}};

  double loss = 0;
  for (int step = 0; step < kSteps; ++step) {
    for (int i = 0; i < kCells; ++i) {
      const double x = (i + 0.5) / kCells, t = 0.01 * step;
      state[0][i] = 0.5 + 0.5 * sin(6 * x + t + rank);
      state[1][i] = 700 + 300 * cos(9 * x - 2 * t);
      rate[i] = reaction(state[0][i], state[1][i]);
    }
    if (step % 100 == 0) check(tessera_network_observe(surrogate, &inputs, &targets));
    check(tessera_network_train_step(surrogate, &inputs, &targets, &loss));
    if (rank == 0 && step % 100 == 0) printf("step %3d  loss %.6f\n", step, loss);
  }

  check(tessera_network_predict(surrogate, &inputs, &outputs));
  double largest = 0;
  for (int i = 0; i < kCells; ++i) largest = fmax(largest, fabs(predicted[i] - rate[i]));
  if (rank == 0) printf("largest error %.5f of rates up to 0.09\n", largest);
  check(tessera_network_save(surrogate, "surrogate.h5", "{\"time\": 8.0}"));

  check(tessera_network_destroy(&surrogate));
  check(tessera_runtime_destroy(&runtime));
  MPI_Finalize();
  return largest < 0.01 ? 0 : 1;
}
