// SPDX-License-Identifier: Apache-2.0
// Where an epilogue of cuBLASLt serves, no kernel of ours runs beside the product, and elsewhere
// one does.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/kernels/gemm.hpp"

#include "emulation/traffic.hpp"
#include "support/device_arrays.hpp"

namespace tessera::kernels {
namespace {

using namespace tessera::testing;

/// c [16, 24] with everything that an epilogue may want, in arrays `skip` elements too late.
class Case {
 public:
  explicit Case(DType dtype, std::int64_t skip = 0) {
    const auto at = [&](std::int64_t elements) {
      arrays_.push_back(random_array(dtype, elements + skip, arrays_.size()));
      const auto* begin = static_cast<const unsigned char*>(device_.at(arrays_.back()));
      return const_cast<unsigned char*>(begin + static_cast<std::size_t>(skip) * size_of(dtype));
    };
    arrays_.reserve(6);  // addresses stay
    gemm.a = at(16 * 32);
    gemm.b = at(32 * 24);
    gemm.c = at(16 * 24);
    argument = at(16 * 24);
    vector = at(24);
    gemm.input_type = gemm.output_type = dtype;
    device_.fetch();
  }

  /// Kernels of ours that the product launches.
  std::size_t kernels() const {
    const emulation::TrafficCounter counter;
    kernels::gemm(device_.stream(), gemm);
    device_.stream().synchronize();
    return counter.kernels().size();
  }

  Gemm gemm{.a = nullptr, .b = nullptr, .c = nullptr, .m = 16, .n = 24, .k = 32};
  void* argument;
  void* vector;

 private:
  std::vector<TypedArray> arrays_;
  DeviceArrays device_{Device{DeviceType::cuda, 0}};
};

class CudaEpilogue : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, CudaEpilogue, kernel_types(), type_name);

TEST_P(CudaEpilogue, GeluAndItsDerivative) {
  for (const auto epilogue : {GemmEpilogue::activation, GemmEpilogue::activation_gradient})
    for (const bool aligned : {true, false}) {
      Case one(GetParam(), aligned ? 0 : 1);
      one.gemm.epilogue = epilogue;
      one.gemm.argument = one.argument;
      EXPECT_EQ(one.kernels(), aligned ? 0u : 1u);
      one.gemm.function = Activation::gelu;  // not the tanh approximation
      EXPECT_EQ(one.kernels(), 1u);
    }
}

TEST_P(CudaEpilogue, GeluAfterABias) {
  Case one(GetParam());
  one.gemm.bias = one.vector;
  one.gemm.epilogue = GemmEpilogue::activation;
  one.gemm.argument = one.argument;
  EXPECT_EQ(one.kernels(), 0u);
}

TEST_P(CudaEpilogue, SumsOfEitherOperand) {
  for (const bool of_a : {true, false}) {
    Case one(GetParam());
    one.gemm.transpose_a = true;
    (of_a ? one.gemm.a_sums : one.gemm.b_sums) = one.vector;
    EXPECT_EQ(one.kernels(), 0u);
    one.gemm.beta = 1;  // cuBLASLt's would not be added
    EXPECT_GT(one.kernels(), 0u);
  }
}

}  // namespace
}  // namespace tessera::kernels
