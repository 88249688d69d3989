// SPDX-License-Identifier: Apache-2.0
// The CPU's stream does work at once; a backend's stream receives every call.
#include "tessera/device/stream.hpp"

#include <array>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(Stream, CpuCopiesAtOnceAlsoWhereRangesOverlap) {
  const Stream stream;
  std::array<int, 5> values = {1, 2, 3, 4, 5};
  stream.copy(values.data() + 1, values.data(), 4 * sizeof(int));
  EXPECT_EQ(values, (std::array<int, 5>{1, 1, 2, 3, 4}));
  stream.fill_zero(values.data(), 2 * sizeof(int));
  EXPECT_EQ(values, (std::array<int, 5>{0, 0, 2, 3, 4}));
  EXPECT_EQ(stream.native_handle(), nullptr);
  EXPECT_TRUE(stream.device().is_cpu());
}

TEST(Stream, NothingToCopyMayBeNull) {
  const Stream stream;
  stream.copy(nullptr, nullptr, 0);
  stream.fill_zero(nullptr, 0);
}

TEST(Stream, CpuEventsAreReachedAtOnce) {
  const Stream stream;
  const Event event = stream.record();
  stream.wait(event);
  EXPECT_TRUE(event.reached());
  event.synchronize();
  Event().synchronize();
  stream.synchronize();
}

struct Recorder final : Stream::Backend {
  std::vector<std::string> calls;
  void copy(void*, const void*, std::size_t) override { calls.emplace_back("copy"); }
  void fill_zero(void*, std::size_t) override { calls.emplace_back("zero"); }
  void synchronize() override { calls.emplace_back("synchronize"); }
  void* native_handle() override { return this; }
  std::shared_ptr<void> record() override {
    calls.emplace_back("record");
    return std::make_shared<int>(1);
  }
  void wait(void*) override { calls.emplace_back("wait"); }
  void wait_on_host(void*) override { calls.emplace_back("wait on host"); }
  bool reached(void*) override {
    calls.emplace_back("reached");
    return false;
  }
};

TEST(Stream, HandsEverythingToItsBackend) {
  const auto recorder = std::make_shared<Recorder>();
  const Stream stream(Device{DeviceType::cuda, 0}, recorder);
  int source = 1, target = 0;
  stream.copy(&target, &source, sizeof(int));
  stream.fill_zero(&target, sizeof(int));
  const Event event = stream.record();
  stream.wait(event);
  EXPECT_FALSE(event.reached());
  event.synchronize();
  stream.synchronize();
  EXPECT_EQ(recorder->calls, (std::vector<std::string>{"copy", "zero", "record", "wait", "reached",
                                                       "wait on host", "synchronize"}));
  EXPECT_EQ(stream.native_handle(), recorder.get());
  EXPECT_EQ(target, 0) << "shared code does not touch device memory";
}

}  // namespace
}  // namespace tessera
