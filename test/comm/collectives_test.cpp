// SPDX-License-Identifier: Apache-2.0
// Every collective on every transport against the plain reference, bit for bit.
#include <memory>
#include <numeric>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/comm/runtime.hpp"

#include "comm/limits.hpp"
#include "comm/reference.hpp"

namespace tessera {
namespace {

using test::contribution;
using test::contributions;
using test::first_difference;
using test::folded;

struct Variant {
  std::string transport;
  std::vector<std::vector<int>> nodes;
};

int world_size() {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

/// Even ranks on one node, odd ones on another.
std::vector<std::vector<int>> interleaved(int size) {
  std::vector<std::vector<int>> nodes(2);
  for (int r = 0; r < size; ++r) nodes[static_cast<std::size_t>(r % 2)].push_back(r);
  return nodes;
}

/// The first rank alone, the others together.
std::vector<std::vector<int>> uneven(int size) {
  std::vector<std::vector<int>> nodes = {{0}, {}};
  for (int r = 1; r < size; ++r) nodes[1].push_back(r);
  return nodes;
}

std::vector<Variant> variants() {
  const int size = world_size();
  std::vector<Variant> all = {{"auto", {}}, {"mpi", {}}};
  if (size > 1)
    all.insert(all.end(), {{"shm", {}},
                           {"mpi", interleaved(size)},
                           {"shm", interleaved(size)},
                           {"hybrid", interleaved(size)}});
  if (size > 2) all.insert(all.end(), {{"shm", uneven(size)}, {"hybrid", uneven(size)}});
  return all;
}

std::unique_ptr<Runtime> start(const Variant& variant) {
  CommOptions options;
  options.transport = variant.transport;
  options.nodes = variant.nodes;
  options.timeout_seconds = 60;
  auto runtime = std::make_unique<Runtime>(options);
  const std::string expected =
      variant.transport == "auto" ? runtime->world().transport() : variant.transport;
  EXPECT_EQ(runtime->world().transport(), expected);
  return runtime;
}

std::vector<Reduction> reductions(DType dtype) {
  if (!is_floating(dtype)) return {Reduction::sum, Reduction::min, Reduction::max};
  return {Reduction::sum, Reduction::mean, Reduction::min, Reduction::max};
}

/// Host memory of T, from the communicator or not.
template <typename T>
class Array {
 public:
  Array(Communicator& world, std::int64_t count, bool shared) {
    const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
    buffer_ = shared ? world.allocate(bytes, Purpose::buckets)
                     : allocate(bytes, Device{}, Purpose::buckets);
  }
  T* data() { return buffer_.as<T>(); }
  void fill(const std::vector<T>& values) { std::copy(values.begin(), values.end(), data()); }

 private:
  Buffer buffer_;
};

template <typename T>
class Checker {
 public:
  Checker(Communicator& world, std::int64_t count, bool shared, std::uint64_t seed)
      : world_(world),
        count_(count),
        shared_(shared),
        all_(contributions<T>(world.size(), count * world.size(), seed)),
        nodes_(world.nodes()) {}

  void all_reduce(Reduction reduction) {
    std::vector<std::vector<T>> all = all_;
    for (auto& one : all) one.resize(static_cast<std::size_t>(count_));
    Array<T> data(world_, count_, shared_);
    data.fill(all[me()]);
    world_.all_reduce(data.data(), count_, dtype_of<T>, reduction).wait();
    expect_equal("all_reduce", data.data(), folded(all, nodes_, reduction), reduction);
  }

  void reduce_scatter(Reduction reduction, bool in_place) {
    Array<T> send(world_, count_ * world_.size(), shared_), out(world_, count_, false);
    send.fill(all_[me()]);
    T* receive = in_place ? send.data() + world_.rank() * count_ : out.data();
    world_.reduce_scatter(send.data(), receive, count_, dtype_of<T>, reduction).wait();
    const std::vector<T> sum = folded(all_, nodes_, reduction);
    const auto begin = sum.begin() + world_.rank() * count_;
    expect_equal("reduce_scatter", receive, std::vector<T>(begin, begin + count_), reduction);
  }

  /// Two parts with gaps between the pieces.
  void reduce_scatter_parts(Reduction reduction) {
    const std::int64_t stride = count_ + 5, half = count_ / 2;
    Array<T> send(world_, stride * world_.size() + 7, shared_), out(world_, count_, shared_);
    for (int q = 0; q < world_.size(); ++q)
      std::copy_n(all_[me()].begin() + q * count_, count_, send.data() + 7 + q * stride);
    const std::vector<ScatterPart> parts = {
        {send.data() + 7, stride, out.data(), half},
        {send.data() + 7 + half, stride, out.data() + half, count_ - half}};
    world_.reduce_scatter(parts, dtype_of<T>, reduction).wait();
    const std::vector<T> sum = folded(all_, nodes_, reduction);
    const auto begin = sum.begin() + world_.rank() * count_;
    expect_equal("reduce_scatter parts", out.data(), std::vector<T>(begin, begin + count_),
                 reduction);
  }

  void reduce_scatter_v(Reduction reduction) {
    const std::vector<std::int64_t> counts = uneven_counts();
    const std::int64_t total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
    std::vector<std::vector<T>> all = all_;
    for (auto& one : all) one.resize(static_cast<std::size_t>(total));
    Array<T> send(world_, total, shared_), out(world_, counts[me()], false);
    send.fill(all[me()]);
    world_.reduce_scatter_v(send.data(), out.data(), counts, dtype_of<T>, reduction).wait();
    const std::vector<T> sum = folded(all, nodes_, reduction);
    const auto begin = sum.begin() + std::accumulate(counts.begin(), counts.begin() + world_.rank(),
                                                     std::int64_t{0});
    expect_equal("reduce_scatter_v", out.data(), std::vector<T>(begin, begin + counts[me()]),
                 reduction);
  }

  void all_gather(bool in_place) {
    Array<T> own(world_, count_, shared_), all(world_, count_ * world_.size(), shared_);
    T* send = in_place ? all.data() + world_.rank() * count_ : own.data();
    std::copy_n(all_[me()].begin(), count_, send);
    world_.all_gather(send, all.data(), count_, dtype_of<T>).wait();
    for (int q = 0; q < world_.size(); ++q)
      expect_equal("all_gather", all.data() + q * count_, prefix_of(q, count_), Reduction::sum);
  }

  void all_gather_v() {
    const std::vector<std::int64_t> counts = uneven_counts();
    const std::int64_t total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
    Array<T> own(world_, counts[me()], shared_), all(world_, total, false);
    own.fill(prefix_of(world_.rank(), counts[me()]));
    world_.all_gather_v(own.data(), all.data(), counts, dtype_of<T>).wait();
    const T* piece = all.data();
    for (int q = 0; q < world_.size(); piece += counts[static_cast<std::size_t>(q)], ++q)
      expect_equal("all_gather_v", piece, prefix_of(q, counts[static_cast<std::size_t>(q)]),
                   Reduction::sum);
  }

  void broadcast() {
    for (const int root : {0, world_.size() - 1}) {
      Array<T> data(world_, count_, shared_);
      if (world_.rank() == root) data.fill(prefix_of(root, count_));
      world_.broadcast(data.data(), count_, dtype_of<T>, root).wait();
      expect_equal("broadcast", data.data(), prefix_of(root, count_), Reduction::sum);
    }
  }

  /// Rank r sends (r + q) % 3 * count / 2 elements to rank q.
  void all_to_all() {
    std::vector<std::int64_t> out, in;
    for (int q = 0; q < world_.size(); ++q) {
      out.push_back(piece_length(world_.rank(), q));
      in.push_back(piece_length(q, world_.rank()));
    }
    const std::int64_t sent = std::accumulate(out.begin(), out.end(), std::int64_t{0});
    const std::int64_t received = std::accumulate(in.begin(), in.end(), std::int64_t{0});
    Array<T> send(world_, sent, shared_), receive(world_, received, shared_);
    send.fill(prefix_of(world_.rank(), sent));
    world_.all_to_all_v(send.data(), out, receive.data(), in, dtype_of<T>).wait();
    const T* piece = receive.data();
    for (int q = 0; q < world_.size(); piece += in[static_cast<std::size_t>(q)], ++q) {
      std::int64_t before = 0;
      for (int k = 0; k < world_.rank(); ++k) before += piece_length(q, k);
      const auto begin = all_[static_cast<std::size_t>(q)].begin() + before;
      expect_equal("all_to_all", piece,
                   std::vector<T>(begin, begin + in[static_cast<std::size_t>(q)]), Reduction::sum);
    }
  }

 private:
  std::size_t me() const { return static_cast<std::size_t>(world_.rank()); }
  std::int64_t piece_length(int from, int to) const { return (from + to) % 3 * (count_ / 2); }
  std::vector<T> prefix_of(int rank, std::int64_t count) const {
    const auto begin = all_[static_cast<std::size_t>(rank)].begin();
    return std::vector<T>(begin, begin + count);
  }
  /// Some ranks have nothing.
  std::vector<std::int64_t> uneven_counts() const {
    std::vector<std::int64_t> counts;
    for (int q = 0; q < world_.size(); ++q) counts.push_back(q % 3 == 1 ? 0 : count_ - q % 2);
    for (auto& count : counts) count = std::max<std::int64_t>(count, 0);
    return counts;
  }
  void expect_equal(const char* what, const T* actual, const std::vector<T>& expected,
                    Reduction reduction) {
    const std::int64_t at = first_difference(actual, expected);
    EXPECT_EQ(at, -1) << what << " " << to_string(reduction) << " of " << count_ << " "
                      << to_string(dtype_of<T>) << " on " << world_.transport() << " "
                      << nodes_.to_string() << (shared_ ? " shared" : " private");
  }

  Communicator& world_;
  std::int64_t count_;
  bool shared_;
  std::vector<std::vector<T>> all_;
  NodeMap nodes_;
};

template <typename T>
void check_type(Communicator& world, std::int64_t count, bool shared) {
  Checker<T> checker(world, count, shared, static_cast<std::uint64_t>(count) + 1);
  for (const Reduction reduction : reductions(dtype_of<T>)) {
    checker.all_reduce(reduction);
    checker.reduce_scatter(reduction, false);
    checker.reduce_scatter(reduction, true);
    checker.reduce_scatter_parts(reduction);
    checker.reduce_scatter_v(reduction);
  }
  checker.all_gather(false);
  checker.all_gather(true);
  checker.all_gather_v();
  checker.broadcast();
  checker.all_to_all();
}

void check_all_types(Communicator& world, std::int64_t count, bool shared) {
  check_type<float>(world, count, shared);
  check_type<bf16>(world, count, shared);
  check_type<fp16>(world, count, shared);
  check_type<double>(world, count, shared);
  check_type<std::int32_t>(world, count, shared);
  check_type<std::int64_t>(world, count, shared);
}

TEST(Collectives, EveryTypeAndReduction) {
  for (const Variant& variant : variants()) {
    const auto runtime = start(variant);
    // More ranks than cores are slow, and the short counts differ little there.
    const std::vector<std::int64_t> counts = world_size() > 4
                                                 ? std::vector<std::int64_t>{3, 129}
                                                 : std::vector<std::int64_t>{0, 1, 3, 17, 1000};
    for (const std::int64_t count : counts)
      for (const bool shared : {false, true}) check_all_types(runtime->world(), count, shared);
  }
}

TEST(Collectives, LargeAndOdd) {
  for (const Variant& variant : variants()) {
    const auto runtime = start(variant);
    const std::int64_t count = (world_size() > 4 ? 30011 : 100003) / world_size();
    for (const bool shared : {false, true}) {
      Checker<float> floats(runtime->world(), count, shared, 5);
      floats.all_reduce(Reduction::mean);
      floats.reduce_scatter(Reduction::sum, true);
      floats.all_gather(true);
      floats.broadcast();
      Checker<bf16> halves(runtime->world(), count, shared, 6);
      halves.all_reduce(Reduction::sum);
      halves.reduce_scatter_parts(Reduction::sum);
      halves.reduce_scatter_v(Reduction::sum);
      halves.all_to_all();
    }
  }
}

/// All internal limits tiny: everything goes in many pieces.
TEST(Collectives, InManyPieces) {
  const comm::Limits before = comm::limits();
  comm::limits() = {.message_bytes = 104,
                    .exchange_bytes = 1000,
                    .staging_bytes = 2048,
                    .small_bytes = 8,
                    .inline_bytes = 8};
  for (const Variant& variant : variants()) {
    const auto runtime = start(variant);
    for (const bool shared : {false, true}) {
      check_type<float>(runtime->world(), 300, shared);
      check_type<bf16>(runtime->world(), 277, shared);
      check_type<double>(runtime->world(), 3, shared);
    }
  }
  comm::limits() = before;
}

TEST(Collectives, NotANumberWinsMinAndMax) {
  for (const Variant& variant : variants()) {
    const auto runtime = start(variant);
    Communicator& world = runtime->world();
    for (const Reduction reduction : {Reduction::min, Reduction::max}) {
      std::vector<float> values(40, static_cast<float>(world.rank()));
      if (world.rank() == world.size() / 2) values[7] = std::nanf("");
      world.all_reduce(values.data(), 40, DType::fp32, reduction).wait();
      EXPECT_TRUE(std::isnan(values[7]));
      EXPECT_EQ(values[39],
                reduction == Reduction::min ? 0.0f : static_cast<float>(world.size() - 1));
    }
  }
}

/// Several operations in flight, finished in another order than they were started.
TEST(Collectives, SeveralInFlight) {
  for (const Variant& variant : variants()) {
    const auto runtime = start(variant);
    Communicator& world = runtime->world();
    const auto other = world.split(0, -world.rank(), "reversed");
    EXPECT_EQ(other->rank(), world.size() - 1 - world.rank());
    for (const bool shared : {true, false}) {
      constexpr int kOperations = 40;
      constexpr std::int64_t kCount = 3000;
      std::vector<Array<float>> data;
      std::vector<Work> works;
      for (int k = 0; k < kOperations; ++k) {
        Communicator& group = k % 2 ? *other : world;
        data.emplace_back(group, kCount, shared);
        data.back().fill(std::vector<float>(kCount, static_cast<float>(k + group.rank())));
        works.push_back(group.all_reduce(data.back().data(), kCount, DType::fp32, Reduction::sum));
      }
      // Ranks wait in different orders: nobody may starve.
      for (int k = 0; k < kOperations; ++k)
        works[static_cast<std::size_t>(world.rank() % 2 ? k : kOperations - 1 - k)].wait();
      const int n = world.size();
      for (int k = 0; k < kOperations; ++k)
        for (const std::int64_t i : {std::int64_t{0}, kCount - 1})
          EXPECT_EQ(data[static_cast<std::size_t>(k)].data()[i],
                    static_cast<float>(n * k + n * (n - 1) / 2));
    }
  }
}

TEST(Collectives, MessagesBetweenTwo) {
  for (const Variant& variant : variants()) {
    const auto runtime = start(variant);
    Communicator& world = runtime->world();
    const int right = (world.rank() + 1) % world.size();
    const int left = (world.rank() + world.size() - 1) % world.size();
    for (const std::int64_t count : {0, 1, 100003}) {
      const std::vector<float> mine = contribution<float>(world.rank(), count, 3);
      std::vector<float> theirs(static_cast<std::size_t>(count)), back(theirs);
      Work out = world.send(mine.data(), count, DType::fp32, right, 5);
      Work out_back = world.send(mine.data(), count, DType::fp32, left, 6);
      world.barrier();
      world.receive(theirs.data(), count, DType::fp32, left, 5).wait();
      world.receive(back.data(), count, DType::fp32, right, 6).wait();
      out.wait();
      out_back.wait();
      EXPECT_EQ(first_difference(theirs.data(), contribution<float>(left, count, 3)), -1);
      EXPECT_EQ(first_difference(back.data(), contribution<float>(right, count, 3)), -1);
    }
  }
}

TEST(Collectives, SmallHostData) {
  for (const Variant& variant : variants()) {
    const auto runtime = start(variant);
    Communicator& world = runtime->world();
    const std::string mine(static_cast<std::size_t>(world.rank()) * 1000, 'a');
    const std::vector<std::string> all = world.all_gather_text(mine + "x");
    for (int r = 0; r < world.size(); ++r)
      EXPECT_EQ(all[static_cast<std::size_t>(r)],
                std::string(static_cast<std::size_t>(r) * 1000, 'a') + "x");
    EXPECT_EQ(world.all_gather_text("").size(), static_cast<std::size_t>(world.size()));
    EXPECT_EQ(world.broadcast_text(mine + "y", world.size() - 1),
              std::string(static_cast<std::size_t>(world.size() - 1) * 1000, 'a') + "y");
    const int n = world.size();
    EXPECT_EQ(world.all_reduce_scalar(static_cast<std::int64_t>(world.rank()), Reduction::sum),
              n * (n - 1) / 2);
    EXPECT_EQ(world.all_reduce_scalar(0.5, Reduction::max), 0.5);
    std::vector<double> values = {1.0, static_cast<double>(world.rank())};
    world.all_reduce_scalars(values, Reduction::mean);
    EXPECT_EQ(values[0], static_cast<double>(n) * (1.0 / n));
    world.barrier();
  }
}

}  // namespace
}  // namespace tessera
