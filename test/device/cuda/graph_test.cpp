// SPDX-License-Identifier: Apache-2.0
// Recorded work, and memory that stays for it.
#include "tessera/device/graph.hpp"

#include <numeric>
#include <optional>

#include "tessera/device/arena.hpp"

#include "support/cuda_testing.hpp"
#include "support/expect_error.hpp"

namespace tessera {
namespace {

using test::gpu;

std::vector<int> numbers(int first) {
  std::vector<int> values(1000);
  std::iota(values.begin(), values.end(), first);
  return values;
}

TEST(CudaGraph, RunsWhatWasRecordedWithEachLaunch) {
  TESSERA_NEEDS_GPU();
  const Stream stream = make_stream(gpu());
  const Buffer source = test::on_device(stream, numbers(1));
  const Buffer target = test::on_device(stream, numbers(-9));
  Graph graph;
  EXPECT_FALSE(graph);
  {
    Capture capture(stream);
    stream.copy(target.data(), source.data(), source.bytes());
    stream.fill_zero(target.data(), 10 * sizeof(int));
    graph = capture.finish();
  }
  EXPECT_TRUE(graph);
  EXPECT_EQ(test::on_host<int>(stream, target.data(), 1000), numbers(-9)) << "nothing has run";
  for (const int first : {1, 500}) {
    const std::vector<int> values = numbers(first);
    stream.copy(source.data(), values.data(), source.bytes());
    graph.launch(stream);
    const std::vector<int> found = test::on_host<int>(stream, target.data(), 1000);
    EXPECT_EQ(found[9], 0);
    EXPECT_EQ(found[10], first + 10);
  }
}

TEST(CudaGraph, ARecordingThatIsDroppedLeavesTheStreamUsable) {
  TESSERA_NEEDS_GPU();
  const Stream stream = make_stream(gpu());
  const Buffer memory = test::on_device(stream, numbers(1));
  {
    const Capture capture(stream);
    stream.fill_zero(memory.data(), memory.bytes());
  }
  EXPECT_EQ(test::on_host<int>(stream, memory.data(), 1000), numbers(1));
}

TEST(CudaGraph, WaitingInsideIsAnErrorThatNamesItself) {
  TESSERA_NEEDS_GPU();
  const Stream stream = make_stream(gpu());
  {
    Capture capture(stream);
    test::expect_error(Code::cuda, {"waiting for a stream"}, [&] { stream.synchronize(); });
    test::expect_error(Code::cuda, {"recording a graph"}, [&] { capture.finish(); });
  }
  stream.synchronize();
}

TEST(CudaArena, KeepsBlocksAndTheirPlaces) {
  TESSERA_NEEDS_GPU();
  const Stream stream = make_stream(gpu());
  const StreamScope current(stream);
  const MemoryLedger& ledger = memory_ledger(gpu());
  const std::int64_t before = ledger.current(Purpose::activations);
  std::optional<Arena> arena(stream);
  void *first = nullptr, *second = nullptr;
  {
    const Arena::Scope scope(*arena);
    const Buffer a = allocate(1000, gpu(), Purpose::activations);
    const Buffer b = allocate(1000, gpu(), Purpose::activations);
    first = a.data();
    second = b.data();
    EXPECT_NE(first, second);
    EXPECT_EQ(ledger.current(Purpose::activations), before + 2000);
  }
  EXPECT_EQ(ledger.current(Purpose::activations), before + 2000) << "kept, and counted once";
  {
    const Buffer outside = allocate(1000, gpu(), Purpose::activations);
    EXPECT_NE(outside.data(), first);
    EXPECT_NE(outside.data(), second);
  }
  Buffer late;
  {
    const Arena::Scope scope(*arena);
    late = allocate(1000, gpu(), Purpose::activations);
    EXPECT_TRUE(late.data() == first || late.data() == second);
    const Buffer other_size = allocate(1001, gpu(), Purpose::activations);
    EXPECT_EQ(ledger.current(Purpose::activations), before + 3001);
  }
  arena.reset();
  EXPECT_EQ(ledger.current(Purpose::activations), before + 3001) << "a buffer keeps its arena";
  late = {};
  EXPECT_EQ(ledger.current(Purpose::activations), before);
}

TEST(CudaArena, SharesScratchOfSimilarSizes) {
  TESSERA_NEEDS_GPU();
  const Stream stream = make_stream(gpu());
  const StreamScope current(stream);
  const std::int64_t before = memory_ledger(gpu()).current(Purpose::workspace);
  const Arena arena(stream);
  const Arena::Scope scope(arena);
  for (const std::size_t bytes : {600, 1024, 513}) allocate(bytes, gpu(), Purpose::workspace);
  EXPECT_EQ(memory_ledger(gpu()).current(Purpose::workspace), before + 1024);
}

TEST(CudaArena, ServesTheBuffersOfItsStreamOnly) {
  TESSERA_NEEDS_GPU();
  const Stream stream = make_stream(gpu()), other = make_stream(gpu());
  const Arena arena(stream);
  const Arena::Scope scope(arena);
  const std::int64_t before = memory_ledger(gpu()).current(Purpose::activations);
  const StreamScope current(other);
  allocate(1000, gpu(), Purpose::activations);
  EXPECT_EQ(memory_ledger(gpu()).current(Purpose::activations), before);
}

TEST(CudaArena, DoesNotGrowWhileWorkIsRecorded) {
  TESSERA_NEEDS_GPU();
  const Stream stream = make_stream(gpu());
  const StreamScope current(stream);
  const Arena arena(stream);
  const Arena::Scope scope(arena);
  allocate(1000, gpu(), Purpose::activations);
  Capture capture(stream);
  EXPECT_TRUE(allocate(1000, gpu(), Purpose::activations));
  test::expect_error(Code::internal, {"2.0 KiB", "activations"},
                     [&] { allocate(2048, gpu(), Purpose::activations); });
  EXPECT_TRUE(capture.finish());
}

TEST(CudaGraph, IsNotForTheCpu) {
  test::expect_error(Code::not_supported, {"CPU"}, [] { const Capture capture{Stream()}; });
  test::expect_error(Code::not_supported, {"CPU"}, [] { const Arena arena{Stream()}; });
}

}  // namespace
}  // namespace tessera
