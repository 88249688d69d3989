// SPDX-License-Identifier: Apache-2.0
// ThreadSanitizer reports each missing barrier and each missing event, whatever the order, and
// nothing else.
#include <cstdlib>
#include <vector>

#include <gtest/gtest.h>

#include "emulation/device_data.hpp"
#include "emulation/emulation.hpp"
#include "emulation/kernels.hpp"

extern "C" {
const char* __tsan_default_options() {
  // At its end a process need not wait for others: whatever is reported is by then.
  return "exitcode=66:report_thread_leaks=0:report_mutex_bugs=0:atexit_sleep_ms=0";
}
}

namespace tessera::emulation_test {
namespace {

// Runs in a process of its own: the sanitizer reports a pair of places once, and the cases look
// much alike. 66 is the end of a process with reports; `place` must be in one of them.
void expect_report(int missing, const char* place, const auto& run) {
  const auto run_and_exit = [&] {
    run();
    std::exit(0);
  };
  if (missing == 0) {
    EXPECT_EXIT(run_and_exit(), testing::ExitedWithCode(0), "");
  } else {
    EXPECT_EXIT(run_and_exit(), testing::ExitedWithCode(66), place)
        << "barrier or event " << missing << " is missing";
  }
}

constexpr char kInKernel[] = "ThreadSanitizer: data race .*kernels.cu:[0-9]+";

class Races : public testing::TestWithParam<int> {};

TEST_P(Races, OfBlocksThatNormalize) {
  if (GetParam() > kNormalizeBarriers) {
    GTEST_SKIP() << "the kernel has no such barrier";
  }
  expect_report(GetParam(), kInKernel, [] {
    const TestStream stream;
    const DeviceArray<float> input(std::vector<float>(2 * 300, 1.5f)), output(2 * 300);
    normalize_rows(stream, input.data(), output.data(), 2, 300, GetParam());
    stream.synchronize();
  });
}

TEST_P(Races, OfBlocksThatMultiply) {
  if (GetParam() > kMultiplyBarriers) {
    GTEST_SKIP() << "the kernel has no such barrier";
  }
  expect_report(GetParam(), kInKernel, [] {
    const TestStream stream;
    const DeviceArray<float> a(std::vector<float>(64 * 64, 1.0f)), c(64 * 64);
    multiply(stream, a.data(), a.data(), c.data(), 64, GetParam());
    stream.synchronize();
  });
}

TEST_P(Races, OfWarps) {
  expect_report(GetParam(), kInKernel, [] {
    const TestStream stream;
    const DeviceArray<int> input(std::vector<int>(4 * 32, 1)), output(4);
    sum_warps(stream, input.data(), output.data(), 4, GetParam());
    stream.synchronize();
  });
}

INSTANTIATE_TEST_SUITE_P(Missing, Races, testing::Range(0, kWarpBarriers + 1));

TEST(NoRaces, OfAtomicsShufflesAndVotes) {
  expect_report(0, "", [] {
    const TestStream stream;
    const DeviceArray<std::uint32_t> values(std::vector<std::uint32_t>(1000, 3));
    const DeviceArray<unsigned> counts(std::vector<unsigned>(10, 0));
    const DeviceArray<int> output(kWarpResults * 32);
    histogram(stream, values.data(), counts.data(), 1000, 10);
    warp_operations(stream, output.data());
    if (counts.read(stream)[3] != 1000u) {
      std::abort();
    }
  });
}

// As in streams_test.cpp: three streams that hand a buffer on. 4: the host reads without a wait.
class RacesOfStreams : public testing::TestWithParam<int> {};

void run_step(int missing) {
  const TestStream compute, communication, copies;
  cudaEvent_t events[3];
  for (cudaEvent_t& event : events) {
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  }
  const DeviceArray<float> data(300);
  void* memory = nullptr;
  cudaHostAlloc(&memory, 300 * sizeof(float), cudaHostAllocDefault);
  auto* host = static_cast<float*>(memory);
  fill(compute, data.data(), 1.0f, 300);
  cudaEventRecord(events[0], compute);
  if (missing != 1) {
    cudaStreamWaitEvent(communication, events[0], 0);
  }
  increment(communication, data.data(), 300);
  cudaEventRecord(events[1], communication);
  if (missing != 2) {
    cudaStreamWaitEvent(copies, events[1], 0);
  }
  cudaMemcpyAsync(host, data.data(), 300 * sizeof(float), cudaMemcpyDeviceToHost, copies);
  cudaEventRecord(events[2], copies);
  if (missing != 3) {
    cudaStreamWaitEvent(compute, events[2], 0);
  }
  fill(compute, data.data(), 7.0f, 300);
  // The end of another stream says nothing about the copy, although it may have run.
  (missing == 4 ? communication : copies).synchronize();
  host[0] += 1.0f;
  cudaDeviceSynchronize();
  cudaFreeHost(memory);
  for (cudaEvent_t event : events) {
    cudaEventDestroy(event);
  }
}

TEST_P(RacesOfStreams, AreReported) {
  expect_report(GetParam(), "ThreadSanitizer: data race", [] { run_step(GetParam()); });
}
INSTANTIATE_TEST_SUITE_P(Missing, RacesOfStreams, testing::Range(0, 5));

}  // namespace
}  // namespace tessera::emulation_test
