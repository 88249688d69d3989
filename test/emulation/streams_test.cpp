// SPDX-License-Identifier: Apache-2.0
// Streams hold work back, and run it in any order that events allow.
#include "emulation/streams.hpp"

#include <cmath>
#include <set>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

#include "emulation/device_data.hpp"
#include "emulation/emulation.hpp"
#include "emulation/kernels.hpp"

namespace tessera::emulation_test {
namespace {

using emulation::FaultKind;

constexpr int kSize = 8;

void* pinned(std::size_t bytes) {
  void* data = nullptr;
  EXPECT_EQ(cudaHostAlloc(&data, bytes, cudaHostAllocDefault), cudaSuccess);
  return data;
}

TEST(Streams, HoldWorkBackUntilSomethingWaits) {
  const TestStream stream, other;
  const DeviceArray<float> data(kSize);
  const auto before = emulation::launches();
  fill(stream, data.data(), 1.0f, kSize);
  cudaMemsetAsync(data.data(), 0, 4, other);
  EXPECT_EQ(emulation::launches(), before);
  stream.synchronize();
  EXPECT_EQ(emulation::launches(), before + 1);
}

TEST(Streams, HostReadsTooEarlyWithoutAWait) {
  const TestStream stream;
  const DeviceArray<float> data(kSize);
  auto* host = static_cast<float*>(pinned(kSize * sizeof(float)));
  host[0] = -1.0f;
  fill(stream, data.data(), 1.0f, kSize);
  cudaMemcpyAsync(host, data.data(), kSize * sizeof(float), cudaMemcpyDeviceToHost, stream);
  EXPECT_EQ(host[0], -1.0f);
  stream.synchronize();
  EXPECT_EQ(host[0], 1.0f);
  cudaFreeHost(host);
}

// A step of training in small: two kernels on two streams and a result on a third. `missing` names
// the wait that is left out, from 1.
std::set<float> results_of_step(int missing) {
  std::set<float> results;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    emulation::set_seed(seed);
    const TestStream compute, communication, copies;
    const TestEvent produced, reduced, copied;
    const DeviceArray<float> data(kSize);
    auto* host = static_cast<float*>(pinned(kSize * sizeof(float)));
    std::fill_n(host, kSize, -1.0f);
    fill(compute, data.data(), 1.0f, kSize);
    cudaEventRecord(produced, compute);
    if (missing != 1) {
      cudaStreamWaitEvent(communication, produced, 0);
    }
    increment(communication, data.data(), kSize);
    cudaEventRecord(reduced, communication);
    if (missing != 2) {
      cudaStreamWaitEvent(copies, reduced, 0);
    }
    cudaMemcpyAsync(host, data.data(), kSize * sizeof(float), cudaMemcpyDeviceToHost, copies);
    cudaEventRecord(copied, copies);
    if (missing != 3) {
      cudaStreamWaitEvent(compute, copied, 0);
    }
    fill(compute, data.data(), 7.0f, kSize);  // the buffer's next use
    cudaEventSynchronize(copied);
    results.insert(std::isnan(host[0]) ? -2.0f : host[0]);
    cudaDeviceSynchronize();
    cudaFreeHost(host);
  }
  emulation::set_seed(0);
  return results;
}

TEST(Streams, EventsOrderThem) {
  EXPECT_EQ(results_of_step(0), (std::set<float>{2.0f}));
}

TEST(Streams, EachMissingEventIsFound) {
  for (int missing = 1; missing <= 3; ++missing) {
    EXPECT_GT(results_of_step(missing).size(), 1u) << missing;
  }
}

TEST(Streams, WaitsAreForTheRecordBeforeThem) {
  const TestStream one, two;
  const TestEvent event;
  const DeviceArray<float> data(kSize);
  // Never recorded: no wait.
  cudaStreamWaitEvent(two, event, 0);
  two.synchronize();
  fill(one, data.data(), 1.0f, kSize);
  cudaEventRecord(event, one);
  cudaStreamWaitEvent(two, event, 0);
  // Recorded again behind a wait for the other stream: the first record must be enough.
  const TestEvent done;
  cudaEventRecord(done, two);
  cudaStreamWaitEvent(one, done, 0);
  cudaEventRecord(event, one);
  EXPECT_EQ(cudaEventSynchronize(event), cudaSuccess);
}

TEST(Streams, PollingComesToAnEnd) {
  const TestStream stream;
  const TestEvent event;
  const DeviceArray<float> data(kSize);
  for (int i = 0; i < 5; ++i) {
    fill(stream, data.data(), 1.0f, kSize);
  }
  cudaEventRecord(event, stream);
  int polls = 0;
  while (cudaEventQuery(event) == cudaErrorNotReady) {
    ASSERT_LT(++polls, 10000);
  }
  EXPECT_GT(polls, 0);
  EXPECT_EQ(cudaStreamQuery(stream), cudaSuccess);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);  // not ready is no error
}

TEST(Streams, WorkOfADestroyedStreamStillRuns) {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  const DeviceArray<float> data(kSize);
  fill(stream, data.data(), 5.0f, kSize);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  cudaDeviceSynchronize();
  const TestStream other;
  EXPECT_EQ(data.read(other)[0], 5.0f);
  const Faults faults;
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
  EXPECT_NE(faults.text().find("cudaStreamSynchronize uses a stream that does not exist"),
            std::string::npos);
}

TEST(Streams, TheDefaultStreamIsAFault) {
  const Faults faults;
  const DeviceArray<float> data(kSize);
  fill(nullptr, data.data(), 1.0f, kSize);
  cudaMemsetAsync(data.data(), 0, 4, cudaStreamPerThread);
  cudaStreamSynchronize(nullptr);
  float host = 0.0f;
  cudaMemcpy(&host, data.data(), 4, cudaMemcpyDeviceToHost);
  ASSERT_EQ(faults.all().size(), 4u) << faults.text();
  for (const auto& fault : faults.all()) {
    EXPECT_EQ(fault.kind, FaultKind::default_stream) << fault.message;
  }
  EXPECT_NE(faults.all()[0].message.find("fill_kernel"), std::string::npos);
  cudaGetLastError();
}

TEST(Streams, HostFunctionsMustNotCallCuda) {
  const Faults faults;
  const TestStream stream, other;
  const DeviceArray<float> data(kSize);
  fill(other, data.data(), 1.0f, kSize);
  cudaLaunchHostFunc(
      stream, [](void* handle) { cudaStreamSynchronize(static_cast<cudaStream_t>(handle)); },
      static_cast<cudaStream_t>(other));
  stream.synchronize();
  ASSERT_EQ(faults.all().size(), 1u);
  EXPECT_NE(faults.text().find("inside of cudaLaunchHostFunc"), std::string::npos);
}

TEST(Streams, PolledWorkHoldsOnlyItsStreamUp) {
  const TestStream stream, other;
  const DeviceArray<float> data(kSize);
  int polls = 0;
  emulation::enqueue(stream, "a message", [&] { return ++polls == 5; });
  fill(stream, data.data(), 2.0f, kSize);
  fill(other, data.data(), 1.0f, kSize);
  other.synchronize();
  stream.synchronize();
  EXPECT_EQ(polls, 5);
  EXPECT_EQ(data.read(stream)[0], 2.0f);
  EXPECT_FALSE(emulation::progress());
}

TEST(Streams, FaultHandlersMayThrow) {
  const auto previous = emulation::set_fault_handler(
      [](const emulation::Fault& fault) { throw std::runtime_error(fault.message); });
  const TestStream stream;
  const DeviceArray<float> data(64);
  go_wrong(stream, Wrong::trap, data.data());
  EXPECT_THROW(stream.synchronize(), std::runtime_error);
  emulation::set_fault_handler(previous);
  // The kernel is gone, and the stream goes on.
  fill(stream, data.data(), 1.0f, 64);
  EXPECT_EQ(data.read(stream)[63], 1.0f);
}

TEST(Streams, HostFunctionsRunInOrder) {
  const TestStream stream;
  std::vector<int> order;
  for (int i = 0; i < 3; ++i) {
    cudaLaunchHostFunc(
        stream,
        [](void* list) {
          auto& all = *static_cast<std::vector<int>*>(list);
          all.push_back(static_cast<int>(all.size()));
        },
        &order);
  }
  EXPECT_TRUE(order.empty());
  stream.synchronize();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
}

TEST(Streams, WrongLaunchesAreErrors) {
  const TestStream stream;
  const DeviceArray<float> data(kSize);
  fill(stream, data.data(), 1.0f, 0);  // a grid of no blocks
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

}  // namespace
}  // namespace tessera::emulation_test
