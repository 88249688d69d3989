// SPDX-License-Identifier: Apache-2.0
// Every call on buffers of a GPU against the same call on host memory, over NCCL and over MPI.
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>

#include "tessera/comm/mesh.hpp"
#include "tessera/comm/runtime.hpp"

#include "comm/reference.hpp"
#include "support/cuda_testing.hpp"
#include "support/expect_error.hpp"

namespace tessera {
namespace {

using test::contribution;
using test::on_device;
using test::on_host;

class DeviceCollectives : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    TESSERA_NEEDS_GPU();
    CommOptions options;
    options.device_transport = GetParam();
    options.timeout_seconds = 60;
    runtime_ = std::make_unique<Runtime>(options);
    device_ = choose_cuda_device(runtime_->local_rank(), runtime_->local_size());
    if (!exact() && !test::nccl_reaches(runtime_->local_size()))
      GTEST_SKIP() << "NCCL wants a GPU for each rank";
    stream_ = make_stream(device_);
  }

  Communicator& world() { return runtime_->world(); }
  int rank() { return world().rank(); }
  int size() { return world().size(); }
  bool exact() const { return std::string(GetParam()) == "mpi"; }

  /// NCCL may add in another order and round in between; the values of contribution() are below 64.
  template <typename T>
  void expect_equal(const std::vector<T>& device, const std::vector<T>& host) {
    ASSERT_EQ(device.size(), host.size());
    if (exact() || std::is_integral_v<T>) {
      EXPECT_EQ(std::memcmp(device.data(), host.data(), host.size() * sizeof(T)), 0);
      return;
    }
    const double digits = std::is_same_v<T, bf16>    ? 8
                          : std::is_same_v<T, fp16>  ? 11
                          : std::is_same_v<T, float> ? 24
                                                     : 53;
    const double tolerance = 64.0 * size() * size() * std::ldexp(1.0, -static_cast<int>(digits));
    for (std::size_t i = 0; i < host.size(); ++i)
      ASSERT_NEAR(static_cast<double>(test::widen(device[i])),
                  static_cast<double>(test::widen(host[i])), tolerance)
          << "element " << i;
  }

  template <typename T>
  void compare_reductions(std::int64_t count) {
    std::vector<Reduction> reductions{Reduction::sum, Reduction::min, Reduction::max};
    if (is_floating(dtype_of<T>)) reductions.push_back(Reduction::mean);
    compare<T>(count, reductions);
  }

  template <typename T>
  void compare(std::int64_t count, const std::vector<Reduction>& reductions) {
    for (const Reduction reduction : reductions) {
      SCOPED_TRACE(std::string(to_string(dtype_of<T>)) + " " + to_string(reduction));
      std::vector<T> host = contribution<T>(rank(), count, 7);
      const Buffer device = on_device(stream_, host);
      world().all_reduce(host.data(), count, dtype_of<T>, reduction).wait();
      world().all_reduce(device.data(), count, dtype_of<T>, reduction, stream_).wait();
      expect_equal(on_host<T>(stream_, device.data(), host.size()), host);
    }
  }

  Device gpu() const { return device_; }

  std::unique_ptr<Runtime> runtime_;
  Device device_;
  Stream stream_;
};

TEST_P(DeviceCollectives, AllReduceOfEveryType) {
  compare_reductions<float>(1003);
  compare_reductions<bf16>(1003);
  compare_reductions<fp16>(517);
  compare_reductions<double>(64);
  compare_reductions<std::int32_t>(99);
  compare_reductions<std::int64_t>(1);
  EXPECT_STREQ(world().device_transport(), size() == 1 ? "self" : GetParam());
}

TEST_P(DeviceCollectives, LongArraysComeInSeveralPieces) {
  compare<float>((2 << 20) + 3, {Reduction::sum});
}

TEST_P(DeviceCollectives, ReduceScatterAndAllGatherOfParts) {
  const std::int64_t n = size(), a = 48, b = 160;
  // Part one: pieces at a stride, in place; part two: adjacent pieces into memory of its own.
  const auto parts_of = [&](bf16* data, bf16* out) {
    return std::vector<ScatterPart>{{data + 16, 64, data + 16 + rank() * 64, a},
                                    {data + 64 * n, b, out, b}};
  };
  std::vector<bf16> host = contribution<bf16>(rank(), (64 + b) * n, 3);
  std::vector<bf16> host_out(static_cast<std::size_t>(b));
  const Buffer device = on_device(stream_, host);
  const Buffer device_out = on_device(stream_, host_out);
  world()
      .reduce_scatter(parts_of(host.data(), host_out.data()), DType::bf16, Reduction::sum)
      .wait();
  world()
      .reduce_scatter(parts_of(device.as<bf16>(), device_out.as<bf16>()), DType::bf16,
                      Reduction::sum, stream_)
      .wait();
  expect_equal(on_host<bf16>(stream_, device_out.data(), host_out.size()), host_out);
  const auto piece = [&](const std::vector<bf16>& all) {
    return std::vector<bf16>(all.begin() + 16 + rank() * 64, all.begin() + 16 + rank() * 64 + a);
  };
  expect_equal(piece(on_host<bf16>(stream_, device.data(), host.size())), piece(host));

  stream_.copy(device.data(), host.data(), device.bytes());
  stream_.copy(device_out.data(), host_out.data(), device_out.bytes());
  const auto gather_of = [&](bf16* data, bf16* out) {
    return std::vector<GatherPart>{{data + 16 + rank() * 64, data + 16, 64, a},
                                   {out, data + 64 * n, b, b}};
  };
  world().all_gather(gather_of(host.data(), host_out.data()), DType::bf16).wait();
  world()
      .all_gather(gather_of(device.as<bf16>(), device_out.as<bf16>()), DType::bf16, stream_)
      .wait();
  const std::vector<bf16> gathered = on_host<bf16>(stream_, device.data(), host.size());
  EXPECT_EQ(std::memcmp(gathered.data(), host.data(), device.bytes()), 0);
}

TEST_P(DeviceCollectives, PiecesOfDifferentLengths) {
  std::vector<std::int64_t> counts;
  for (int q = 0; q < size(); ++q) counts.push_back(q == 1 ? 0 : 100 + 31 * q);
  const std::int64_t total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  const auto mine = static_cast<std::size_t>(counts[static_cast<std::size_t>(rank())]);
  const std::vector<float> host = contribution<float>(rank(), total, 5);
  std::vector<float> host_piece(mine), host_all(host.size());
  const Buffer device = on_device(stream_, host);
  const Buffer piece = allocate(4 * mine + 4, gpu(), Purpose::workspace);
  stream_.wait(current_stream(gpu()).record());
  const Buffer all = on_device(stream_, host_all);
  world()
      .reduce_scatter_v(host.data(), host_piece.data(), counts, DType::fp32, Reduction::mean)
      .wait();
  world().all_gather_v(host_piece.data(), host_all.data(), counts, DType::fp32).wait();
  world()
      .reduce_scatter_v(device.data(), piece.data(), counts, DType::fp32, Reduction::mean, stream_)
      .wait();
  expect_equal(on_host<float>(stream_, piece.data(), mine), host_piece);
  world().all_gather_v(piece.data(), all.data(), counts, DType::fp32, stream_).wait();
  expect_equal(on_host<float>(stream_, all.data(), host_all.size()), host_all);
  current_stream(gpu()).wait(stream_.record());
}

TEST_P(DeviceCollectives, BroadcastFromEachRank) {
  for (int root = 0; root < size(); ++root) {
    std::vector<std::int32_t> host = contribution<std::int32_t>(rank(), 333, 11);
    const Buffer device = on_device(stream_, host);
    world().broadcast(host.data(), 333, DType::int32, root).wait();
    world().broadcast(device.data(), 333, DType::int32, root, stream_).wait();
    expect_equal(on_host<std::int32_t>(stream_, device.data(), 333), host);
  }
}

TEST_P(DeviceCollectives, AllToAll) {
  std::vector<std::int64_t> send, receive;
  for (int q = 0; q < size(); ++q) {
    send.push_back(10 + 3 * rank() + 5 * q);
    receive.push_back(10 + 3 * q + 5 * rank());
  }
  const auto sum = [](const auto& list) {
    return std::accumulate(list.begin(), list.end(), std::int64_t{0});
  };
  const std::vector<bf16> host = contribution<bf16>(rank(), sum(send), 13);
  std::vector<bf16> host_in(static_cast<std::size_t>(sum(receive)));
  const Buffer device = on_device(stream_, host);
  const Buffer device_in = on_device(stream_, host_in);
  world().all_to_all_v(host.data(), send, host_in.data(), receive, DType::bf16).wait();
  world().all_to_all_v(device.data(), send, device_in.data(), receive, DType::bf16, stream_).wait();
  const std::vector<bf16> got = on_host<bf16>(stream_, device_in.data(), host_in.size());
  EXPECT_EQ(std::memcmp(got.data(), host_in.data(), device_in.bytes()), 0);
}

TEST_P(DeviceCollectives, MessagesInBothDirections) {
  if (size() == 1) GTEST_SKIP() << "nobody to send to";
  world().open_device(gpu());
  const int next = (rank() + 1) % size(), before = (rank() + size() - 1) % size();
  const Buffer mine = on_device(stream_, contribution<float>(rank(), 5000, 17));
  const Buffer theirs = on_device(stream_, std::vector<float>(5000));
  for (int round = 0; round < 3; ++round) {
    world().group_begin();
    Work sent = world().send(mine.data(), 5000, DType::fp32, next, 0, stream_);
    Work received = world().receive(theirs.data(), 5000, DType::fp32, before, 0, stream_);
    world().group_end();
    sent.wait();
    received.wait();
    EXPECT_EQ(on_host<float>(stream_, theirs.data(), 5000), contribution<float>(before, 5000, 17));
    stream_.fill_zero(theirs.data(), theirs.bytes());
  }
}

TEST_P(DeviceCollectives, FollowTheOrderOfTheStream) {
  // No wait of the host inside the loop: each step reads what the one before wrote.
  const std::vector<std::int64_t> start{1, 2, 3, rank() + 1};
  const Buffer device = on_device(stream_, start);
  const Buffer other = on_device(stream_, start);
  std::int64_t expected = 0;
  for (int r = 0; r < size(); ++r) expected += r + 1;
  for (int round = 1; round < 5; ++round) {
    world().all_reduce(device.data(), 4, DType::int64, Reduction::sum, stream_).wait();
    stream_.copy(other.data(), device.data(), device.bytes());
    stream_.fill_zero(device.data(), device.bytes());
    stream_.copy(device.data(), other.data(), device.bytes());
    if (round > 1) expected *= size();
  }
  EXPECT_EQ(on_host<std::int64_t>(stream_, device.data(), 4)[3], expected);
}

TEST_P(DeviceCollectives, CountTheSameBytesAsOnTheHost) {
  const std::int64_t count = 1000;
  std::vector<float> host(static_cast<std::size_t>(count * size()));
  const Buffer device = on_device(stream_, host);
  const auto run = [&](float* data, const Stream& stream) {
    world().traffic().reset();
    world().all_reduce(data, count, DType::fp32, Reduction::sum, stream).wait();
    world()
        .reduce_scatter(data, data + rank() * count, count, DType::fp32, Reduction::sum, stream)
        .wait();
    world().all_gather(data + rank() * count, data, count, DType::fp32, stream).wait();
    world().broadcast(data, count, DType::fp32, 0, stream).wait();
    stream.synchronize();
    std::string text;
    for (const auto& [name, value] : world().traffic().counts())
      text +=
          name + " " + std::to_string(value.bytes) + " " + std::to_string(value.messages) + "\n";
    return text;
  };
  EXPECT_EQ(run(device.as<float>(), stream_), run(host.data(), {}));
}

TEST_P(DeviceCollectives, SubgroupsHaveTheirOwn) {
  world().open_device(gpu());
  const std::unique_ptr<Communicator> half = world().split(rank() % 2, -rank(), "half");
  std::vector<float> host = contribution<float>(rank(), 100, 23);
  const Buffer device = on_device(stream_, host);
  half->all_reduce(host.data(), 100, DType::fp32, Reduction::sum).wait();
  half->all_reduce(device.data(), 100, DType::fp32, Reduction::sum, stream_).wait();
  expect_equal(on_host<float>(stream_, device.data(), 100), host);
  // A group that was split off before any device was used connects when it is needed.
  Mesh mesh(*half, {});
  half->all_gather_text("");
  Communicator& data = mesh.group("data");
  std::int64_t one = 1;
  const Buffer number = on_device(stream_, std::vector<std::int64_t>{one});
  data.all_reduce(number.data(), 1, DType::int64, Reduction::sum, stream_).wait();
  EXPECT_EQ(on_host<std::int64_t>(stream_, number.data(), 1)[0], half->size());
}

TEST_P(DeviceCollectives, GiveMemory) {
  const std::int64_t before = memory_ledger(gpu()).current(Purpose::buckets);
  {
    const Buffer buffer = world().allocate_on(gpu(), 4096, Purpose::buckets);
    EXPECT_EQ(memory_ledger(gpu()).current(Purpose::buckets), before + 4096);
    const Stream stream = current_stream(gpu());
    EXPECT_EQ(on_host<float>(stream, buffer.data(), 1024), std::vector<float>(1024));
    world().all_reduce(buffer.data(), 1024, DType::fp32, Reduction::sum, stream).wait();
    stream.synchronize();
  }
  EXPECT_EQ(memory_ledger(gpu()).current(Purpose::buckets), before);
  EXPECT_TRUE(world().allocate_on(Device{}, 64, Purpose::buckets).device().is_cpu());
}

TEST_P(DeviceCollectives, RefuseTheWrongCalls) {
  const Buffer device = on_device(stream_, std::vector<float>(16));
  test::expect_error(Code::invalid_argument, {"not negative"}, [&] {
    world().all_reduce(device.data(), -1, DType::fp32, Reduction::sum, stream_);
  });
  if (size() > 2)
    test::expect_error(Code::invalid_argument, {"open_device"},
                       [&] { world().send(device.data(), 16, DType::fp32, 0, 0, stream_); });
}

TEST_P(DeviceCollectives, TheSameBitsTwice) {
  const std::vector<float> values = contribution<float>(rank(), 3001, 29);
  std::vector<float> results[2];
  for (auto& result : results) {
    const Buffer device = on_device(stream_, values);
    world().all_reduce(device.data(), 3001, DType::fp32, Reduction::mean, stream_).wait();
    result = on_host<float>(stream_, device.data(), 3001);
  }
  EXPECT_EQ(std::memcmp(results[0].data(), results[1].data(), 3001 * sizeof(float)), 0);
}

std::vector<const char*> transports() {
  std::vector<const char*> names{"mpi"};
#ifdef TESSERA_TEST_NCCL
  names.push_back("nccl");
#endif
  return names;
}

INSTANTIATE_TEST_SUITE_P(Transports, DeviceCollectives, ::testing::ValuesIn(transports()),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace tessera
