// SPDX-License-Identifier: Apache-2.0
// Collectives on a caller's arrays, and which arrays they take.
#include <numeric>
#include <vector>

#include "c/support.hpp"

namespace tessera::c::testing {
namespace {

TEST(CCollectives, MoveWhatTheySay) {
  for (const char* transport : {"auto", "mpi"}) {
    const World world(transport);
    const auto size = static_cast<std::size_t>(world.size);
    std::vector<float> own(6, static_cast<float>(world.rank)), all(6 * size);
    const tessera_array piece = array_of(own.data(), {2, 3});
    const tessera_array whole = array_of(all.data(), {world.size, 2, 3});
    ASSERT_OK(tessera_all_gather(world.group, &piece, &whole));
    for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], static_cast<float>(i / 6));
    ASSERT_OK(tessera_reduce_scatter(world.group, &whole, &piece, TESSERA_SUM));
    EXPECT_EQ(own, std::vector<float>(6, static_cast<float>(world.rank * world.size)));
    ASSERT_OK(tessera_reduce_scatter(world.group, &whole, &piece, TESSERA_MEAN));
    EXPECT_EQ(own, std::vector<float>(6, static_cast<float>(world.rank)));
    ASSERT_OK(tessera_all_reduce(world.group, &piece, TESSERA_MAX));
    EXPECT_EQ(own, std::vector<float>(6, static_cast<float>(world.size - 1)));

    std::vector<std::int64_t> sent(size), received(size, -1);
    std::iota(sent.begin(), sent.end(), 100 * world.rank);
    const tessera_array from = array_of(sent), to = array_of(received);
    ASSERT_OK(tessera_all_to_all(world.group, &from, &to));
    for (std::size_t r = 0; r < size; ++r)
      EXPECT_EQ(received[r], 100 * static_cast<std::int64_t>(r) + world.rank);
    ASSERT_OK(tessera_broadcast(world.group, &from, world.size - 1));
    EXPECT_EQ(sent.front(), 100 * (world.size - 1));
  }
}

TEST(CCollectives, SendAndReceive) {
  const World world;
  if (world.size < 2) return;
  double value = world.rank == 0 ? 2.5 : 0;
  const tessera_array array = array_of(&value, {});
  if (world.rank == 0) {
    ASSERT_OK(tessera_send(world.group, &array, 1, 3));
  } else if (world.rank == 1) {
    ASSERT_OK(tessera_receive(world.group, &array, 0, 3));
  }
  EXPECT_EQ(value, world.rank < 2 ? 2.5 : 0);
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
  array.device.type = TESSERA_CUDA_DEVICE;
  EXPECT_REFUSED(reduce(array), TESSERA_NOT_SUPPORTED, "device");
  array = array_of(values.data(), {2});
  const tessera_array odd = array_of(values.data(), {2 * world.size + 1});
  EXPECT_REFUSED(tessera_all_gather(world.group, &array, &odd), TESSERA_INVALID_ARGUMENT,
                 "does not fit");
  EXPECT_REFUSED(tessera_broadcast(world.group, &array, 99), TESSERA_INVALID_ARGUMENT, "99");
}

}  // namespace
}  // namespace tessera::c::testing
