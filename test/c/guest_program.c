// SPDX-License-Identifier: Apache-2.0
// A host program in C99: who begins and ends MPI, and in which order. Exits with 0 if all is well.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tessera/tessera.h"

static int failures = 0;

static void expect(int condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "%s; last error: %s\n", what, tessera_last_error());
  ++failures;
}

static void ok(tessera_code code, const char* what) {
  expect(code == TESSERA_OK, what);
}

// The ranks of a group add up 1.
static void expect_alive(tessera_group* group) {
  float one = 1;
  int size = 0;
  const tessera_array array = {.data = &one, .dtype = TESSERA_FP32};
  ok(tessera_group_size(group, &size), "size");
  ok(tessera_all_reduce(group, &array, TESSERA_SUM), "all_reduce");
  expect(one == (float)size, "the sum of ones is the number of ranks");
}

static tessera_group* world_of(tessera_runtime* runtime) {
  tessera_group* world = NULL;
  ok(tessera_runtime_world(runtime, &world), "world");
  return world;
}

static void several_at_once(void) {
  tessera_runtime* first = NULL;
  tessera_runtime* second = NULL;
  tessera_runtime_options options = {.struct_size = sizeof options, .transport = "mpi"};
  MPI_Comm half = MPI_COMM_NULL;
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &half);
  ok(tessera_runtime_create(MPI_COMM_WORLD, NULL, &first), "first");
  ok(tessera_runtime_create_f(MPI_Comm_c2f(half), &options, &second), "second, from Fortran");
  MPI_Comm_free(&half);  // ours are duplicates
  tessera_group* all = world_of(first);
  tessera_group* some = world_of(second);
  expect_alive(all);
  expect_alive(some);
  // The groups keep what they need.
  ok(tessera_runtime_destroy(&first), "destroy");
  expect(first == NULL, "destroy sets NULL");
  expect_alive(all);
  ok(tessera_group_destroy(&all), "destroy all");
  expect_alive(some);
  ok(tessera_group_destroy(&some), "destroy some");
  ok(tessera_runtime_destroy(&second), "destroy second");
  ok(tessera_runtime_destroy(&second), "destroy NULL");
}

static void host_begins_and_ends(int* argc, char*** argv) {
  MPI_Init(argc, argv);
  several_at_once();
  several_at_once();
  MPI_Finalize();
}

// An optimizer on one array, with two steps behind it.
static tessera_optimizer* train(tessera_runtime* runtime, float* weights, float* gradients) {
  tessera_optimizer* optimizer = NULL;
  const tessera_optimizer_options options = {.struct_size = sizeof options,
                                             .config = "zero_optimization: {stage: 2}"};
  const tessera_array w = {.data = weights, .rank = 1, .dims = {3}};
  const tessera_array g = {.data = gradients, .rank = 1, .dims = {3}};
  ok(tessera_optimizer_create(runtime, &options, &optimizer), "optimizer");
  ok(tessera_optimizer_add(optimizer, "w", &w, &g, NULL), "add");
  ok(tessera_optimizer_commit(optimizer), "commit");
  ok(tessera_optimizer_step(optimizer, NULL), "step");
  ok(tessera_optimizer_step(optimizer, NULL), "step");
  return optimizer;
}

static void host_finalises_first(int* argc, char*** argv) {
  MPI_Init(argc, argv);
  tessera_runtime* runtime = NULL;
  float weights[3] = {1, 2, 3}, gradients[3] = {1, -1, 0};
  ok(tessera_runtime_create(MPI_COMM_WORLD, NULL, &runtime), "create");
  tessera_group* world = world_of(runtime);
  expect_alive(world);
  tessera_optimizer* optimizer = train(runtime, weights, gradients);
  expect(weights[0] < 1 && weights[1] > 2 && weights[2] == 3, "two steps downhill");
  ok(tessera_runtime_destroy(&runtime), "others keep what they need of it");
  MPI_Finalize();
  expect(tessera_optimizer_step(optimizer, NULL) == TESSERA_INVALID_ARGUMENT, "nor a step");
  ok(tessera_optimizer_destroy(&optimizer), "destroy the optimizer after MPI");
  expect(tessera_barrier(world) == TESSERA_INVALID_ARGUMENT, "a closed runtime says so");
  ok(tessera_group_destroy(&world), "destroy the group after MPI");
  expect(tessera_runtime_create(MPI_COMM_WORLD, NULL, &runtime) == TESSERA_INVALID_ARGUMENT,
         "no runtime after MPI_Finalize");
  expect(strstr(tessera_last_error(), "MPI_Finalize") != NULL, "the reason");
}

static int on_cuda(void) {
  const char* device = getenv("TESSERA_TEST_DEVICE");
  return device != NULL && strcmp(device, "cuda") == 0;
}

static void begin_step(tessera_network* network) {
  float inputs[200] = {0}, targets[2] = {1, 2};
  const tessera_array x = {.data = inputs, .rank = 2, .dims = {2, 100}};
  const tessera_array y = {.data = targets, .rank = 1, .dims = {2}};
  ok(tessera_network_train_step(network, &x, &y, NULL), "a step whose loss nobody reads");
}

// A network that trains and is being saved when the host finalises MPI: the file gets there.
static void host_finalises_while_saving(int* argc, char*** argv) {
  const char* const path = "while-saving.h5";
  MPI_Init(argc, argv);
  tessera_runtime* runtime = NULL;
  tessera_network* network = NULL;
  const tessera_network_options options = {
      .struct_size = sizeof options,
      .config = on_cuda()
                    ? "device: cuda\nmodel: {model_type: mlp, layer_sizes: [100, 700, 700, 1]}"
                    : "model: {model_type: mlp, layer_sizes: [100, 700, 700, 1]}"};
  remove(path);
  ok(tessera_runtime_create(MPI_COMM_WORLD, NULL, &runtime), "create");
  ok(tessera_network_create(runtime, &options, &network), "network");
  begin_step(network);
  ok(tessera_network_save_async(network, path, NULL), "save");
  begin_step(network);
  MPI_Finalize();
  FILE* file = fopen(path, "rb");
  expect(file != NULL, "there is the file");
  if (file != NULL) fclose(file);
  expect(tessera_network_finish_save(network) == TESSERA_INVALID_ARGUMENT, "too late to ask");
  ok(tessera_network_destroy(&network), "destroy the network after MPI");
  ok(tessera_runtime_destroy(&runtime), "destroy the runtime after MPI");
}

static void library_begins(int host_ends) {
  tessera_runtime* runtime = NULL;
  int initialized = 0;
  ok(tessera_runtime_create(MPI_COMM_WORLD, NULL, &runtime), "create");
  MPI_Initialized(&initialized);
  expect(initialized, "MPI is there");
  tessera_group* world = world_of(runtime);
  expect_alive(world);
  ok(tessera_group_destroy(&world), "destroy group");
  ok(tessera_runtime_destroy(&runtime), "destroy");
  if (host_ends) MPI_Finalize();
}

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "";
  if (strcmp(mode, "host-begins-and-ends") == 0)
    host_begins_and_ends(&argc, &argv);
  else if (strcmp(mode, "host-finalises-first") == 0)
    host_finalises_first(&argc, &argv);
  else if (strcmp(mode, "host-finalises-while-saving") == 0)
    host_finalises_while_saving(&argc, &argv);
  else if (strcmp(mode, "library-begins") == 0)
    library_begins(0);
  else if (strcmp(mode, "library-begins-host-ends") == 0)
    library_begins(1);
  else
    expect(0, "unknown mode");
  return failures > 0;
}
