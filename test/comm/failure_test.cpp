// SPDX-License-Identifier: Apache-2.0
// What ranks see when another one does not come, or calls something else.
#include <chrono>
#include <memory>
#include <thread>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/base/timer.hpp"
#include "tessera/comm/runtime.hpp"

#include "comm/fake/faulty_communicator.hpp"

namespace tessera {
namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::vector<std::vector<int>> pairs_of(int size) {
  std::vector<std::vector<int>> nodes;
  for (int r = 0; r < size; r += 2) nodes.push_back({r, r + 1});
  return nodes;
}

/// Runs `body` where the last rank does not take part; the others must see `code` and `texts`.
void expect_missing(const CommOptions& options, const std::string& operation,
                    const std::function<void(Communicator&)>& body) {
  {
    Runtime runtime(options);
    Communicator& world = runtime.world();
    const int late = world.size() - 1;
    world.barrier();
    if (world.rank() != late) {
      const Timer timer;
      try {
        body(world);
        ADD_FAILURE() << "no error";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::timeout);
        EXPECT_TRUE(contains(error.what(), operation)) << error.what();
        EXPECT_TRUE(contains(error.what(), "did not arrive: rank " + std::to_string(late)))
            << options.transport << ": " << error.what();
      }
      EXPECT_LT(timer.seconds(), 10 * options.timeout_seconds + 5);
      try {
        world.barrier();
        ADD_FAILURE() << "no error";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::peer_failed);
        EXPECT_TRUE(contains(error.what(), operation));
      }
    }
    // The late rank does something else meanwhile; MPI itself still works for everybody.
    MPI_Barrier(MPI_COMM_WORLD);
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST(Timeout, NamesTheRankAndTheOperation) {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  for (const char* transport : {"shm", "mpi", "hybrid"}) {
    CommOptions options;
    options.transport = transport;
    options.timeout_seconds = 0.3;
    if (options.transport == "hybrid") options.nodes = pairs_of(size);
    std::vector<float> values(10000);
    expect_missing(options, "all_reduce (sum) of 10000 fp32", [&](Communicator& world) {
      world.all_reduce(values.data(), 10000, DType::fp32, Reduction::sum).wait();
    });
    expect_missing(options, "all_reduce_scalars",
                   [&](Communicator& world) { world.all_reduce_scalar(1.0, Reduction::sum); });
    expect_missing(options, "all_gather_text",
                   [&](Communicator& world) { world.all_gather_text("here"); });
    expect_missing(options, "barrier", [&](Communicator& world) { world.barrier(); });
  }
}

TEST(Timeout, ARankThatLeavesIsNotWaitedFor) {
  CommOptions options;
  options.timeout_seconds = 60;
  const Timer timer;
  try {
    Runtime runtime(options);
    Communicator& world = runtime.world();
    world.barrier();
    if (world.rank() == 0) throw std::runtime_error("something that only rank 0 sees");
    std::vector<float> values(10000);
    world.all_reduce(values.data(), 10000, DType::fp32, Reduction::sum).wait();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::peer_failed);
    EXPECT_TRUE(contains(error.what(), "rank 0: left")) << error.what();
  } catch (const std::runtime_error& error) {
    EXPECT_TRUE(contains(error.what(), "only rank 0"));
  }
  EXPECT_LT(timer.seconds(), 20);
  MPI_Barrier(MPI_COMM_WORLD);
}

/// Ranks that come at all sorts of times get the same results.
TEST(Faulty, DelaysChangeNothing) {
  for (const char* transport : {"shm", "mpi"}) {
    CommOptions options;
    options.transport = transport;
    Runtime runtime(options);
    comm::Faults faults;
    faults.jitter_seconds = 2e-3;
    faults.stall_at = runtime.rank() == 1 ? 5 : -1;
    faults.stall_seconds = 0.1;
    comm::FaultyCommunicator world(runtime.world(), faults);
    const Buffer buffer = world.allocate(4 * 4000, Purpose::buckets);
    for (int k = 0; k < 20; ++k) {
      std::fill_n(buffer.as<float>(), 4000, static_cast<float>(k + world.rank()));
      world.all_reduce(buffer.data(), 4000, DType::fp32, Reduction::max, {}).wait();
      EXPECT_EQ(buffer.as<float>()[3999], static_cast<float>(k + world.size() - 1));
      EXPECT_EQ(world.all_reduce_scalar(1.0, Reduction::sum), world.size());
    }
    EXPECT_EQ(world.calls(), 41);
  }
}

TEST(Faulty, AnInjectedFailureBecomesEverybodys) {
  Runtime runtime;
  comm::Faults faults;
  faults.fail_at = runtime.rank() == 1 ? 0 : -1;
  comm::FaultyCommunicator faulty(runtime.world(), faults);
  float value = 1;
  try {
    agreeing(runtime.world(), [&] { faulty.send(&value, 0, DType::fp32, 0, 0, {}).wait(); });
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::mpi);
    EXPECT_TRUE(contains(error.what(), "rank 1: injected failure of send")) << error.what();
  }
}

TEST(Checked, BothSidesAreNamedOnEveryRank) {
  for (const char* transport : {"auto", "mpi"}) {
    CommOptions options;
    options.transport = transport;
    options.checked = true;
    options.timeout_seconds = 30;
    Runtime runtime(options);
    Communicator& world = runtime.world();
    std::vector<float> values(100);
    const auto text = [&](const auto& on_first, const auto& on_others) -> std::string {
      try {
        if (world.rank() == 0)
          on_first();
        else
          on_others();
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Code::invalid_argument);
        return error.what();
      }
      return "";
    };
    const std::string operations = text(
        [&] { world.all_reduce(values.data(), 10, DType::fp32, Reduction::sum).wait(); },
        [&] {
          world.reduce_scatter(values.data(), values.data(), 6, DType::fp32, Reduction::sum).wait();
        });
    EXPECT_TRUE(contains(operations, "rank 0 called all_reduce (sum) of 10 fp32")) << operations;
    EXPECT_TRUE(contains(operations, "rank 1 called reduce_scatter (sum) of")) << operations;
    const std::string counts = text([&] { world.broadcast(values.data(), 10, DType::fp32, 0); },
                                    [&] { world.broadcast(values.data(), 11, DType::fp32, 0); });
    EXPECT_TRUE(contains(counts, "broadcast of 10 fp32") && contains(counts, "of 11 fp32"));
    const std::string types =
        text([&] { world.all_reduce(values.data(), 10, DType::fp32, Reduction::max); },
             [&] { world.all_reduce(values.data(), 10, DType::bf16, Reduction::min); });
    EXPECT_TRUE(contains(types, "(max) of 10 fp32") && contains(types, "(min) of 10 bf16"));
    const std::string texts = text([&] { world.barrier(); }, [&] { world.all_gather_text(""); });
    EXPECT_TRUE(contains(texts, "barrier") && contains(texts, "all_gather_text"));
    // Nothing was exchanged, so the communicator goes on.
    EXPECT_EQ(world.all_reduce_scalar(1.0, Reduction::sum), world.size());
  }
}

}  // namespace
}  // namespace tessera
