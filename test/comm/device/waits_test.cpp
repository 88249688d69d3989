// SPDX-License-Identifier: Apache-2.0
// Each wait for a stream or an event around collectives on GPU buffers is missed when it is missing
// (those that guard page-locked slots when they grow and at a transport's end are not reached).
// Only the emulation can leave one out.
#include <algorithm>
#include <memory>
#include <numeric>

#include "tessera/comm/runtime.hpp"

#include "support/cuda_testing.hpp"
#include "support/missing_waits.hpp"

namespace tessera {
namespace {

/// The order in which streams come forward follows from it.
constexpr std::uint64_t kSeeds = 60;
constexpr std::int64_t kCount = 1200;  // numbers of a buffer
constexpr int kResults = 7;

/// A little of everything on one stream, as a training step has it: each operation reads what the
/// stream wrote before, and its result is read after.
class Step {
 public:
  explicit Step(Communicator& world, Device device)
      : world_(world),
        stream_(make_stream(device)),
        sources_{test::on_device(stream_, numbers(world.rank())),
                 test::on_device(stream_, numbers(10 + world.rank()))},
        data_(test::on_device(stream_, numbers(0))),
        other_(test::on_device(stream_, numbers(0))),
        results_(allocate_pinned(kResults * kCount * sizeof(float), Purpose::workspace)) {
    std::fill_n(results_.as<float>(), kResults * kCount, -1.0f);
  }

  void run() {
    reductions();
    gathers();
    exchanges();
    stream_.synchronize();
    // The host reads at once.
    seen_.assign(static_cast<const char*>(results_.data()), results_.bytes());
  }
  std::string result() const { return seen_; }

 private:
  static std::vector<float> numbers(int rank) {
    std::vector<float> values(static_cast<std::size_t>(kCount));
    std::iota(values.begin(), values.end(), 1000.0f * static_cast<float>(rank));
    return values;
  }
  /// New numbers in data, on the stream.
  void compute() { stream_.copy(data_.data(), sources_[computed_++ % 2].data(), data_.bytes()); }
  void keep(const Buffer& buffer) {
    stream_.copy(results_.as<float>() + kept_++ * kCount, buffer.data(), buffer.bytes());
  }

  void reductions() {
    compute();
    world_.all_reduce(data_.data(), kCount, DType::fp32, Reduction::sum, stream_).wait();
    keep(data_);
    compute();
    const std::int64_t part = kCount / world_.size();
    world_.reduce_scatter(data_.data(), other_.data(), part, DType::fp32, Reduction::sum, stream_)
        .wait();
    keep(other_);
  }
  void gathers() {
    compute();
    const std::int64_t part = kCount / world_.size();
    world_.all_gather(data_.data(), other_.data(), part, DType::fp32, stream_).wait();
    keep(other_);
    compute();
    world_.broadcast(data_.data(), kCount, DType::fp32, 1, stream_).wait();
    keep(data_);
  }
  void exchanges() {
    compute();
    const std::vector<std::int64_t> counts(static_cast<std::size_t>(world_.size()),
                                           kCount / world_.size());
    world_.all_to_all_v(data_.data(), counts, other_.data(), counts, DType::fp32, stream_).wait();
    keep(other_);
    for (const int sender : {0, 1})
      world_.rank() == sender ? send_two(1 - sender) : receive_two(sender);
  }
  void send_two(int to) {
    for (int turn = 0; turn < 2; ++turn) {
      compute();
      world_.send(data_.data(), kCount, DType::fp32, to, 0, stream_).wait();
    }
  }
  void receive_two(int from) {
    for (int turn = 0; turn < 2; ++turn) {
      world_.receive(other_.data(), kCount, DType::fp32, from, 0, stream_).wait();
      keep(other_);
    }
  }

  Communicator& world_;
  Stream stream_;
  Buffer sources_[2], data_, other_, results_;
  int computed_ = 0, kept_ = 0;
  std::string seen_;
};

CommOptions options_of(const char* transport) {
  CommOptions options;
  options.device_transport = transport;
  options.timeout_seconds = 60;
  return options;
}

class DeviceWaits : public ::testing::TestWithParam<const char*> {};

TEST_P(DeviceWaits, OfAStepAreAllNeeded) {
  Runtime runtime(options_of(GetParam()));
  const Device device = choose_cuda_device(runtime.local_rank(), runtime.local_size());
  runtime.world().open_device(device);
  test::MissingWaits waits(runtime.world(), kSeeds,
                           [&] { return std::make_unique<Step>(runtime.world(), device); });
  EXPECT_FALSE(waits.depends_on_the_order());
  for (const std::string& wait : waits.all())
    EXPECT_TRUE(waits.is_missed(wait)) << "nobody misses " << wait;
}

std::vector<const char*> transports() {
  std::vector<const char*> names{"mpi"};
#ifdef TESSERA_TEST_NCCL
  names.push_back("nccl");
#endif
  return names;
}

INSTANTIATE_TEST_SUITE_P(Transports, DeviceWaits, ::testing::ValuesIn(transports()),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace tessera
