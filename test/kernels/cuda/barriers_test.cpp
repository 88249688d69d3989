// SPDX-License-Identifier: Apache-2.0
// Each barrier and each wait in a kernel's code is missed when it is missing: otherwise it is not
// needed, or the emulation would not notice a mistake there.
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "emulation/emulation.hpp"
#include "emulation/sync_points.hpp"
#include "kernels/cuda/gpu_cases.hpp"
#include "support/kernel_testing.hpp"

namespace tessera::testing {
namespace {

/// The order of warps, lanes and blocks follows from it.
constexpr std::uint64_t kSeeds = 8;

/// Notes faults instead of ending the process.
class NotesFaults {
 public:
  NotesFaults()
      : former_(emulation::set_fault_handler([this](const emulation::Fault&) { seen_ = true; })) {}
  NotesFaults(const NotesFaults&) = delete;
  NotesFaults& operator=(const NotesFaults&) = delete;
  ~NotesFaults() { emulation::set_fault_handler(former_); }
  bool seen() const { return seen_; }

 private:
  bool seen_ = false;
  emulation::FaultHandler former_;
};

std::vector<GpuCase::Bytes> results(const GpuCase& one, std::uint64_t seed) {
  one.prepare();
  emulation::set_seed(seed);
  one.run();
  return one.results();
}

/// Does some order give a fault or another result without it?
bool is_missed(const GpuCase& one, const emulation::SyncPoint& point,
               const std::vector<GpuCase::Bytes>& expected) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const emulation::SyncPoints points(point);
    const NotesFaults faults;
    const bool same = results(one, seed) == expected;
    if (faults.seen() || !same) return true;
  }
  return false;
}

std::vector<emulation::SyncPoint> points_of(const GpuCase& one) {
  const emulation::SyncPoints points;
  results(one, 0);
  std::vector<emulation::SyncPoint> seen = points.seen();
  std::erase_if(seen, [](const emulation::SyncPoint& point) { return !point.in_kernel; });
  return seen;
}

void expect_all_needed(const GpuCase& one) {
  const auto expected = results(one, 0);
  for (std::uint64_t seed = 1; seed < kSeeds; ++seed)
    EXPECT_TRUE(results(one, seed) == expected) << one.operation() << " depends on the order";
  for (const emulation::SyncPoint& point : points_of(one))
    EXPECT_TRUE(is_missed(one, point, expected))
        << "nobody misses " << point.place << " in " << point.kernel;
}

/// Calls body with cases that come to all barriers.
template <typename Body>
void for_each_case(DType dtype, Body&& body) {
  using namespace gpu_cases;
  // Rows of a warp and of several, in turns; of a block; too long to hold; not aligned.
  for (const std::int64_t columns : {256, 768, 8192, 16384, 1001}) {
    body(layer_norm_forward(dtype, 5, columns));
    body(rms_norm_forward(dtype, 5, columns));
    body(layer_norm_backward(dtype, 20, columns));
    body(rms_norm_backward(dtype, 20, columns));
  }
  for (const std::int64_t columns : {1000, 9000, 60000, 1001}) {
    body(softmax_forward(dtype, 3, columns));
    body(softmax_backward(dtype, 3, columns));
    body(cross_entropy(dtype, 3, columns));
  }
  body(block_total(300, 40));
  for (const std::int64_t columns : {264, 33}) body(column_sum(dtype, 300, columns));
  body(rotary(dtype, 3, 768));
  body(embedding_backward(dtype, 1300, 16, 1000));
  body(attention(dtype, 160, 160));
  body(attention(dtype, 1, 600));
}

class CudaBarriers : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, CudaBarriers, ::testing::Values(DType::fp32, DType::bf16),
                         testing::type_name);

TEST_P(CudaBarriers, AreAllNeeded) {
  for_each_case(GetParam(), expect_all_needed);
}

/// "norm.cuh:215" of every barrier or wait in the kernels' sources.
std::set<std::string> places_in_sources() {
  std::set<std::string> places;
  for (const auto& file :
       std::filesystem::directory_iterator(TESSERA_TEST_DATA "/../../lib/kernels/cuda")) {
    std::ifstream source(file.path());
    std::string line;
    for (int number = 1; std::getline(source, line); ++number)
      for (const char* call : {"__syncthreads();", "__syncwarp();", " wait_for_copies();"})
        if (line.find(call) != std::string::npos)
          places.insert(fmt::format("{}:{}", file.path().filename().string(), number));
  }
  return places;
}

TEST(CudaBarriersOfAllSources, AreTested) {
  std::set<std::string> seen;
  for_each_case(DType::fp32, [&](const GpuCase& one) {
    for (const emulation::SyncPoint& point : points_of(one)) seen.insert(point.place);
  });
  EXPECT_EQ(places_in_sources(), seen);
}

}  // namespace
}  // namespace tessera::testing
