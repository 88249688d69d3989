// SPDX-License-Identifier: Apache-2.0
// The Runtime as a guest of MPI: what it leaves alone, who may live beside whom, how it closes.
#include "tessera/comm/runtime.hpp"

#include <cstdlib>
#include <cstring>
#include <memory>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

namespace tessera {
namespace {

CommOptions options_for(const std::string& transport) {
  CommOptions options;
  options.transport = transport;
  options.timeout_seconds = 30;
  return options;
}

template <typename Body>
std::string error_text(Code code, const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void ignore_error(MPI_Comm*, int*, ...) {}

double sum_of_ranks(Communicator& group) {
  return group.all_reduce_scalar(static_cast<double>(group.rank()), Reduction::sum);
}

double expected_sum(int size) {
  return size * (size - 1) / 2.0;
}

TEST(Runtime, LeavesTheUsersCommunicatorAlone) {
  MPI_Comm users = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &users);
  MPI_Errhandler handler = MPI_ERRHANDLER_NULL, after = MPI_ERRHANDLER_NULL;
  MPI_Comm_create_errhandler(ignore_error, &handler);
  MPI_Comm_set_errhandler(users, handler);
  {
    Runtime runtime(users, options_for("auto"));
    EXPECT_EQ(sum_of_ranks(runtime.world()), expected_sum(runtime.size()));
    float value = 1;
    runtime.world().all_reduce(&value, 1, DType::fp32, Reduction::sum).wait();
    int same = MPI_IDENT;
    MPI_Comm_compare(users, runtime.control(), &same);
    EXPECT_EQ(same, MPI_CONGRUENT);
    MPI_Errhandler ours = MPI_ERRHANDLER_NULL;
    MPI_Comm_get_errhandler(runtime.control(), &ours);
    EXPECT_EQ(ours, MPI_ERRORS_RETURN);
  }
  MPI_Comm_get_errhandler(users, &after);
  EXPECT_EQ(after, handler);
  for (MPI_Comm comm : {users, MPI_COMM_WORLD}) {
    int waiting = 0;
    MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm, &waiting, MPI_STATUS_IGNORE);
    EXPECT_EQ(waiting, 0);
  }
  MPI_Errhandler_free(&after);
  MPI_Errhandler_free(&handler);
  MPI_Comm_free(&users);
}

TEST(Runtime, SeveralAtOnceAndOneAfterTheOther) {
  for (int round = 0; round < 2; ++round) {
    auto first = std::make_unique<Runtime>(options_for("auto"));
    auto second = std::make_unique<Runtime>(options_for("mpi"));
    EXPECT_EQ(sum_of_ranks(first->world()), expected_sum(first->size()));
    EXPECT_EQ(sum_of_ranks(second->world()), expected_sum(first->size()));
    if (round == 0)
      first.reset();
    else
      second.reset();
    Runtime& left = round == 0 ? *second : *first;
    EXPECT_EQ(sum_of_ranks(left.world()), expected_sum(left.size()));
  }
}

TEST(Runtime, OverSomeOfTheRanks) {
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm half = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, rank % 2, -rank, &half);
  {
    Runtime runtime(half, options_for("auto"));
    EXPECT_EQ(runtime.size(), (size + 1 - rank % 2) / 2);
    EXPECT_EQ(sum_of_ranks(runtime.world()), expected_sum(runtime.size()));
    EXPECT_EQ(runtime.local_size(), runtime.size());
  }
  MPI_Comm_free(&half);
}

TEST(Runtime, ChoosesTheTransport) {
  Runtime runtime(options_for("auto"));
  const bool alone = runtime.size() == 1;
  EXPECT_STREQ(runtime.world().transport(), alone ? "self" : "shm");
  EXPECT_EQ(runtime.world().nodes().nodes(), 1);
  EXPECT_STREQ(Runtime(options_for("mpi")).world().transport(), "mpi");
  if (alone) return;
  CommOptions two_nodes = options_for("auto");
  two_nodes.nodes = {{0}, {}};
  for (int r = 1; r < runtime.size(); ++r) two_nodes.nodes[1].push_back(r);
  EXPECT_STREQ(Runtime(two_nodes).world().transport(), runtime.size() == 2 ? "mpi" : "hybrid");
  two_nodes.transport = "shm";
  EXPECT_EQ(Runtime(two_nodes).world().nodes().nodes(), 2);
  EXPECT_TRUE(contains(error_text(Code::invalid_config, [] { Runtime r(options_for("self")); }),
                       "for one rank"));
}

TEST(Runtime, RefusesOptionsThatCannotBe) {
  EXPECT_TRUE(
      contains(error_text(Code::invalid_config, [] { Runtime r(options_for("tcp")); }), "'tcp'"));
  CommOptions options;
  options.timeout_seconds = -1;
  EXPECT_TRUE(contains(error_text(Code::invalid_config, [&] { Runtime r(options); }), "-1"));
  options = {};
  options.nodes = {{0, 99}};
  EXPECT_TRUE(contains(error_text(Code::invalid_config, [&] { Runtime r(options); }), "99"));
}

TEST(Runtime, ClosesLastFirst) {
  std::vector<int> order;
  Runtime runtime(options_for("auto"));
  const auto child = runtime.world().split(0, runtime.rank(), "child");
  runtime.on_finalize([&] { order.push_back(1); });
  runtime.on_finalize([&] {
    order.push_back(2);
    EXPECT_EQ(sum_of_ranks(runtime.world()), expected_sum(runtime.size()));
  });
  runtime.finalize();
  runtime.finalize();
  EXPECT_EQ(order, (std::vector<int>{2, 1}));
  EXPECT_TRUE(contains(error_text(Code::invalid_argument, [&] { runtime.world().barrier(); }),
                       "finalised"));
  EXPECT_TRUE(contains(error_text(Code::invalid_argument, [&] { child->barrier(); }), "closed"));
}

TEST(Split, GroupsByColorAndKey) {
  for (const char* transport : {"auto", "mpi"}) {
    Runtime runtime(options_for(transport));
    Communicator& world = runtime.world();
    const auto group = world.split(world.rank() % 2, -world.rank(), "half");
    EXPECT_EQ(group->name(), "half");
    EXPECT_EQ(group->size(), (world.size() + 1 - world.rank() % 2) / 2);
    EXPECT_EQ(group->rank(), group->size() - 1 - world.rank() / 2);
    EXPECT_EQ(sum_of_ranks(*group), expected_sum(group->size()));
    const auto first_only = world.split(world.rank() == 0 ? 0 : -1, 0, "first");
    EXPECT_EQ(first_only != nullptr, world.rank() == 0);
    world.barrier();
  }
}

/// Bytes of this rank and of all ranks together.
struct Counted {
  Traffic::Count own;
  std::int64_t total;
};

Counted counted(Communicator& world, const std::string& operation) {
  const Traffic::Count own = world.traffic().count(operation);
  const Traffic::Pause pause(world.traffic());
  return {own, world.all_reduce_scalar(own.bytes, Reduction::sum)};
}

void expect_traffic(Communicator& world) {
  const std::int64_t n = world.size();
  constexpr std::int64_t kCount = 1013;
  std::vector<float> many(static_cast<std::size_t>(kCount * n)), other(many);
  world.traffic().reset();
  world.all_reduce(many.data(), kCount, DType::fp32, Reduction::sum).wait();
  EXPECT_EQ(counted(world, "all_reduce").total, 2 * (n - 1) * kCount * 4);
  EXPECT_EQ(world.traffic().count("all_reduce").messages, 2 * (n - 1));

  const std::vector<ScatterPart> parts = {{many.data(), kCount, other.data(), 1000},
                                          {many.data() + 1000, kCount, other.data() + 1000, 13}};
  world.reduce_scatter(parts, DType::fp32, Reduction::sum).wait();
  EXPECT_EQ(counted(world, "reduce_scatter").own.bytes, (n - 1) * kCount * 4);
  EXPECT_EQ(world.traffic().count("reduce_scatter").messages, n - 1);

  world.all_gather(many.data(), other.data(), kCount, DType::bf16).wait();
  EXPECT_EQ(counted(world, "all_gather").own.bytes, (n - 1) * kCount * 2);
  std::vector<std::int64_t> counts;
  for (std::int64_t r = 0; r < n; ++r) counts.push_back(r * 7);
  world.traffic().reset();
  world.all_gather_v(many.data(), other.data(), counts, DType::fp32).wait();
  EXPECT_EQ(counted(world, "all_gather").own.bytes, (n - 1) * world.rank() * 7 * 4);
  world.reduce_scatter_v(many.data(), other.data(), counts, DType::fp32, Reduction::sum).wait();
  EXPECT_EQ(counted(world, "reduce_scatter").own.bytes, (n * (n - 1) / 2 - world.rank()) * 7 * 4);

  world.broadcast(many.data(), kCount, DType::fp32, 0).wait();
  EXPECT_EQ(counted(world, "broadcast").total, (n - 1) * kCount * 4);
  world.all_to_all(many.data(), other.data(), kCount, DType::fp32).wait();
  EXPECT_EQ(counted(world, "all_to_all").own.bytes, (n - 1) * kCount * 4);
  world.all_reduce_scalar(1.0, Reduction::sum);
  EXPECT_EQ(counted(world, "scalars").total, 2 * (n - 1) * 8);
  world.traffic().reset();
  {
    const Traffic::Pause pause(world.traffic());
    world.all_reduce(many.data(), kCount, DType::fp32, Reduction::sum).wait();
    world.all_gather_text("not counted");
  }
  EXPECT_TRUE(world.traffic().counts().empty() || n == 1);
}

TEST(TrafficOfRanks, EqualsTheFormulas) {
  for (const char* transport : {"auto", "mpi"}) {
    Runtime runtime(options_for(transport));
    expect_traffic(runtime.world());
  }
}

TEST(Allocation, IsZeroedReusedAndMayDiffer) {
  Runtime runtime(options_for("auto"));
  Communicator& world = runtime.world();
  void* before = nullptr;
  for (int round = 0; round < 3; ++round) {
    Buffer buffer = world.allocate(100000, Purpose::buckets);
    ASSERT_EQ(buffer.bytes(), 100000u);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
    EXPECT_EQ(buffer.as<char>()[0], 0);
    EXPECT_EQ(buffer.as<char>()[99999], 0);
    std::memset(buffer.data(), 1, buffer.bytes());
    if (round > 0 && world.size() > 1) {
      EXPECT_EQ(buffer.data(), before);
    }
    before = buffer.data();
  }
  const std::size_t mine = world.rank() == 0 ? 0 : 1000 * static_cast<std::size_t>(world.rank());
  const Buffer uneven = world.allocate(mine, Purpose::buckets);
  EXPECT_EQ(uneven.bytes(), mine);
}

TEST(Allocation, StartsACacheLineOnEveryRank) {
  Runtime runtime(options_for("auto"));
  std::vector<Buffer> kept;
  for (const std::size_t bytes : {1ul, 100ul, 4097ul, 100001ul}) {
    kept.push_back(runtime.world().allocate(bytes, Purpose::buckets));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(kept.back().data()) % 64, 0u) << bytes;
    std::memset(kept.back().data(), 1 + runtime.rank(), bytes);
  }
  runtime.world().barrier();
  for (const Buffer& buffer : kept)
    for (std::size_t i = 0; i < buffer.bytes(); ++i)
      ASSERT_EQ(buffer.as<char>()[i], 1 + runtime.rank()) << "a peer wrote here";
}

TEST(Allocation, BuffersFreedAtDifferentTimes) {
  Runtime runtime(options_for("auto"));
  Communicator& world = runtime.world();
  std::vector<Buffer> kept;
  for (int k = 0; k < 30; ++k) {
    Buffer buffer = world.allocate(5000, Purpose::buckets);
    buffer.as<int>()[0] = k;
    // Odd ranks keep every third one longer.
    if (k % 3 == 0 && world.rank() % 2 == 1) kept.push_back(std::move(buffer));
  }
  for (std::size_t i = 0; i < kept.size(); ++i)
    EXPECT_EQ(kept[i].as<int>()[0], 3 * static_cast<int>(i));
}

TEST(SmallSharedMemory, IsNoticedBeforehand) {
  setenv("TESSERA_SHM_LIMIT_BYTES", "1000", 1);
  {
    Runtime runtime(options_for("auto"));
    EXPECT_STREQ(runtime.world().transport(), runtime.size() == 1 ? "self" : "mpi");
    EXPECT_EQ(sum_of_ranks(runtime.world()), expected_sum(runtime.size()));
  }
  setenv("TESSERA_SHM_LIMIT_BYTES", "33554432", 1);
  {
    Runtime runtime(options_for("auto"));
    Communicator& world = runtime.world();
    EXPECT_STREQ(world.transport(), runtime.size() == 1 ? "self" : "shm");
    constexpr std::int64_t kCount = 8 << 20;
    const Buffer big = world.allocate(kCount * 4, Purpose::buckets);
    const Buffer fits = world.allocate(4096, Purpose::buckets);
    auto* values = big.as<float>();
    EXPECT_EQ(values[kCount - 1], 0.0f);
    values[kCount - 1] = 2.0f;
    world.all_reduce(values, kCount, DType::fp32, Reduction::sum).wait();
    EXPECT_EQ(values[kCount - 1], 2.0f * static_cast<float>(world.size()));
  }
  unsetenv("TESSERA_SHM_LIMIT_BYTES");
}

TEST(Agreement, OneErrorBecomesEverybodys) {
  Runtime runtime(options_for("auto"));
  Communicator& world = runtime.world();
  agreeing(world, [] {});
  const int culprit = world.size() - 1;
  const std::string text = error_text(Code::io, [&] {
    agreeing(world, [&] {
      if (world.rank() == culprit) fail(Code::io, "no such file: a.txt");
    });
  });
  EXPECT_TRUE(contains(text, "no such file: a.txt"));
  if (world.size() > 1) {
    EXPECT_TRUE(contains(text, "rank " + std::to_string(culprit)));
  }
  EXPECT_EQ(error_text(Code::invalid_config,
                       [&] { agreeing(world, [] { fail(Code::invalid_config, "same"); }); }),
            "same");
  EXPECT_EQ(sum_of_ranks(world), expected_sum(world.size()));
}

TEST(Arguments, ImpossibleOnesAreRefused) {
  Runtime runtime(options_for("auto"));
  Communicator& world = runtime.world();
  float value = 0;
  const auto text = [&](const auto& body) { return error_text(Code::invalid_argument, body); };
  EXPECT_TRUE(
      contains(text([&] { world.all_reduce(&value, -1, DType::fp32, Reduction::sum); }), "-1"));
  EXPECT_TRUE(contains(text([&] { world.all_reduce(&value, 1, DType::int32, Reduction::mean); }),
                       "mean of int32"));
  EXPECT_TRUE(
      contains(text([&] { world.all_reduce(&value, 1, DType::uint8, Reduction::sum); }), "uint8"));
  EXPECT_TRUE(contains(text([&] { world.broadcast(&value, 1, DType::fp32, 77); }), "rank 77"));
  EXPECT_TRUE(contains(text([&] { world.send(&value, 1, DType::fp32, -3); }), "rank -3"));
  const std::vector<std::int64_t> too_many(static_cast<std::size_t>(world.size()) + 1, 0);
  EXPECT_TRUE(
      contains(text([&] { world.all_gather_v(&value, &value, too_many, DType::fp32); }), "counts"));
}

}  // namespace
}  // namespace tessera
