// SPDX-License-Identifier: Apache-2.0
// Wrong accesses to memory are reported: by kernels, copies and the host.
#include "emulation/memory.hpp"

#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "emulation/device_data.hpp"
#include "emulation/emulation.hpp"
#include "emulation/kernels.hpp"

namespace tessera::emulation_test {
namespace {

using emulation::FaultKind;

void expect_memory_fault(const Faults& faults, const std::string& part) {
  ASSERT_EQ(faults.all().size(), 1u) << faults.text();
  EXPECT_EQ(faults.all()[0].kind, FaultKind::memory);
  EXPECT_NE(faults.text().find(part), std::string::npos) << faults.text();
}

float* allocate(std::size_t floats) {
  void* data = nullptr;
  EXPECT_EQ(cudaMalloc(&data, floats * sizeof(float)), cudaSuccess);
  return static_cast<float*>(data);
}

TEST(Memory, IsPoisoned) {
  const TestStream stream;
  const DeviceArray<float> data(100);
  for (const float value : data.read(stream)) {
    EXPECT_TRUE(std::isnan(value));
  }
}

TEST(Memory, AlignsAsCudaDoes) {
  for (const std::size_t floats : {1u, 7u, 64u, 65u, 1000u, 5000u}) {
    const DeviceArray<float> data(floats);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data.data()) % 256, 0u);
  }
}

TEST(Memory, ReportsWritesFarBehindTheEnd) {
  const Faults faults;
  const TestStream stream;
  const DeviceArray<float> data(64);
  fill(stream, data.data(), 1.0f, 65);
  stream.synchronize();
  expect_memory_fault(faults, "fill_kernel");
  EXPECT_NE(faults.text().find("writes memory at kernels.cu:"), std::string::npos);
  EXPECT_NE(faults.text().find("is byte 256 of the device allocation of 256 bytes"),
            std::string::npos)
      << faults.text();
}

TEST(Memory, ReportsWritesRightBehindTheEnd) {
  const Faults faults;
  const TestStream stream;
  const DeviceArray<float> data(61);
  fill(stream, data.data(), 1.0f, 62);
  stream.synchronize();
  expect_memory_fault(faults, "fill_kernel has written outside of allocations");
}

TEST(Memory, ReportsWritesBeforeTheBegin) {
  const Faults faults;
  const TestStream stream;
  const DeviceArray<float> data(64);
  fill(stream, data.data() - 1, 1.0f, 3);
  stream.synchronize();
  expect_memory_fault(faults, "is byte -4 of the device allocation");
}

TEST(Memory, ReportsUseAfterFree) {
  const Faults faults;
  const TestStream stream;
  float* data = allocate(100);
  fill(stream, data, 1.0f, 100);
  EXPECT_EQ(cudaFree(data), cudaSuccess);  // waits for the kernel
  EXPECT_TRUE(faults.all().empty()) << faults.text();
  fill(stream, data, 1.0f, 100);
  stream.synchronize();
  expect_memory_fault(faults, "of the freed device allocation of 400 bytes");
}

TEST(Memory, ReportsUseAfterFreeInStreamOrder) {
  const Faults faults;
  const TestStream stream;
  void* data = nullptr;
  ASSERT_EQ(cudaMallocAsync(&data, 400, stream), cudaSuccess);
  fill(stream, static_cast<float*>(data), 1.0f, 100);
  ASSERT_EQ(cudaFreeAsync(data, stream), cudaSuccess);
  stream.synchronize();
  EXPECT_TRUE(faults.all().empty()) << faults.text();
  fill(stream, static_cast<float*>(data), 1.0f, 100);
  stream.synchronize();
  expect_memory_fault(faults, "of the freed device allocation");
}

TEST(Memory, ReportsUseByAnotherStreamBeforeTheAllocation) {
  const Faults faults;
  const TestStream one, other;
  void* data = nullptr;
  ASSERT_EQ(cudaMallocAsync(&data, 400, one), cudaSuccess);
  fill(other, static_cast<float*>(data), 1.0f, 100);
  other.synchronize();
  std::size_t found = faults.all().size();
  for (std::uint64_t seed = 1; found == 0 && seed < 20; ++seed) {
    emulation::set_seed(seed);
    ASSERT_EQ(cudaMallocAsync(&data, 400, one), cudaSuccess);
    fill(other, static_cast<float*>(data), 1.0f, 100);
    other.synchronize();
    found = faults.all().size();
  }
  emulation::set_seed(0);
  expect_memory_fault(faults, "not yet allocated");
}

TEST(Memory, ReportsSecondFreeAndFreeOfTheMiddle) {
  const Faults faults;
  float* data = allocate(100);
  EXPECT_EQ(cudaFree(data + 1), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(data), cudaSuccess);
  EXPECT_EQ(cudaFree(data), cudaErrorInvalidValue);
  EXPECT_EQ(faults.all().size(), 2u) << faults.text();
  cudaGetLastError();
}

TEST(Memory, ChecksBoundsOfCopiesAndFills) {
  const TestStream stream;
  const DeviceArray<float> data(100);
  std::vector<float> host(200);
  {
    const Faults faults;
    cudaMemcpyAsync(host.data(), data.data(), 404, cudaMemcpyDeviceToHost, stream);
    expect_memory_fault(faults, "reads 404 bytes");
  }
  {
    const Faults faults;
    cudaMemcpyAsync(data.data() + 90, host.data(), 44, cudaMemcpyHostToDevice, stream);
    expect_memory_fault(faults, "writes 44 bytes");
  }
  {
    const Faults faults;
    cudaMemsetAsync(data.data(), 0, 401, stream);
    expect_memory_fault(faults, "writes 401 bytes");
  }
  {
    const Faults faults;
    cudaMemcpyAsync(host.data(), data.data(), 400, cudaMemcpyHostToDevice, stream);
    expect_memory_fault(faults, "with kind 1");
  }
  cudaGetLastError();
}

TEST(Memory, KeepsPageableSourcesAndNotPinnedOnes) {
  const TestStream stream;
  const DeviceArray<float> data(2);
  void* pinned = nullptr;
  ASSERT_EQ(cudaHostAlloc(&pinned, 4, cudaHostAllocDefault), cudaSuccess);
  float pageable = 1.0f;
  *static_cast<float*>(pinned) = 1.0f;
  cudaMemcpyAsync(data.data(), &pageable, 4, cudaMemcpyHostToDevice, stream);
  cudaMemcpyAsync(data.data() + 1, pinned, 4, cudaMemcpyHostToDevice, stream);
  // Too early for the pinned one.
  pageable = 2.0f;
  *static_cast<float*>(pinned) = 2.0f;
  EXPECT_EQ(data.read(stream), (std::vector<float>{1.0f, 2.0f}));
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST(Memory, RunsOutAndComesBack) {
  std::size_t free = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  void* data = nullptr;
  EXPECT_EQ(cudaMalloc(&data, free + 1), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMalloc(&data, 1000), cudaSuccess);
  std::size_t less = 0;
  ASSERT_EQ(cudaMemGetInfo(&less, &total), cudaSuccess);
  EXPECT_EQ(less, free - 1000);
  EXPECT_EQ(cudaFree(data), cudaSuccess);
  ASSERT_EQ(cudaMemGetInfo(&less, &total), cudaSuccess);
  EXPECT_EQ(less, free);
}

TEST(Memory, ReportsOverrunsOfSharedMemory) {
  const TestStream stream;
  const DeviceArray<float> data(64);
  {
    const Faults faults;
    go_wrong(stream, Wrong::static_overrun, data.data());
    stream.synchronize();
    expect_memory_fault(faults, "index 64 is outside of 'float [64]' at kernels.cu:");
  }
  {
    const Faults faults;
    go_wrong(stream, Wrong::dynamic_overrun, data.data());
    stream.synchronize();
    expect_memory_fault(faults, "writes memory at kernels.cu:");
  }
}

TEST(Memory, ReportsMisalignedVectors) {
  const TestStream stream;
  const DeviceArray<float> data(400);
  const Faults faults;
  go_wrong(stream, Wrong::misaligned_vector, data.data());
  stream.synchronize();
  expect_memory_fault(faults, "not a multiple of 16");
}

using MemoryDeathTest = testing::Test;

TEST(MemoryDeathTest, EndsHostsThatTouchDeviceMemory) {
  const TestStream stream;
  const DeviceArray<float> data(100);
  fill(stream, data.data(), 3.0f, 100);
  stream.synchronize();
  EXPECT_DEATH(
      *static_cast<volatile float*>(data.data()) = 1.0f,
      "emulated CUDA: the host, not the device, writes memory at .*is byte 0 of the device");
  EXPECT_DEATH(static_cast<void>(*static_cast<volatile float*>(data.data() + 5)),
               "the host, not the device, reads memory at .*is byte 20 of the device");
}

TEST(MemoryDeathTest, EndsCallbacksThatTouchDeviceMemory) {
  const TestStream stream;
  const DeviceArray<float> data(100);
  EXPECT_DEATH(
      {
        fill(stream, data.data(), 3.0f, 100);
        cudaLaunchHostFunc(
            stream, [](void* address) { *static_cast<volatile float*>(address) = 1.0f; },
            data.data());
        stream.synchronize();
      },
      "the host, not the device, writes");
}

TEST(MemoryDeathTest, WithoutHandlerAFaultEndsTheProcess) {
  const TestStream stream;
  const DeviceArray<float> data(64);
  EXPECT_DEATH(
      {
        fill(stream, data.data(), 1.0f, 65);
        stream.synchronize();
      },
      "emulated CUDA: kernel .*fill_kernel, block \\(0,0,0\\), thread \\(64,0,0\\): writes memory");
}

}  // namespace
}  // namespace tessera::emulation_test
