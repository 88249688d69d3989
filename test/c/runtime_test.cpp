// SPDX-License-Identifier: Apache-2.0
// Runtimes, groups, meshes and errors through the C interface.
#include <cstddef>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "c/support.hpp"

namespace tessera::c::testing {
namespace {

TEST(CErrors, HaveACodeAndAText) {
  EXPECT_REFUSED(tessera_runtime_create(MPI_COMM_WORLD, nullptr, nullptr), TESSERA_INVALID_ARGUMENT,
                 "NULL");
  tessera_runtime* runtime = nullptr;
  EXPECT_REFUSED(tessera_runtime_create(MPI_COMM_NULL, nullptr, &runtime), TESSERA_INVALID_ARGUMENT,
                 "MPI_COMM_NULL");
  EXPECT_EQ(runtime, nullptr);
  tessera_runtime_options options{};
  EXPECT_REFUSED(tessera_runtime_create(MPI_COMM_WORLD, &options, &runtime),
                 TESSERA_INVALID_ARGUMENT, "struct_size");
  options.struct_size = sizeof options;
  options.transport = "pigeon";
  EXPECT_REFUSED(tessera_runtime_create(MPI_COMM_WORLD, &options, &runtime), TESSERA_INVALID_CONFIG,
                 "pigeon");
  EXPECT_STREQ(tessera_code_name(TESSERA_INVALID_CONFIG), "invalid configuration");
  EXPECT_STREQ(tessera_code_name(static_cast<tessera_code>(15)), "unknown code");
  EXPECT_REFUSED(tessera_barrier(nullptr), TESSERA_INVALID_ARGUMENT, "`group` is NULL");
}

TEST(CErrors, AreOfTheirThread) {
  tessera_barrier(nullptr);
  std::string there = "not asked";
  std::thread([&] { there = tessera_last_error(); }).join();
  EXPECT_EQ(there, "");
  EXPECT_STRNE(tessera_last_error(), "");
}

// A caller that was compiled with a newer header has a longer struct.
TEST(COptions, OfANewerHeaderWorkUnlessTheySaySomethingNew) {
  struct Newer {
    tessera_runtime_options known;
    double unknown;
  } options{};
  options.known.struct_size = sizeof options;
  tessera_runtime* runtime = nullptr;
  const auto* given = &options.known;
  ASSERT_OK(tessera_runtime_create(MPI_COMM_WORLD, given, &runtime));
  EXPECT_OK(tessera_runtime_destroy(&runtime));
  options.unknown = 1;
  EXPECT_REFUSED(tessera_runtime_create(MPI_COMM_WORLD, given, &runtime), TESSERA_NOT_SUPPORTED,
                 "does not know");
}

// And one with an older header a shorter one.
TEST(COptions, OfAnOlderHeaderLeaveTheRestAtItsDefault) {
  tessera_runtime_options options{};
  options.struct_size = offsetof(tessera_runtime_options, timeout_seconds);
  options.timeout_seconds = 1e-9;  // not part of it
  tessera_runtime* runtime = nullptr;
  ASSERT_OK(tessera_runtime_create(MPI_COMM_WORLD, &options, &runtime));
  EXPECT_OK(tessera_runtime_destroy(&runtime));
}

TEST(CLog, IsHeardByTheHostAlone) {
  std::vector<std::string> lines;
  const auto keep = [](tessera_log_level, const char* line, void* user) {
    static_cast<std::vector<std::string>*>(user)->emplace_back(line);
  };
  EXPECT_OK(tessera_set_log(keep, &lines));
  setenv("TESSERA_SHM_LIMIT_BYTES", "1000", 1);  // makes a Runtime say something
  ::testing::internal::CaptureStderr();
  ::testing::internal::CaptureStdout();
  bool speaks = false;
  {
    const World world;
    speaks = world.size > 1 && world.rank == 0;
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  unsetenv("TESSERA_SHM_LIMIT_BYTES");
  EXPECT_OK(tessera_set_log(nullptr, nullptr));
  if (speaks) {
    ASSERT_FALSE(lines.empty());
    EXPECT_NE(lines.front().find("shared memory"), std::string::npos) << lines.front();
  }
}

TEST(CGroups, SplitByColour) {
  const World world;
  tessera_group* part = nullptr;
  ASSERT_OK(tessera_group_split(world.group, world.rank % 2, -world.rank, &part));
  int rank = -1, size = -1;
  EXPECT_OK(tessera_group_rank(part, &rank));
  EXPECT_OK(tessera_group_size(part, &size));
  EXPECT_EQ(size, (world.size + 1 - world.rank % 2) / 2);
  EXPECT_EQ(rank, size - 1 - world.rank / 2);  // the key turns them round
  EXPECT_OK(tessera_group_destroy(&part));
  ASSERT_OK(tessera_group_split(world.group, world.rank == 0 ? -1 : 0, 0, &part));
  EXPECT_EQ(part == nullptr, world.rank == 0);
  EXPECT_OK(tessera_group_destroy(&part));
}

TEST(CMesh, HasGroupsByAxis) {
  const World world;
  tessera_mesh_shape shape{};
  shape.struct_size = sizeof shape;
  shape.tensor = world.size % 2 == 0 ? 2 : 1;
  tessera_mesh* mesh = nullptr;
  ASSERT_OK(tessera_mesh_create(world.runtime, &shape, &mesh));
  int coordinate = -1, size = -1;
  EXPECT_OK(tessera_mesh_coordinate(mesh, "tensor", &coordinate, &size));
  EXPECT_EQ(size, shape.tensor);
  EXPECT_EQ(coordinate, world.rank % shape.tensor);
  tessera_group* data = nullptr;
  ASSERT_OK(tessera_mesh_group(mesh, "data", &data));
  EXPECT_OK(tessera_mesh_destroy(&mesh));  // the group keeps it
  int ranks = 0;
  EXPECT_OK(tessera_group_size(data, &ranks));
  EXPECT_EQ(ranks, world.size / shape.tensor);
  double sum = world.rank;
  const tessera_array array = array_of(&sum, {});
  EXPECT_OK(tessera_all_reduce(data, &array, TESSERA_SUM));
  double expected = 0;
  for (int r = world.rank % shape.tensor; r < world.size; r += shape.tensor) expected += r;
  EXPECT_EQ(sum, expected);
  EXPECT_OK(tessera_group_destroy(&data));

  shape.sequence = 7;
  EXPECT_REFUSED(tessera_mesh_create(world.runtime, &shape, &mesh), TESSERA_INVALID_CONFIG, "7");
  ASSERT_OK(tessera_mesh_create(world.runtime, nullptr, &mesh));
  EXPECT_REFUSED(tessera_mesh_group(mesh, "height", &data), TESSERA_INVALID_ARGUMENT, "height");
  EXPECT_OK(tessera_mesh_destroy(&mesh));
}

// The host waits for any message of any tag on its own communicator all the while.
TEST(CRuntime, LeavesTheHostsMessagesAlone) {
  MPI_Comm host = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &host);
  int rank = 0, size = 0, received = -1;
  MPI_Comm_rank(host, &rank);
  MPI_Comm_size(host, &size);
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Irecv(&received, 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, host, &request);
  tessera_runtime* runtime = nullptr;
  tessera_group* world = nullptr;
  ASSERT_OK(tessera_runtime_create(host, nullptr, &runtime));
  ASSERT_OK(tessera_runtime_world(runtime, &world));
  std::vector<float> values(10000, 1.0f);
  const tessera_array array = array_of(values);
  EXPECT_OK(tessera_all_reduce(world, &array, TESSERA_SUM));
  EXPECT_EQ(values.back(), static_cast<float>(size));
  int arrived = 0;
  MPI_Test(&request, &arrived, MPI_STATUS_IGNORE);
  EXPECT_FALSE(arrived);
  EXPECT_OK(tessera_barrier(world));
  MPI_Send(&rank, 1, MPI_INT, (rank + 1) % size, 77, host);
  if (!arrived) MPI_Wait(&request, MPI_STATUS_IGNORE);
  EXPECT_EQ(received, (rank + size - 1) % size);
  EXPECT_OK(tessera_group_destroy(&world));
  EXPECT_OK(tessera_runtime_destroy(&runtime));
  MPI_Comm_free(&host);
}

}  // namespace
}  // namespace tessera::c::testing
