// SPDX-License-Identifier: Apache-2.0
// Device memory in stream order, counted by purpose; page-locked host memory.
#include "tessera/device/memory.hpp"

#include <cstring>

#include "support/cuda_testing.hpp"
#include "support/expect_error.hpp"

namespace tessera {
namespace {

using test::gpu;

TEST(CudaMemory, IsCountedWhileItLives) {
  TESSERA_NEEDS_GPU();
  const std::int64_t before = memory_ledger(gpu()).current(Purpose::gradients);
  {
    Buffer buffer = allocate(1000, gpu(), Purpose::gradients);
    EXPECT_EQ(buffer.device(), gpu());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 256, 0u);
    EXPECT_EQ(memory_ledger(gpu()).current(Purpose::gradients), before + 1000);
    const Buffer moved = std::move(buffer);
    EXPECT_EQ(memory_ledger(gpu()).current(Purpose::gradients), before + 1000);
  }
  EXPECT_EQ(memory_ledger(gpu()).current(Purpose::gradients), before);
  EXPECT_FALSE(allocate(0, gpu(), Purpose::gradients));
}

TEST(CudaMemory, IsKnownByItsAddress) {
  TESSERA_NEEDS_GPU();
  const Device last{DeviceType::cuda, cuda_device_count() - 1};
  const Buffer buffer = allocate(1000, last, Purpose::workspace);
  EXPECT_EQ(device_of_address(buffer.data()), last);
  EXPECT_EQ(device_of_address(buffer.as<char>() + 999), last);
}

TEST(CudaMemory, IsTakenBackAfterTheWorkOfItsStream) {
  TESSERA_NEEDS_GPU();
  const Stream stream = make_stream(gpu());
  const StreamScope scope(stream);
  constexpr std::size_t kCount = 2048;
  Buffer source = allocate_pinned(kCount * sizeof(int), Purpose::workspace);
  Buffer target = allocate_pinned(source.bytes(), Purpose::workspace);
  for (std::size_t i = 0; i < kCount; ++i) source.as<int>()[i] = static_cast<int>(3 * i);
  {
    const Buffer inner = allocate(source.bytes(), gpu(), Purpose::activations);
    stream.copy(inner.data(), source.data(), source.bytes());
    stream.copy(target.data(), inner.data(), source.bytes());
  }  // destroyed before its copies need have run
  const Buffer next = allocate(source.bytes(), gpu(), Purpose::activations);
  stream.fill_zero(next.data(), next.bytes());
  stream.synchronize();
  EXPECT_EQ(std::memcmp(source.data(), target.data(), source.bytes()), 0);
}

TEST(CudaMemory, TooMuchNamesTheTableAndWhatHelps) {
  TESSERA_NEEDS_GPU();
  const Buffer some = allocate(3 << 20, gpu(), Purpose::optimizer);
  test::expect_error(Code::out_of_memory,
                     {"1.0 PiB", "activations", "cuda:0", "optimizer", "3.0 MiB", "stage",
                      "offload", "train_micro_batch_size_per_gpu"},
                     [] { allocate(std::size_t{1} << 50, gpu(), Purpose::activations); });
  const Buffer after = allocate(1000, gpu(), Purpose::activations);
  EXPECT_TRUE(after) << "a failed allocation leaves the device usable";
}

TEST(CudaMemory, CachedMemoryCanBeGivenBack) {
  TESSERA_NEEDS_GPU();
  allocate(1 << 20, gpu(), Purpose::workspace);
  current_stream(gpu()).synchronize();
  release_cached_memory(gpu());
  const Stream stream = current_stream(gpu());
  const Buffer again = test::on_device(stream, std::vector<int>{1, 2, 3});
  EXPECT_EQ(test::on_host<int>(stream, again.data(), 3), (std::vector<int>{1, 2, 3}));
}

TEST(CudaMemory, PinnedBlocksAreReused) {
  TESSERA_NEEDS_GPU();
  void* data = allocate_pinned(100'000, Purpose::workspace).data();
  const Buffer again = allocate_pinned(90'000, Purpose::workspace);
  EXPECT_EQ(again.data(), data) << "locking pages anew would cost more than the copy";
}

TEST(CudaMemory, PinnedBlocksOfAStreamAreReusedAfterItsWork) {
  TESSERA_NEEDS_GPU();
  const Stream stream = make_stream(gpu());
  const StreamScope scope(stream);
  const Buffer target = allocate(200'000, gpu(), Purpose::workspace);
  const auto fill = [&](char value) {
    const Buffer source = allocate_pinned(200'000, Purpose::workspace, stream);
    std::memset(source.data(), value, source.bytes());
    stream.copy(target.data(), source.data(), source.bytes());
    return source.data();
  };
  const void* first = fill(1);
  {  // The copy may still be to come: whoever wants memory now must not get what it reads.
    const Buffer other = allocate_pinned(200'000, Purpose::workspace);
    std::memset(other.data(), 2, other.bytes());
    EXPECT_EQ(test::on_host<char>(stream, target.data(), 200'000), std::vector<char>(200'000, 1));
  }
  const Buffer one = allocate_pinned(200'000, Purpose::workspace);
  const Buffer two = allocate_pinned(200'000, Purpose::workspace);
  EXPECT_TRUE(one.data() == first || two.data() == first) << "its work is done";
}

}  // namespace
}  // namespace tessera
