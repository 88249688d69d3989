// SPDX-License-Identifier: Apache-2.0
// Makes, uses and destroys everything of the C interface, again and again; the heap may not grow.
// scripts/memcheck runs it under valgrind. Exits with 0 if all is well.
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "tessera/tessera.h"

enum { kSamples = 12 };
enum { kPeriod = 4 };                       // cycles until all stages and transports were used
enum { kManyPeriods = 10, kGrowth = 100 };  // bytes of a period: less than one leaked object

static int failures = 0;

static void ok(tessera_code code, const char* what) {
  if (code == TESSERA_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, tessera_code_name(code), tessera_last_error());
  ++failures;
}

static void refused(tessera_code code, const char* what) {
  if (code != TESSERA_OK) return;
  fprintf(stderr, "%s: is no error\n", what);
  ++failures;
}

static void use_groups(tessera_runtime* runtime) {
  tessera_group *world = NULL, *part = NULL, *line = NULL;
  tessera_mesh* mesh = NULL;
  int rank = 0;
  float values[1000] = {0};
  const tessera_array array = {.data = values, .rank = 1, .dims = {1000}};
  ok(tessera_runtime_world(runtime, &world), "world");
  ok(tessera_group_rank(world, &rank), "rank");
  ok(tessera_group_split(world, rank % 2, 0, &part), "split");
  ok(tessera_mesh_create(runtime, NULL, &mesh), "mesh");
  ok(tessera_mesh_group(mesh, "data", &line), "mesh group");
  ok(tessera_all_reduce(world, &array, TESSERA_SUM), "all_reduce");
  ok(tessera_all_reduce(part, &array, TESSERA_MAX), "all_reduce of a part");
  ok(tessera_broadcast(line, &array, 0), "broadcast");
  refused(tessera_broadcast(world, &array, 99), "a root that is not there");
  ok(tessera_group_destroy(&world), "destroy the world");
  ok(tessera_mesh_destroy(&mesh), "destroy the mesh");
  ok(tessera_group_destroy(&line), "destroy its group");
  ok(tessera_group_destroy(&part), "destroy the part");
}

static void use_optimizer(tessera_runtime* runtime, const char* folder) {
  tessera_optimizer* optimizer = NULL;
  float weights[40] = {0}, gradients[40] = {0};
  char path[4096];
  const tessera_array w = {.data = weights, .rank = 2, .dims = {8, 5}};
  const tessera_array g = {.data = gradients, .rank = 2, .dims = {8, 5}};
  const tessera_optimizer_options options = {.struct_size = sizeof options,
                                             .config = "zero_optimization: {stage: 2}"};
  ok(tessera_optimizer_create(runtime, &options, &optimizer), "optimizer");
  ok(tessera_optimizer_add(optimizer, "w", &w, &g, NULL), "add");
  ok(tessera_optimizer_commit(optimizer), "commit");
  ok(tessera_optimizer_step(optimizer, NULL), "step");
  snprintf(path, sizeof path, "%s/optimizer.h5", folder);
  ok(tessera_optimizer_save(optimizer, path, "{}"), "save");
  ok(tessera_optimizer_load(optimizer, path), "load");
  refused(tessera_optimizer_commit(optimizer), "a second commit");
  ok(tessera_optimizer_destroy(&optimizer), "destroy the optimizer");
}

static void use_network(tessera_runtime* runtime, const char* folder, int stage) {
  tessera_network* network = NULL;
  char config[512], path[4096];
  double inputs[kSamples][3], targets[kSamples], loss = 0;
  const tessera_array x = {.data = inputs, .dtype = TESSERA_FP64, .rank = 2, .dims = {kSamples, 3}};
  const tessera_array y = {.data = targets, .dtype = TESSERA_FP64, .rank = 1, .dims = {kSamples}};
  for (int i = 0; i < kSamples; ++i) {
    for (int k = 0; k < 3; ++k) inputs[i][k] = 0.1 * i * (k + 1);
    targets[i] = inputs[i][0] * inputs[i][1];
  }
  snprintf(config, sizeof config,
           "model: {model_type: mlp, layer_sizes: [3, 8, 1], normalize_inputs: true}\n"
           "engine: {optimizer: {type: AdamW}, zero_optimization: {stage: %d}}\n",
           stage);
  const tessera_network_options options = {.struct_size = sizeof options, .config = config};
  ok(tessera_network_create(runtime, &options, &network), "network");
  ok(tessera_network_observe(network, &x, NULL), "observe");
  ok(tessera_network_train_step(network, &x, &y, &loss), "train_step");
  snprintf(path, sizeof path, "%s/network.h5", folder);
  ok(tessera_network_save_async(network, path, NULL), "save beside training");
  ok(tessera_network_train_step(network, &x, &y, &loss), "train_step");
  ok(tessera_network_finish_save(network), "finish the save");
  ok(tessera_network_load(network, path), "load");
  ok(tessera_network_predict(network, &x, &y), "predict");
  refused(tessera_network_train_step(network, &y, &y, &loss), "samples of another shape");
  ok(tessera_network_destroy(&network), "destroy the network");
}

static void refuse_configuration(tessera_runtime* runtime) {
  tessera_network* network = NULL;
  const tessera_network_options options = {
      .struct_size = sizeof options, .config = "model: {model_type: mlp, layer_size: [2, 1]}"};
  refused(tessera_network_create(runtime, &options, &network), "a misspelt key");
}

static void cycle(const char* folder, int number) {
  static const char* const transports[] = {"auto", "mpi"};
  tessera_runtime* runtime = NULL;
  const tessera_runtime_options options = {.struct_size = sizeof options,
                                           .transport = transports[number % 2]};
  ok(tessera_runtime_create(MPI_COMM_WORLD, &options, &runtime), "runtime");
  use_groups(runtime);
  use_optimizer(runtime, folder);
  use_network(runtime, folder, number % 4);
  refuse_configuration(runtime);
  ok(tessera_runtime_destroy(&runtime), "destroy the runtime");
}

// Bytes in use; 0 where the C library does not say, and under valgrind. What a thread keeps for its
// next malloc counts as used: run with GLIBC_TUNABLES=glibc.malloc.tcache_count=0.
static double heap(void) {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  const struct mallinfo2 info = mallinfo2();
  return (double)info.uordblks + (double)info.hblkhd;
#else
  return 0;
#endif
}

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

// A leak grows the heap in every period; pools of MPI and HDF5 grow in rare large steps, when the
// ranks' messages happen to pile up. So the median says which.
static double median(double* values, int count) {
  qsort(values, (size_t)count, sizeof *values, ascending);
  return values[count / 2];
}

int main(int argc, char** argv) {
  if (argc != 3 || atoi(argv[2]) < 1) {
    fprintf(stderr, "usage: %s <folder> <periods of %d cycles>\n", argv[0], kPeriod);
    return 2;
  }
  const int periods = atoi(argv[2]);
  double* growth = malloc((size_t)periods * sizeof *growth);
  if (growth == NULL) return 2;
  MPI_Init(&argc, &argv);
  for (int p = 0; p < periods; ++p) {
    const double before = heap();
    for (int i = 0; i < kPeriod; ++i) cycle(argv[1], i);
    growth[p] = heap() - before;
  }
  if (periods >= kManyPeriods && median(growth, periods) > kGrowth) {
    fprintf(stderr, "the heap grows by %.0f bytes in %d cycles\n", median(growth, periods),
            kPeriod);
    ++failures;
  }
  free(growth);
  MPI_Finalize();
  return failures > 0;
}
