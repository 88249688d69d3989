// SPDX-License-Identifier: Apache-2.0
// The smallest whole program: a network learns what an MPI program computes.
#include <stdio.h>

#include "tessera/tessera.h"

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  double x[64][2], y[64], loss = 0;  // your arrays, a sample a row; each rank has its own
  for (int i = 0; i < 64; ++i) y[i] = (x[i][0] = i / 64.0) * (x[i][1] = i % 8 / 8.0);
  const tessera_array inputs = {.data = x, .dtype = TESSERA_FP64, .rank = 2, .dims = {64, 2}};
  const tessera_array targets = {.data = y, .dtype = TESSERA_FP64, .rank = 1, .dims = {64}};
  const char* config =
      "model: {model_type: mlp, layer_sizes: [2, 16, 1]}\n"
      "engine: {optimizer: {type: Adam, params: {lr: 1e-2}}, zero_optimization: {stage: 1}}\n";
  const tessera_network_options options = {.struct_size = sizeof options, .config = config};
  tessera_runtime* runtime = NULL;
  tessera_network* network = NULL;
  tessera_code code = tessera_runtime_create(MPI_COMM_WORLD, NULL, &runtime);
  if (code == TESSERA_OK) code = tessera_network_create(runtime, &options, &network);
  for (int step = 0; step < 300 && code == TESSERA_OK; ++step)
    code = tessera_network_train_step(network, &inputs, &targets, &loss);
  if (code == TESSERA_OK) code = tessera_network_save(network, "surrogate.h5", NULL);
  printf("loss %.6f, %s\n", loss, code == TESSERA_OK ? "saved" : tessera_last_error());
  tessera_network_destroy(&network);
  tessera_runtime_destroy(&runtime);
  MPI_Finalize();
  return code == TESSERA_OK && loss < 0.01 ? 0 : 1;
}
