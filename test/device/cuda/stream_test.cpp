// SPDX-License-Identifier: Apache-2.0
// Streams and events of a GPU: order inside a stream, and between streams by events only.
#include "tessera/device/stream.hpp"

#include <numeric>

#include "support/cuda_testing.hpp"

namespace tessera {
namespace {

using test::gpu;

std::vector<int> numbers(std::size_t count) {
  std::vector<int> values(count);
  std::iota(values.begin(), values.end(), 1);
  return values;
}

TEST(CudaStream, CopiesAndZerosInOrder) {
  TESSERA_NEEDS_GPU();
  const Stream stream = make_stream(gpu());
  EXPECT_EQ(stream.device(), gpu());
  EXPECT_NE(stream.native_handle(), nullptr);
  const std::vector<int> values = numbers(1000);
  const Buffer first = test::on_device(stream, values);
  const Buffer second = test::on_device(stream, std::vector<int>(1000, -1));
  stream.copy(second.data(), first.data(), first.bytes());
  stream.fill_zero(first.data(), 10 * sizeof(int));
  EXPECT_EQ(test::on_host<int>(stream, second.data(), 1000), values);
  const std::vector<int> zeroed = test::on_host<int>(stream, first.data(), 1000);
  EXPECT_EQ(zeroed[9], 0);
  EXPECT_EQ(zeroed[10], 11);
}

TEST(CudaStream, AnEventOrdersTwoStreams) {
  TESSERA_NEEDS_GPU();
  const Stream producer = make_stream(gpu());
  const Stream consumer = make_stream(gpu(), StreamPriority::high);
  const std::vector<int> values = numbers(4096);
  Buffer source = allocate_pinned(values.size() * sizeof(int), Purpose::workspace);
  Buffer target = allocate_pinned(source.bytes(), Purpose::workspace);
  const Buffer middle = test::on_device(producer, std::vector<int>(values.size(), 0));
  for (int round = 0; round < 20; ++round) {
    for (std::size_t i = 0; i < values.size(); ++i) source.as<int>()[i] = values[i] + round;
    producer.copy(middle.data(), source.data(), source.bytes());
    consumer.wait(producer.record());
    consumer.copy(target.data(), middle.data(), target.bytes());
    const Event done = consumer.record();
    producer.wait(done);  // before the next round overwrites what is being read
    done.synchronize();
    EXPECT_TRUE(done.reached());
    ASSERT_EQ(target.as<int>()[0], 1 + round);
    ASSERT_EQ(target.as<int>()[values.size() - 1], static_cast<int>(values.size()) + round);
  }
}

TEST(CudaStream, EventsOutliveTheirStream) {
  TESSERA_NEEDS_GPU();
  Event event;
  {
    const Stream stream = make_stream(gpu());
    event = stream.record();
  }
  event.synchronize();
  EXPECT_TRUE(event.reached());
}

TEST(CudaStream, ScopesNameTheCurrentStream) {
  TESSERA_NEEDS_GPU();
  const void* before = current_stream(gpu()).native_handle();
  EXPECT_EQ(current_stream(gpu()).native_handle(), before) << "one default stream";
  {
    const Stream outer = make_stream(gpu());
    const StreamScope scope(outer);
    EXPECT_EQ(current_stream(gpu()).native_handle(), outer.native_handle());
    {
      const Stream inner = make_stream(gpu());
      const StreamScope again(inner);
      const StreamScope host{Stream{}};  // another device's: does not count
      EXPECT_EQ(current_stream(gpu()).native_handle(), inner.native_handle());
    }
    EXPECT_EQ(current_stream(gpu()).native_handle(), outer.native_handle());
  }
  EXPECT_EQ(current_stream(gpu()).native_handle(), before);
}

}  // namespace
}  // namespace tessera
