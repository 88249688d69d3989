// SPDX-License-Identifier: Apache-2.0
// Graphs run what was captured, in any order that it allows, and captures refuse what CUDA refuses.
#include "emulation/graphs.hpp"

#include <cuda_runtime_api.h>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "emulation/device_data.hpp"
#include "emulation/emulation.hpp"
#include "emulation/kernels.hpp"

namespace tessera::emulation_test {
namespace {

using emulation::FaultKind;

constexpr int kSize = 8;

/// What a stream captures while `body` runs.
class TestGraph {
 public:
  template <typename Body>
  TestGraph(cudaStream_t stream, Body&& body) {
    EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    body();
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    EXPECT_EQ(cudaGraphInstantiate(&executable_, graph, 0), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  }
  TestGraph(const TestGraph&) = delete;
  TestGraph& operator=(const TestGraph&) = delete;
  ~TestGraph() { cudaGraphExecDestroy(executable_); }
  void launch(cudaStream_t stream) const {
    EXPECT_EQ(cudaGraphLaunch(executable_, stream), cudaSuccess);
  }
  operator cudaGraphExec_t() const { return executable_; }  // NOLINT: reads like the handle

 private:
  cudaGraphExec_t executable_ = nullptr;
};

TEST(Graphs, RunWhatWasCapturedWithEachLaunch) {
  const TestStream stream;
  const DeviceArray<float> data(kSize);
  fill(stream, data.data(), 1.0f, kSize);
  const auto before = emulation::launches();
  const TestGraph graph(stream, [&] {
    increment(stream, data.data(), kSize);
    increment(stream, data.data(), kSize);
  });
  stream.synchronize();
  EXPECT_EQ(emulation::launches(), before + 1) << "a capture runs nothing";
  const auto enqueued = emulation::enqueued();
  for (int i = 0; i < 3; ++i) {
    graph.launch(stream);
  }
  EXPECT_EQ(emulation::enqueued(), enqueued + 3);
  EXPECT_EQ(data.read(stream)[kSize - 1], 7.0f);
  EXPECT_EQ(emulation::launches(), before + 7);
}

TEST(Graphs, CopiesReadWhatIsThereWhenTheyRun) {
  const TestStream stream;
  const DeviceArray<float> input(kSize), output(kSize);
  const TestGraph graph(stream, [&] {
    cudaMemcpyAsync(output.data(), input.data(), kSize * sizeof(float), cudaMemcpyDeviceToDevice,
                    stream);
  });
  for (const float value : {1.0f, 2.0f}) {
    fill(stream, input.data(), value, kSize);
    graph.launch(stream);
    EXPECT_EQ(output.read(stream)[0], value);
  }
}

// Two streams of one capture, the second of which waits for the kernel of the first or not.
std::set<float> results_of_fork(bool waits) {
  std::set<float> results;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    emulation::set_seed(seed);
    const TestStream stream, side;
    const TestEvent fork, produced, join;
    const DeviceArray<float> data(kSize);
    const TestGraph graph(stream, [&] {
      cudaEventRecord(fork, stream);
      fill(stream, data.data(), 1.0f, kSize);
      cudaEventRecord(produced, stream);
      cudaStreamWaitEvent(side, waits ? produced : fork, 0);
      increment(side, data.data(), kSize);
      cudaEventRecord(join, side);
      cudaStreamWaitEvent(stream, join, 0);
      increment(stream, data.data(), kSize);
    });
    graph.launch(stream);
    results.insert(data.read(stream)[kSize - 1]);
  }
  emulation::set_seed(0);
  return results;
}

TEST(Graphs, EventsForkAndJoinTheirStreams) {
  EXPECT_EQ(results_of_fork(true), (std::set<float>{3.0f}));
  EXPECT_GT(results_of_fork(false).size(), 1u) << "nothing orders the first two kernels";
}

TEST(Graphs, StreamsHaveToComeBack) {
  const TestStream stream, side;
  const TestEvent fork;
  const DeviceArray<float> data(kSize);
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  cudaEventRecord(fork, stream);
  cudaStreamWaitEvent(side, fork, 0);
  fill(side, data.data(), 1.0f, kSize);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(side, &graph), cudaErrorStreamCaptureUnmatched);
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(graph, nullptr);
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorIllegalState);

  cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  cudaEventRecord(fork, stream);
  cudaStreamWaitEvent(side, fork, 0);
  fill(side, data.data(), 1.0f, kSize);
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(graph, nullptr);
  cudaGetLastError();
  fill(side, data.data(), 2.0f, kSize);  // both streams are free again
  EXPECT_EQ(data.read(side)[0], 2.0f);
}

/// The error of a call during a capture, which has to end without a graph.
template <typename Call>
cudaError_t error_of(Call&& call) {
  const TestStream stream;
  EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  const cudaError_t error = call(stream);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
  cudaGetLastError();
  return error;
}

TEST(Graphs, CapturesRefuseWaitsAndAllocations) {
  const TestStream other;
  const TestEvent outside;
  cudaEventRecord(outside, other);
  const DeviceArray<float> data(kSize);
  void* memory = nullptr;
  const std::vector<std::pair<cudaError_t, cudaError_t>> found = {
      {error_of([](cudaStream_t s) { return cudaStreamSynchronize(s); }),
       cudaErrorStreamCaptureUnsupported},
      {error_of([](cudaStream_t s) { return cudaStreamQuery(s); }),
       cudaErrorStreamCaptureUnsupported},
      {error_of([](cudaStream_t) { return cudaDeviceSynchronize(); }),
       cudaErrorStreamCaptureUnsupported},
      {error_of([&](cudaStream_t) { return cudaMalloc(&memory, 4); }),
       cudaErrorStreamCaptureUnsupported},
      {error_of([&](cudaStream_t) { return cudaFree(data.data()); }),
       cudaErrorStreamCaptureUnsupported},
      {error_of([&](cudaStream_t) { return cudaHostAlloc(&memory, 4, 0); }),
       cudaErrorStreamCaptureUnsupported},
      {error_of([&](cudaStream_t s) { return cudaStreamWaitEvent(s, outside, 0); }),
       cudaErrorStreamCaptureIsolation},
      {error_of([&](cudaStream_t s) {
         const TestEvent inside;
         cudaEventRecord(inside, s);
         return cudaEventSynchronize(inside);
       }),
       cudaErrorCapturedEvent}};
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].first, found[i].second) << i;
  }
}

TEST(Graphs, AnInvalidCaptureTakesNothingMore) {
  const TestStream stream;
  const DeviceArray<float> data(kSize);
  EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
            cudaErrorIllegalState);
  cudaStreamSynchronize(stream);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cudaStreamIsCapturing(stream, &status);
  EXPECT_EQ(status, cudaStreamCaptureStatusInvalidated);
  EXPECT_EQ(cudaMemsetAsync(data.data(), 0, 4, stream), cudaErrorStreamCaptureInvalidated);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
  cudaGetLastError();
}

TEST(Graphs, WhatAReplayCouldNotRepeatIsAFault) {
  const Faults faults;
  const DeviceArray<float> data(kSize);
  const float host = 0.0f;
  error_of([&](cudaStream_t s) {
    return cudaMemcpyAsync(data.data(), &host, 4, cudaMemcpyHostToDevice, s);
  });
  void* memory = nullptr;
  error_of([&](cudaStream_t s) { return cudaMallocAsync(&memory, 4, s); });
  error_of([&](cudaStream_t s) { return cudaFreeAsync(data.data(), s); });
  ASSERT_EQ(faults.all().size(), 3u) << faults.text();
  for (const auto& fault : faults.all()) {
    EXPECT_EQ(fault.kind, FaultKind::misuse) << fault.message;
  }
}

TEST(Graphs, TheirMemoryHasToStay) {
  const TestStream stream;
  const Faults faults;
  void* memory = nullptr;
  cudaMallocAsync(&memory, kSize * sizeof(float), stream);
  const TestGraph graph(stream, [&] { increment(stream, static_cast<float*>(memory), kSize); });
  cudaFreeAsync(memory, stream);
  graph.launch(stream);
  stream.synchronize();
  EXPECT_NE(faults.text().find("of the freed device allocation"), std::string::npos)
      << faults.text();
}

TEST(Graphs, ADestroyedOneIsNotLaunched) {
  const TestStream stream;
  const DeviceArray<float> data(kSize);
  cudaGraphExec_t executable = nullptr;
  {
    const TestGraph graph(stream, [&] { fill(stream, data.data(), 4.0f, kSize); });
    graph.launch(stream);
    executable = graph;
  }
  EXPECT_EQ(data.read(stream)[0], 4.0f) << "what is under way still runs";
  const Faults faults;
  EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaErrorInvalidValue);
  EXPECT_NE(faults.text().find("cudaGraphLaunch uses a graph that does not exist"),
            std::string::npos);
  cudaGetLastError();
}

}  // namespace
}  // namespace tessera::emulation_test
