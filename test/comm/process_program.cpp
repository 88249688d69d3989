// SPDX-License-Identifier: Apache-2.0
// A whole program whose beginning and end are the test: who starts MPI, who ends it, and how.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

#include <mpi.h>

#include "tessera/base/error.hpp"
#include "tessera/comm/runtime.hpp"

namespace {

using namespace tessera;

bool works(Runtime& runtime) {
  std::vector<float> values(5000, 1.0f);
  runtime.world().all_reduce(values.data(), 5000, DType::fp32, Reduction::sum).wait();
  return values[4999] == static_cast<float>(runtime.size());
}

/// Nobody starts MPI but us, and nobody closes anything.
int forget() {
  auto* runtime = new Runtime;
  const Buffer buffer = runtime->world().allocate(1 << 20, Purpose::buckets);
  return works(*runtime) ? 0 : 1;
}

int one_after_the_other() {
  for (int i = 0; i < 3; ++i) {
    Runtime runtime;
    if (!works(runtime)) return 1;
  }
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized && !finalized ? 0 : 1;
}

/// The user's MPI, finalised before our Runtime goes.
int user_finalizes_first() {
  MPI_Init(nullptr, nullptr);
  int closed = 0;
  Runtime runtime;
  runtime.on_finalize([&] { closed = works(runtime) ? 1 : 0; });
  if (!works(runtime)) return 1;
  MPI_Finalize();
  return closed == 1 ? 0 : 1;
}

/// Only rank 0 fails; the others wait in a collective with a long deadline.
int one_rank_throws() {
  try {
    CommOptions options;
    options.timeout_seconds = 300;
    Runtime runtime(options);
    runtime.world().barrier();
    if (runtime.rank() == 0) throw std::runtime_error("only here");
    works(runtime);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 3;
  }
  return 0;
}

/// All ranks fail alike and leave in order.
int all_agree_on_an_error() {
  try {
    Runtime runtime;
    agreeing(runtime.world(), [&] {
      if (runtime.rank() == 0) fail(Code::invalid_config, "steps is -3");
    });
  } catch (const Error& error) {
    return error.is_bad_input() ? 2 : 1;
  }
  return 0;
}

/// The last rank never makes its Runtime: the others are stuck inside MPI.
int stuck_inside_mpi() {
  MPI_Init(nullptr, nullptr);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank == 1) std::this_thread::sleep_for(std::chrono::seconds(60));
  CommOptions options;
  options.timeout_seconds = 1;
  Runtime runtime(options);
  MPI_Finalize();
  return 0;
}

int alone() {
  try {
    Runtime runtime;
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return error.is_bad_input() ? 2 : 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "forget") return forget();
  if (mode == "one-after-the-other") return one_after_the_other();
  if (mode == "user-finalizes-first") return user_finalizes_first();
  if (mode == "one-rank-throws") return one_rank_throws();
  if (mode == "all-agree-on-an-error") return all_agree_on_an_error();
  if (mode == "stuck-inside-mpi") return stuck_inside_mpi();
  if (mode == "alone") return alone();
  return 1;
}
