// SPDX-License-Identifier: Apache-2.0
// A fit in C with arrays and gradients of its own; Tessera partitions the optimizer over the ranks.
#include <math.h>
#include <stdio.h>

#include "tessera/tessera.h"

static void check(tessera_code code) {
  if (code == TESSERA_OK) return;
  fprintf(stderr, "%s: %s\n", tessera_code_name(code), tessera_last_error());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  float w[8] = {0}, dw[8];  // to become 1, 2, …, 8

  tessera_runtime* runtime = NULL;
  tessera_optimizer* optimizer = NULL;
  const tessera_optimizer_options options = {.struct_size = sizeof options,
                                             .config =
                                                 "optimizer: {type: Adam, params: {lr: 0.1}}\n"
                                                 "zero_optimization: {stage: 2}\n",
                                             .reduction = TESSERA_MEAN};
  const tessera_array weights = {.data = w, .rank = 1, .dims = {8}};
  const tessera_array gradients = {.data = dw, .rank = 1, .dims = {8}};
  tessera_step result = {.struct_size = sizeof result};
  check(tessera_runtime_create(MPI_COMM_WORLD, NULL, &runtime));
  check(tessera_optimizer_create(runtime, &options, &optimizer));
  check(tessera_optimizer_add(optimizer, "w", &weights, &gradients, NULL));
  check(tessera_optimizer_commit(optimizer));

  for (int step = 0; step < 1000; ++step) {
    const double phase = 0.7 * step + rank;  // another sample on each rank
    double error = 0;
    for (int i = 0; i < 8; ++i) error += (w[i] - (i + 1)) * cos(phase * (i + 1));
    for (int i = 0; i < 8; ++i) dw[i] = (float)(error * cos(phase * (i + 1)));
    check(tessera_optimizer_step(optimizer, &result));  // reduce, clip, update, gather
    if (rank == 0 && step % 250 == 0)
      printf("step %4d  |gradient| %8.4f  w[7] %.4f\n", step, result.gradient_norm, w[7]);
  }

  check(tessera_optimizer_save(optimizer, "own_arrays.h5", NULL));
  check(tessera_optimizer_destroy(&optimizer));
  check(tessera_runtime_destroy(&runtime));
  MPI_Finalize();
  return fabsf(w[7] - 8) < 0.1f ? 0 : 1;
}
