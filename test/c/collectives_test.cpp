// SPDX-License-Identifier: Apache-2.0
// Collectives on a caller's arrays, and which arrays they take.
#include <numeric>
#include <vector>

#include "c/placed.hpp"

namespace tessera::c::testing {
namespace {

TEST(CCollectives, MoveWhatTheySay) {
  for (const char* transport : {"auto", "mpi"}) {
    const World world(transport);
    const auto size = static_cast<std::size_t>(world.size);
    Placed<float> own(std::vector<float>(6, static_cast<float>(world.rank)));
    Placed<float> all(std::vector<float>(6 * size));
    const tessera_array piece = own.array({2, 3}), whole = all.array({world.size, 2, 3});
    const auto expect_own = [&](int value) {
      own.fetch();
      EXPECT_EQ(own.values, std::vector<float>(6, static_cast<float>(value)));
    };
    ASSERT_OK(tessera_all_gather(world.group, &piece, &whole));
    all.fetch();
    for (std::size_t i = 0; i < 6 * size; ++i) EXPECT_EQ(all.values[i], static_cast<float>(i / 6));
    ASSERT_OK(tessera_reduce_scatter(world.group, &whole, &piece, TESSERA_SUM));
    expect_own(world.rank * world.size);
    ASSERT_OK(tessera_reduce_scatter(world.group, &whole, &piece, TESSERA_MEAN));
    expect_own(world.rank);
    ASSERT_OK(tessera_all_reduce(world.group, &piece, TESSERA_MAX));
    expect_own(world.size - 1);

    Placed<std::int64_t> sent(std::vector<std::int64_t>(size, 0));
    Placed<std::int64_t> received(std::vector<std::int64_t>(size, -1));
    std::iota(sent.values.begin(), sent.values.end(), 100 * world.rank);
    sent.put();
    const tessera_array from = sent.array(), to = received.array();
    ASSERT_OK(tessera_all_to_all(world.group, &from, &to));
    received.fetch();
    for (std::size_t r = 0; r < size; ++r)
      EXPECT_EQ(received.values[r], 100 * static_cast<std::int64_t>(r) + world.rank);
    ASSERT_OK(tessera_broadcast(world.group, &from, world.size - 1));
    sent.fetch();
    EXPECT_EQ(sent.values.front(), 100 * (world.size - 1));
  }
}

TEST(CCollectives, SendAndReceive) {
  const World world;
  if (world.size < 2) return;
  if (tessera::testing::on_cuda()) {
    ASSERT_OK(tessera_group_open_gpus(world.group));
  }
  Placed<double> value({world.rank == 0 ? 2.5 : 0});
  const tessera_array array = value.array({});
  if (world.rank == 0) {
    ASSERT_OK(tessera_send(world.group, &array, 1, 3));
  } else if (world.rank == 1) {
    ASSERT_OK(tessera_receive(world.group, &array, 0, 3));
  }
  value.fetch();
  EXPECT_EQ(value.values[0], world.rank < 2 ? 2.5 : 0);
}

TEST(CArrays, MayBeColumnMajor) {
  const World world;
  std::vector<float> values(6, 1);
  tessera_array array = array_of(values.data(), {2, 3});
  array.order = TESSERA_COLUMN_MAJOR;
  EXPECT_OK(tessera_all_reduce(world.group, &array, TESSERA_SUM));
  array.strides[0] = 1;  // contiguous, spelt out
  array.strides[1] = 2;
  EXPECT_OK(tessera_all_reduce(world.group, &array, TESSERA_SUM));
  const auto size = static_cast<float>(world.size);
  EXPECT_EQ(values, std::vector<float>(6, size * size));
}

TEST(CArrays, ThatCannotBeAreRefused) {
  const World world;
  std::vector<float> values(24);
  const auto reduce = [&](const tessera_array& array) {
    return tessera_all_reduce(world.group, &array, TESSERA_SUM);
  };
  tessera_array array = array_of(values.data(), {2, 3});
  array.strides[0] = 4;
  array.strides[1] = 1;
  EXPECT_REFUSED(reduce(array), TESSERA_INVALID_ARGUMENT, "contiguous");
  array = array_of(values.data(), {2, -3});
  EXPECT_REFUSED(reduce(array), TESSERA_INVALID_ARGUMENT, "-3");
  array = array_of(values.data(), {});
  array.rank = 9;
  EXPECT_REFUSED(reduce(array), TESSERA_INVALID_ARGUMENT, "rank 9");
  array = array_of(static_cast<float*>(nullptr), {2});
  EXPECT_REFUSED(reduce(array), TESSERA_INVALID_ARGUMENT, "NULL");
  array = array_of(values.data(), {2});
  array.dtype = static_cast<tessera_dtype>(7);
  EXPECT_REFUSED(reduce(array), TESSERA_INVALID_ARGUMENT, "dtype 7");
  array = array_of(values.data(), {2});
  array.device = {TESSERA_CUDA_DEVICE, 99};
  if (cuda_device_count() > 0)
    EXPECT_REFUSED(reduce(array), TESSERA_INVALID_ARGUMENT, "lies on cuda:99, but this rank's GPU");
  else
    EXPECT_REFUSED(reduce(array), TESSERA_NOT_SUPPORTED, cuda_unavailable_reason());
  array.device.type = static_cast<tessera_device_type>(3);
  EXPECT_REFUSED(reduce(array), TESSERA_INVALID_ARGUMENT, "type 3");
  array = array_of(values.data(), {2});
  const tessera_array odd = array_of(values.data(), {2 * world.size + 1});
  EXPECT_REFUSED(tessera_all_gather(world.group, &array, &odd), TESSERA_INVALID_ARGUMENT,
                 "does not fit");
  EXPECT_REFUSED(tessera_broadcast(world.group, &array, 99), TESSERA_INVALID_ARGUMENT, "99");
}

}  // namespace
}  // namespace tessera::c::testing
