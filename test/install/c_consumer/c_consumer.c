// SPDX-License-Identifier: Apache-2.0
// The smallest program in C that trains with the installed library: it learns the sum of two
// numbers.
#include <stdio.h>
#include <stdlib.h>

#include "tessera/tessera.h"

static void check(tessera_code code) {
  if (code == TESSERA_OK) return;
  fprintf(stderr, "%s: %s\n", tessera_code_name(code), tessera_last_error());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  tessera_runtime* runtime = NULL;
  tessera_network* network = NULL;
  const tessera_network_options options = {
      .struct_size = sizeof options,
      .config =
          "model: {model_type: mlp, layer_sizes: [2, 1]}\n"
          "engine: {optimizer: {type: Adam, params: {lr: 0.05}}}\n"};
  check(tessera_runtime_create(MPI_COMM_WORLD, NULL, &runtime));
  check(tessera_network_create(runtime, &options, &network));

  double terms[64][2], sums[64], loss = 1;
  for (int i = 0; i < 64; ++i) {
    for (int j = 0; j < 2; ++j) terms[i][j] = rand() / (double)RAND_MAX;
    sums[i] = terms[i][0] + terms[i][1];
  }
  const tessera_array inputs = {.data = terms, .dtype = TESSERA_FP64, .rank = 2, .dims = {64, 2}};
  const tessera_array targets = {.data = sums, .dtype = TESSERA_FP64, .rank = 1, .dims = {64}};
  for (int step = 0; step < 400; ++step)
    check(tessera_network_train_step(network, &inputs, &targets, &loss));

  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank == 0) printf("Tessera %s: loss %g\n", tessera_version(), loss);
  check(tessera_network_destroy(&network));
  check(tessera_runtime_destroy(&runtime));
  MPI_Finalize();
  return loss < 1e-3 ? 0 : 1;
}
