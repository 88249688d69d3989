// SPDX-License-Identifier: Apache-2.0
// The real cuDNN has engines for our graphs of attention on every architecture, and compiles them.
// Neither a GPU nor a driver is needed: devices are described, and the driver's stub of the toolkit
// lets cuDNN go on until it would load what it compiled.
#include <array>
#include <string>
#include <tuple>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

#include "kernels/cuda/cudnn_attention_graph.hpp"
#include "kernels/cuda/cudnn_cases.hpp"
#include "kernels/cuda/cudnn_plan.hpp"

namespace tessera::kernels::cuda::cudnn {
namespace {

using namespace tessera::testing::attention;

struct Card {
  int capability, multiprocessors, shared_memory;
  const char* name;
};
constexpr std::array kCards{Card{80, 108, 166912, "NVIDIA A100-SXM4-80GB"},
                            Card{90, 132, 232448, "NVIDIA H100 80GB HBM3"},
                            Card{100, 148, 232448, "NVIDIA B200"}};

/// A card as cuDNN would describe it.
Descriptor description_of(const Card& card) {
  const std::string text = fmt::format(
      R"({{"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],)"
      R"("regsPerBlock":65536,"multiProcessorCount":{},"warpSize":32,)"
      R"("maxSharedMemoryPerBlock":49152,"maxSharedMemoryPerBlockOptin":{},)"
      R"("reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,"maxCtasPerSM":32,)"
      R"("maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"pciDeviceId":0,"isTccDriver":0,)"
      R"("supportCoopLaunch":1,"totalGlobalMem":85899345920,"smClockRateKHz":1980000,)"
      R"("memClockRateKHz":2619000,"l2CacheSize":52428800,"cudaDeviceId":0,"deviceVer":{},)"
      R"("driverVer":13000,"deviceName":"{}"}})",
      card.multiprocessors, card.shared_memory, 10 * card.capability, card.name);
  Descriptor description(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  description.set<char>(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, text).finalize();
  return description;
}

AttentionShape shape_of(const Problem& p, DType dtype) {
  const Layout q(p, p.queries, p.heads), k(p, p.keys, p.kv_heads);
  AttentionForward args{};
  args.batch = p.batch;
  args.heads = p.heads;
  args.kv_heads = p.kv_heads;
  args.queries = p.queries;
  args.keys = p.keys;
  args.head_dim = p.head_dim;
  args.q_row_stride = args.y_row_stride = q.row;
  args.k_row_stride = args.v_row_stride = k.row;
  args.q_batch_stride = args.y_batch_stride = q.batch;
  args.k_batch_stride = args.v_batch_stride = k.batch;
  args.causal = p.causal;
  args.dtype = dtype;
  if (!p.lengths.empty()) args.lengths = p.lengths.data();
  return AttentionShape(args);
}

class CudnnGraphs : public ::testing::TestWithParam<std::tuple<Card, DType>> {
 protected:
  Card card() const { return std::get<0>(GetParam()); }
  AttentionShape shape(const Problem& p) const { return shape_of(p, std::get<1>(GetParam())); }
  Descriptor forward_engine(const Problem& p) const {
    return first_engine(forward_graph(shape(p), nullptr), target_);
  }
  Descriptor backward_engine(const Problem& p) const {
    return first_repeatable_engine(backward_graph(shape(p), nullptr), target_);
  }

 private:
  Descriptor description_ = description_of(card());
  Target target_{card().capability, &description_};
};

/// Compiled, and then loaded, or refused by the driver's stub alone.
void expect_compiled(const Descriptor& engine) {
  try {
    const Plan plan(engine);
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("EXECUTION_FAILED_CUDA_DRIVER"), std::string::npos)
        << error.what();
  }
}

TEST_P(CudnnGraphs, HaveEngines) {
  for (const Problem& p : kCudnnCases) {
    EXPECT_NO_THROW(forward_engine(p)) << describe(p);
    EXPECT_NO_THROW(backward_engine(p)) << describe(p);
  }
}

TEST_P(CudnnGraphs, AreCompiled) {
  Problem p{.batch = 2, .heads = 8, .kv_heads = 2, .queries = 1024, .keys = 1024, .head_dim = 64};
  for (const auto& lengths : {std::vector<std::int32_t>{}, {1024, 700}}) {
    p.lengths = lengths;
    expect_compiled(forward_engine(p));
    expect_compiled(backward_engine(p));
  }
}

/// The backward pass keeps no matrix of queries times keys on Blackwell, and elsewhere one of two
/// bytes for each pair: what the limit for it goes by.
TEST_P(CudnnGraphs, NeedTheWorkspaceThatIsReckonedWith) {
  const Problem p{
      .batch = 2, .heads = 8, .kv_heads = 8, .queries = 1024, .keys = 1024, .head_dim = 64};
  const auto bytes = backward_engine(p).value<std::int64_t>(CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE);
  const std::int64_t matrix = 2 * 8 * 1024 * 1024 * 2;
  EXPECT_LT(bytes, (card().capability >= 100 ? 0 : matrix) + 4096);
}

TEST_P(CudnnGraphs, OfOddHeadsHaveNone) {
  const Problem p{.batch = 1, .heads = 2, .kv_heads = 2, .queries = 64, .keys = 64, .head_dim = 36};
  EXPECT_THROW(forward_engine(p), Error);
  EXPECT_THROW(backward_engine(p), Error);
}

INSTANTIATE_TEST_SUITE_P(Cards, CudnnGraphs,
                         ::testing::Combine(::testing::ValuesIn(kCards),
                                            ::testing::Values(DType::bf16, DType::fp16)),
                         [](const auto& type) {
                           return fmt::format("sm_{}_{}", std::get<0>(type.param).capability,
                                              to_string(std::get<1>(type.param)));
                         });

}  // namespace
}  // namespace tessera::kernels::cuda::cudnn
