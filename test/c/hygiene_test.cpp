// SPDX-License-Identifier: Apache-2.0
// What the host has on its communicator stays as it is while a network trains and is saved.
#include <cstring>
#include <string>
#include <vector>

#include "c/support.hpp"

namespace tessera::c::testing {
namespace {

/// Calls of the functions that the host attached.
struct Calls {
  int copies = 0, deletions = 0, errors = 0;
};
Calls calls;

int count_copy(MPI_Comm, int, void*, void*, void*, int* wanted) {
  ++calls.copies;
  *wanted = 1;
  return MPI_SUCCESS;
}
int count_deletion(MPI_Comm, int, void*, void*) {
  ++calls.deletions;
  return MPI_SUCCESS;
}
void count_error(MPI_Comm*, int*, ...) {
  ++calls.errors;
}

/// A communicator with a name, an attribute, an error handler, and a receive of anything posted.
struct Host {
  Host() {
    MPI_Comm_dup(MPI_COMM_WORLD, &communicator);
    MPI_Comm_rank(communicator, &rank);
    MPI_Comm_size(communicator, &size);
    MPI_Comm_set_name(communicator, "host");
    MPI_Comm_create_keyval(count_copy, count_deletion, &key, nullptr);
    MPI_Comm_set_attr(communicator, key, &attribute);
    MPI_Comm_create_errhandler(count_error, &handler);
    MPI_Comm_set_errhandler(communicator, handler);
    MPI_Irecv(&received, 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, communicator, &request);
  }
  ~Host() {
    MPI_Comm_free(&communicator);
    MPI_Errhandler_free(&handler);
    MPI_Comm_free_keyval(&key);
  }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  void expect_untouched() {
    void* found = nullptr;
    int there = 0, length = 0, arrived = 0;
    char name[MPI_MAX_OBJECT_NAME] = {};
    MPI_Errhandler now = MPI_ERRHANDLER_NULL;
    MPI_Comm_get_attr(communicator, key, static_cast<void*>(&found), &there);
    MPI_Comm_get_name(communicator, name, &length);
    MPI_Comm_get_errhandler(communicator, &now);
    MPI_Test(&request, &arrived, MPI_STATUS_IGNORE);
    EXPECT_TRUE(there && found == &attribute);
    EXPECT_STREQ(name, "host");
    EXPECT_EQ(now, handler);
    EXPECT_FALSE(arrived) << "the host received what was not for it";
    EXPECT_EQ(calls.copies, 0) << "its attribute was copied";
    EXPECT_EQ(calls.deletions, 0);
    EXPECT_EQ(calls.errors, 0);
    MPI_Errhandler_free(&now);
  }

  MPI_Comm communicator = MPI_COMM_NULL;
  MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
  MPI_Request request = MPI_REQUEST_NULL;
  int rank = 0, size = 0, key = MPI_KEYVAL_INVALID, attribute = 5, received = -1;
};

void train_and_save(MPI_Comm communicator, const char* transport, const std::string& file) {
  tessera_runtime* runtime = nullptr;
  tessera_network* network = nullptr;
  tessera_runtime_options how{};
  how.struct_size = sizeof how;
  how.transport = transport;
  tessera_network_options options{};
  options.struct_size = sizeof options;
  options.config =
      "model: {model_type: mlp, layer_sizes: [1, 300, 300, 1]}\n"
      "engine: {optimizer: {type: Adam}, zero_optimization: {stage: 3}}\n";
  ASSERT_OK(tessera_runtime_create(communicator, &how, &runtime));
  ASSERT_OK(tessera_network_create(runtime, &options, &network));
  std::vector<float> values(100, 0.5f);
  const tessera_array samples = array_of(values);
  for (int step = 0; step < 5; ++step)
    EXPECT_OK(tessera_network_train_step(network, &samples, &samples, nullptr));
  EXPECT_OK(tessera_network_save(network, file.c_str(), nullptr));
  EXPECT_OK(tessera_network_load(network, file.c_str()));
  EXPECT_OK(tessera_network_destroy(&network));
  EXPECT_OK(tessera_runtime_destroy(&runtime));
}

TEST(CHygiene, TheHostsCommunicatorStaysAsItIs) {
  const SharedFolder folder;
  for (const char* transport : {"auto", "mpi"}) {
    calls = {};
    Host host;
    train_and_save(host.communicator, transport, folder.path() + "/network.h5");
    host.expect_untouched();
    MPI_Barrier(MPI_COMM_WORLD);  // nobody sends before all have looked
    MPI_Send(&host.rank, 1, MPI_INT, (host.rank + 1) % host.size, 77, host.communicator);
    MPI_Wait(&host.request, MPI_STATUS_IGNORE);
    EXPECT_EQ(host.received, (host.rank + host.size - 1) % host.size);
  }
}

}  // namespace
}  // namespace tessera::c::testing
