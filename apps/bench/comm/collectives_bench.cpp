// SPDX-License-Identifier: Apache-2.0
// Our collectives against the MPI library's own and against a plain loop that moves the same bytes.
// Buffers are rewritten before every repetition: otherwise each rank finds the peers' lines in its
// own cache.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <mpi.h>

#include "tessera/base/number_format.hpp"
#include "tessera/comm/runtime.hpp"

#include "support/bench.hpp"
#include "support/ranks.hpp"

namespace {

using namespace tessera;

/// One float array per rank that every rank can address, for the plain loops.
class SharedArrays {
 public:
  SharedArrays(Communicator& world, MPI_Comm comm, std::int64_t count) {
    void* own = nullptr;
    MPI_Win_allocate_shared(count * static_cast<MPI_Aint>(sizeof(float)) + 4096, 1, MPI_INFO_NULL,
                            comm, &own, &window_);
    for (int r = 0; r < world.size(); ++r) {
      MPI_Aint bytes = 0;
      int unit = 0;
      void* base = nullptr;
      MPI_Win_shared_query(window_, r, &bytes, &unit, &base);
      // Not a multiple of a page apart, as the library's own buffers.
      arrays.push_back(static_cast<float*>(base) + 48 * r);
    }
  }
  ~SharedArrays() { MPI_Win_free(&window_); }
  SharedArrays(const SharedArrays&) = delete;
  SharedArrays& operator=(const SharedArrays&) = delete;

  std::vector<float*> arrays;

 private:
  MPI_Win window_ = MPI_WIN_NULL;
};

/// What the benchmark of one size needs. The message has `count` floats in all.
struct Size {
  Size(Runtime& runtime, std::int64_t bytes)
      : world(runtime.world()),
        comm(runtime.control()),
        ranks(world.size()),
        each(std::max<std::int64_t>(1, bytes / 4 / ranks)),
        count(std::max<std::int64_t>(each * ranks, bytes / 4)),
        calls(bytes <= 4096    ? 200
              : bytes <= 65536 ? 8
                               : 1),
        shared(world, comm, count),
        buffer(world.allocate(static_cast<std::size_t>(count) * 4, Purpose::buckets)),
        mpi(static_cast<std::size_t>(count)),
        mpi_out(static_cast<std::size_t>(each)) {}

  void rewrite(float* data) const { std::fill_n(data, count, 1.0f); }

  Communicator& world;
  MPI_Comm comm;
  int ranks;
  std::int64_t each;   ///< elements of one rank's piece
  std::int64_t count;  ///< elements of all pieces
  int calls;           ///< in one timed run
  SharedArrays shared;
  Buffer buffer;
  std::vector<float> mpi, mpi_out;
};

bench::Variant variant(const Size& size, const std::string& name, std::function<void()> once,
                       std::function<void()> prepare) {
  return {name,
          [&size, once = std::move(once)] {
            for (int i = 0; i < size.calls; ++i) once();
          },
          std::move(prepare)};
}

std::vector<bench::Variant> all_reduce(Size& s) {
  const auto theirs = [&s] {
    MPI_Allreduce(MPI_IN_PLACE, s.mpi.data(), static_cast<int>(s.count), MPI_FLOAT, MPI_SUM,
                  s.comm);
  };
  const auto ours = [&s] {
    s.world.all_reduce(s.buffer.as<float>(), s.count, DType::fp32, Reduction::sum).wait();
  };
  // Two ranks: every element of a rank's half is read from both arrays and written to both.
  const auto plain = [&s] {
    float* a = s.shared.arrays.front();
    float* b = s.shared.arrays.back();
    const std::int64_t begin = s.world.rank() * s.each, end = begin + s.each;
    for (std::int64_t i = begin; i < end; ++i) a[i] = b[i] = a[i] + b[i];
  };
  return {variant(s, "mpi", theirs, [&s] { s.rewrite(s.mpi.data()); }),
          variant(s, "tessera", ours, [&s] { s.rewrite(s.buffer.as<float>()); }),
          variant(s, "plain loop", plain,
                  [&s] { s.rewrite(s.shared.arrays[static_cast<std::size_t>(s.world.rank())]); })};
}

std::vector<bench::Variant> reduce_scatter(Size& s) {
  const auto ours = [&s] {
    float* data = s.buffer.as<float>();
    s.world
        .reduce_scatter(data, data + s.world.rank() * s.each, s.each, DType::fp32, Reduction::sum)
        .wait();
  };
  const auto theirs = [&s] {
    MPI_Reduce_scatter_block(s.mpi.data(), s.mpi_out.data(), static_cast<int>(s.each), MPI_FLOAT,
                             MPI_SUM, s.comm);
  };
  const auto plain = [&s] {
    float* mine = s.shared.arrays[static_cast<std::size_t>(s.world.rank())];
    const float* peer = s.shared.arrays[static_cast<std::size_t>(1 - s.world.rank())];
    const std::int64_t begin = s.world.rank() * s.each, end = begin + s.each;
    for (std::int64_t i = begin; i < end; ++i) mine[i] += peer[i];
  };
  return {variant(s, "mpi", theirs, [&s] { s.rewrite(s.mpi.data()); }),
          variant(s, "tessera", ours, [&s] { s.rewrite(s.buffer.as<float>()); }),
          variant(s, "plain loop", plain,
                  [&s] { s.rewrite(s.shared.arrays[static_cast<std::size_t>(s.world.rank())]); })};
}

std::vector<bench::Variant> all_gather(Size& s) {
  const auto ours = [&s] {
    float* data = s.buffer.as<float>();
    s.world.all_gather(data + s.world.rank() * s.each, data, s.each, DType::fp32).wait();
  };
  const auto theirs = [&s] {
    MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, s.mpi.data(), static_cast<int>(s.each),
                  MPI_FLOAT, s.comm);
  };
  const auto plain = [&s] {
    float* mine = s.shared.arrays[static_cast<std::size_t>(s.world.rank())];
    const int peer = 1 - s.world.rank();
    const float* theirs_piece = s.shared.arrays[static_cast<std::size_t>(peer)];
    for (std::int64_t i = peer * s.each; i < (peer + 1) * s.each; ++i) mine[i] = theirs_piece[i];
  };
  return {variant(s, "mpi", theirs, [&s] { s.rewrite(s.mpi.data()); }),
          variant(s, "tessera", ours, [&s] { s.rewrite(s.buffer.as<float>()); }),
          variant(s, "plain loop", plain,
                  [&s] { s.rewrite(s.shared.arrays[static_cast<std::size_t>(s.world.rank())]); })};
}

}  // namespace

int main(int argc, char** argv) {
  Runtime runtime;
  Communicator& world = runtime.world();
  if (world.size() != 2) {
    std::fprintf(stderr, "error: comm_collectives compares two ranks, start it with mpirun -n 2\n");
    return 2;
  }
  bench::Program program("comm_collectives", argc, argv, bench::ranks_of(world));
  const std::vector<std::int64_t> sizes = {8, 4 << 10, 64 << 10, 1 << 20, 8 << 20, 32 << 20};
  using Make = std::vector<bench::Variant> (*)(Size&);
  const std::vector<std::pair<std::string, Make>> operations = {
      {"all_reduce", all_reduce}, {"reduce_scatter", reduce_scatter}, {"all_gather", all_gather}};
  const double share = 1.0 / static_cast<double>(sizes.size() * operations.size());
  for (const std::int64_t bytes : sizes) {
    Size size(runtime, bytes);
    for (const auto& [name, make] : operations) {
      const std::string text = name + " " + format_bytes(static_cast<double>(bytes));
      program.measure({.name = text,
                       .variants = make(size),
                       .work = static_cast<double>(bytes) * size.calls,
                       .unit = "byte"},
                      share);
    }
  }
  return program.finish();
}
