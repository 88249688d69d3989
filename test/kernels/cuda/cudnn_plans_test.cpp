// SPDX-License-Identifier: Apache-2.0
// When cuDNN is asked and what becomes of its answers, and that the emulated one sees wrong graphs
// and wrong arguments.
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/kernels/attention.hpp"

#include "emulation/cudnn.hpp"
#include "emulation/device_data.hpp"
#include "kernels/attention_case.hpp"
#include "kernels/cuda/cudnn_attention_graph.hpp"
#include "kernels/cuda/cudnn_plan.hpp"
#include "support/cuda_testing.hpp"

namespace tessera::kernels {
namespace {

using namespace tessera::testing;
using namespace tessera::testing::attention;
namespace cudnn = cuda::cudnn;
using emulation::cudnn_executions;
using emulation::cudnn_plans;

class CudnnPlans : public ::testing::Test {
 protected:
  void TearDown() override {
    set_attention_kernels(AttentionKernels::automatic);
    emulation::refuse_cudnn_graphs(false);
    emulation::inflate_cudnn_workspace(0);
  }
  /// Both passes; how often cuDNN computed one.
  static std::int64_t taken(const Problem& p, DType dtype = DType::bf16) {
    Arrays a(p, dtype, test::gpu());
    const std::int64_t before = cudnn_executions();
    a.run(backward_args(p, a));
    return cudnn_executions() - before;
  }
  /// Of a kind that no other test uses: plans are kept.
  static Problem problem(std::int64_t heads) {
    return {.batch = 1, .heads = heads, .kv_heads = 1, .queries = 64, .keys = 64, .head_dim = 16};
  }
};

TEST_F(CudnnPlans, AreMadeOnceForEachShape) {
  const std::int64_t before = cudnn_plans();
  EXPECT_EQ(taken(problem(2)), 2);
  EXPECT_EQ(cudnn_plans() - before, 2);
  EXPECT_EQ(taken(problem(2)), 2);
  EXPECT_EQ(cudnn_plans() - before, 2);
  EXPECT_EQ(taken(problem(2), DType::fp16), 2);
  EXPECT_EQ(cudnn_plans() - before, 4);
}

TEST_F(CudnnPlans, AreMadeOnceForAllLengths) {
  const std::int64_t before = cudnn_plans();
  Problem p = problem(5);
  for (const std::int32_t length : {64, 17, 0}) {
    p.lengths = {length};
    EXPECT_EQ(taken(p), 2);
    EXPECT_EQ(cudnn_plans() - before, 2);
  }
  p.lengths.clear();
  EXPECT_EQ(taken(p), 2);
  EXPECT_EQ(cudnn_plans() - before, 4);
}

TEST_F(CudnnPlans, AreNotMadeForOtherCalls) {
  EXPECT_EQ(taken(problem(2), DType::fp32), 0);
  Problem p = problem(2);
  p.dropout = 0.1f;
  EXPECT_EQ(taken(p), 0);
  p = problem(2);
  p.queries = 32;
  EXPECT_EQ(taken(p), 0);
  p.keys = 32;
  EXPECT_EQ(taken(p), 0);
  p = problem(2);
  p.row_pad = 1;
  EXPECT_EQ(taken(p), 0);
  set_attention_kernels(AttentionKernels::own);
  EXPECT_EQ(taken(problem(2)), 0);
}

TEST_F(CudnnPlans, ThatAreRefusedAreRememberedAndComputedByOwnKernels) {
  emulation::refuse_cudnn_graphs(true);
  const Problem p = problem(3);
  EXPECT_EQ(taken(p), 0);
  emulation::refuse_cudnn_graphs(false);
  EXPECT_EQ(taken(p), 0);
  set_attention_kernels(AttentionKernels::cudnn);
  try {
    taken(p);
    ADD_FAILURE() << "took what it had refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::not_supported);
    EXPECT_NE(std::string(error.what()).find("no engine"), std::string::npos) << error.what();
  }
}

TEST_F(CudnnPlans, ThatNeedMuchMemoryAreTakenOnlyWhereCudnnIsDemanded) {
  emulation::inflate_cudnn_workspace(std::int64_t{513} << 20);
  EXPECT_EQ(taken(problem(4)), 0);
  set_attention_kernels(AttentionKernels::cudnn);
  EXPECT_EQ(taken(problem(4)), 2);
}

TEST_F(CudnnPlans, ReportArraysThatAreTooShort) {
  const emulation_test::Faults faults;
  const Problem p = problem(2);
  Arrays a(p, DType::bf16, test::gpu());
  AttentionForward args = forward_args(p, a);
  args.q = static_cast<const std::byte*>(args.q) + 16;
  a.run(args);
  ASSERT_EQ(faults.all().size(), 1u);
  EXPECT_NE(faults.text().find("value 1"), std::string::npos) << faults.text();
}

using cudnn::Argument;
using cudnn::Descriptor;
using cudnn::Extents;
using cudnn::GraphBuilder;
using cudnn::Value;

class EmulatedCudnn : public ::testing::Test {
 protected:
  Value array(std::int64_t number, const Extents& sizes) {
    return graph_.array(number, sizes, cudnn::packed(sizes), CUDNN_DATA_HALF);
  }
  Descriptor finish() { return std::move(graph_).finish(handle()); }
  static cudnnHandle_t handle() {
    static const cudnnHandle_t only = [] {
      cudnnHandle_t created = nullptr;
      EXPECT_EQ(cudnnCreate(&created), CUDNN_STATUS_SUCCESS);
      return created;
    }();
    return only;
  }
  GraphBuilder graph_;
};

TEST_F(EmulatedCudnn, RefusesShapesAndTypesThatDoNotFit) {
  const Value a = array(1, {1, 2, 8, 16}), b = array(2, {1, 2, 8, 16});
  EXPECT_THROW(graph_.matmul(a, b), Error);
  EXPECT_NO_THROW(graph_.matmul(a, GraphBuilder::transposed(b)));
  EXPECT_THROW(graph_.pointwise(CUDNN_POINTWISE_ADD, a, array(3, {1, 2, 8, 3}), a), Error);
  EXPECT_THROW(graph_.select(a, b, a), Error);
  EXPECT_THROW(graph_.pointwise(CUDNN_POINTWISE_CMP_GE, a, b, CUDNN_DATA_FLOAT), Error);
}

TEST_F(EmulatedCudnn, RefusesDescriptorsThatAreNotReady) {
  Descriptor kind(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  EXPECT_THROW(kind.finalize(), Error);  // no type
  kind.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
  Descriptor operation(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  EXPECT_THROW(operation.set(CUDNN_ATTR_OPERATION_MATMUL_DESC, kind), Error);
  kind.finalize();
  EXPECT_NO_THROW(operation.set(CUDNN_ATTR_OPERATION_MATMUL_DESC, kind));
  EXPECT_THROW(operation.set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, kind), Error);
  EXPECT_THROW(operation.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT), Error);
  EXPECT_THROW(kind.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT), Error);
}

TEST_F(EmulatedCudnn, RefusesGraphsThatDoNotFlow) {
  const Value a = array(1, {1, 2, 8, 8});
  graph_.pointwise(CUDNN_POINTWISE_EXP, a, CUDNN_DATA_FLOAT);  // and nobody uses it
  EXPECT_THROW(finish(), Error);
  graph_ = GraphBuilder();
  const Value again = array(1, {1, 2, 8, 8});
  graph_.matmul(again, again, array(2, {1, 2, 8, 8}));
  graph_.matmul(again, again, array(2, {1, 2, 8, 8}));  // computed twice
  EXPECT_THROW(finish(), Error);
  graph_ = GraphBuilder();
  const Value q = array(1, {1, 1, 8, 16});
  graph_.matmul(q, GraphBuilder::transposed(q), array(2, {1, 1, 8, 8}));  // described in two ways
  EXPECT_THROW(finish(), Error);
}

TEST_F(EmulatedCudnn, HasNoEngineForOtherPatterns) {
  const Value a = array(1, {1, 2, 8, 8});
  graph_.matmul(a, a, array(2, {1, 2, 8, 8}));
  const Descriptor graph = finish();
  EXPECT_THROW(cudnn::first_engine(graph, {.capability = 90}), Error);
}

/// A forward pass through the graph alone.
class OneForward {
 public:
  OneForward(const Problem& p, cudnnHandle_t handle)
      : arrays(p, DType::fp16, test::gpu()), args(forward_args(p, arrays)), handle_(handle) {
    EXPECT_EQ(cudnnSetStream(handle,
                             static_cast<cudaStream_t>(arrays.on_device.stream().native_handle())),
              CUDNN_STATUS_SUCCESS);
  }
  /// What the plan wants.
  std::vector<Argument> arguments() const {
    std::vector<Argument> result{{cudnn::kQ, args.q},
                                 {cudnn::kK, args.k},
                                 {cudnn::kV, args.v},
                                 {cudnn::kY, args.y},
                                 {cudnn::kLse, args.lse},
                                 {cudnn::kScale, &args.scale},
                                 {cudnn::kMinusInfinity, &minus_infinity_}};
    if (args.lengths != nullptr) result.push_back({cudnn::kLengths, args.lengths});
    return result;
  }
  void run(const std::vector<Argument>& given) {
    const StreamScope scope(arrays.on_device.stream());
    const Descriptor graph = forward_graph(cudnn::AttentionShape(args), handle_);
    const cudnn::Plan plan(cudnn::first_engine(graph, {.capability = 90}));
    const Buffer workspace = allocate(plan.workspace(), test::gpu(), Purpose::workspace);
    plan.execute(handle_, given, workspace.data());
    arrays.on_device.fetch();
  }

  Arrays arrays;
  AttentionForward args;

 private:
  cudnnHandle_t handle_;
  float minus_infinity_ = -std::numeric_limits<float>::infinity();
};

TEST_F(EmulatedCudnn, DefinesNothingInThePadding) {
  Problem p{.batch = 1, .heads = 1, .kv_heads = 1, .queries = 8, .keys = 8, .head_dim = 8};
  OneForward whole(p, handle());
  whole.run(whole.arguments());
  p.lengths = {5};
  OneForward padded(p, handle());
  // NaN that was multiplied by a probability of 0 would be everywhere.
  padded.args.k = padded.arrays.at(whole.arrays.k);
  padded.args.v = padded.arrays.at(whole.arrays.v);
  padded.run(padded.arguments());
  const Doubles expected = whole.arrays.y.values(), y = padded.arrays.y.values();
  for (std::size_t i = 0; i < y.size(); ++i)
    EXPECT_TRUE(i < 5 * 8 ? y[i] == expected[i] : std::isnan(y[i])) << i;
}

TEST_F(EmulatedCudnn, ReportsLengthsThatAreTooLong) {
  const emulation_test::Faults faults;
  Problem p{.batch = 2, .heads = 1, .kv_heads = 1, .queries = 8, .keys = 8, .head_dim = 16};
  p.lengths = {8, 0};
  OneForward call(p, handle());
  call.arrays.lengths.as<std::int32_t>()[1] = 9;
  const TypedArray too_long = call.arrays.lengths;
  call.args.lengths =
      static_cast<const std::int32_t*>(call.arrays.at(const_cast<TypedArray&>(too_long)));
  call.run(call.arguments());
  EXPECT_NE(faults.text().find("a length is not in 0..8"), std::string::npos) << faults.text();
}

TEST_F(EmulatedCudnn, HasNoEngineWhereAProductHasOtherLengths) {
  const Value lengths = graph_.array(9, {1, 1, 1, 1}, {1, 1, 1, 1}, CUDNN_DATA_INT32);
  const Value q = array(1, {1, 1, 8, 8}), k = array(2, {1, 1, 8, 8});
  EXPECT_THROW(graph_.matmul(q, k, array(3, {1, 1, 8, 8}), {.rows = &q}), Error);
  graph_ = GraphBuilder();
  graph_.array(9, {1, 1, 1, 1}, {1, 1, 1, 1}, CUDNN_DATA_INT32);
  graph_.matmul(array(1, {1, 1, 8, 8}), array(2, {1, 1, 8, 8}), array(3, {1, 1, 8, 8}),
                {.rows = &lengths});
  const Descriptor graph = finish();
  EXPECT_THROW(cudnn::first_engine(graph, {.capability = 90}), Error);
}

TEST_F(EmulatedCudnn, RefusesArgumentsThatAreMissingOrInTheWrongPlace) {
  const Problem p{.batch = 1, .heads = 1, .kv_heads = 1, .queries = 8, .keys = 8, .head_dim = 8};
  OneForward call(p, handle());
  const AttentionForward& args = call.args;
  const auto run = [&](const std::vector<Argument>& arguments) { call.run(arguments); };
  const std::vector<Argument> good = call.arguments();
  EXPECT_NO_THROW(run(good));
  std::vector<Argument> bad = good;
  bad.pop_back();
  EXPECT_THROW(run(bad), Error);
  bad = good;
  bad.push_back({99, args.q});
  EXPECT_THROW(run(bad), Error);
  bad = good;
  bad[0].data = static_cast<const std::byte*>(args.q) + 2;
  EXPECT_THROW(run(bad), Error);
  bad = good;
  bad[5].data = args.lse;  // a scalar on the device
  EXPECT_THROW(run(bad), Error);
}

}  // namespace
}  // namespace tessera::kernels
