// SPDX-License-Identifier: Apache-2.0
// Matrix products: argument checks, device dispatch, epilogues apart from their product, and the
// count of FLOPs.
#include "tessera/kernels/gemm.hpp"

#include <atomic>

#include <fmt/format.h>

#include "tessera/kernels/elementwise.hpp"

#include "kernels/cpu/gemm.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

namespace tessera::kernels {
namespace {

std::atomic<std::int64_t>& counter() {
  static std::atomic<std::int64_t> flops{0};
  return flops;
}

// Read by every product, set rarely: a bit for each option.
std::atomic<unsigned>& options_word() {
  static std::atomic<unsigned> word{0};
  return word;
}

// Fills in the default and refuses rows that would overlap.
std::int64_t leading_dimension(const char* name, std::int64_t given, std::int64_t columns) {
  if (given == 0) return columns;
  TESSERA_CHECK(given >= columns, Code::invalid_argument,
                fmt::format("gemm: {} is {}, but a row has {} elements", name, given, columns));
  return given;
}

void check_types(const Gemm& args) {
  dispatch_float(args.input_type, "gemm", [](auto) {});
  TESSERA_CHECK(args.output_type == DType::fp32 || args.output_type == args.input_type,
                Code::not_supported,
                fmt::format("gemm of {} writes fp32 or {}, not {}", to_string(args.input_type),
                            to_string(args.input_type), to_string(args.output_type)));
}

void check_epilogue(const Gemm& args) {
  if (args.epilogue == GemmEpilogue::none) {
    TESSERA_CHECK(args.argument == nullptr, Code::invalid_argument,
                  "gemm: an argument of an activation, but no activation");
    return;
  }
  const bool empty = args.m == 0 || args.n == 0;
  TESSERA_CHECK((args.argument != nullptr || empty) && args.beta == 0 && args.ldc == args.n,
                Code::invalid_argument,
                fmt::format("gemm: an activation needs its argument, beta 0 and packed rows of c, "
                            "not beta {}, ldc {} for {} columns",
                            args.beta, args.ldc, args.n));
  TESSERA_CHECK(args.bias == nullptr || args.epilogue == GemmEpilogue::activation,
                Code::invalid_argument, "gemm: an activation's gradient takes no bias");
}

void check_sums(const Gemm& args) {
  if (args.a_sums == nullptr && args.b_sums == nullptr) return;
  TESSERA_CHECK(
      args.epilogue == GemmEpilogue::none && (args.a_sums == nullptr || args.b_sums == nullptr),
      Code::invalid_argument,
      "gemm: sums of one operand are all that it computes beside a product");
  const bool packed = args.a_sums != nullptr ? args.transpose_a && args.lda == args.m
                                             : !args.transpose_b && args.ldb == args.n;
  TESSERA_CHECK(packed, Code::invalid_argument,
                "gemm: sums over k need an operand that is k packed rows");
}

void multiply(const Stream& stream, const Gemm& args) {
  if (args.m == 0 || args.n == 0) return;
  if (stream.device().is_cpu())
    cpu::gemm(args);
  else
    cuda::gemm(stream, args);
}

void sum_operand(const Stream& stream, const Gemm& args) {
  if (args.a_sums == nullptr && args.b_sums == nullptr) return;
  const bool left = args.a_sums != nullptr;
  column_sum(stream, {.x = left ? args.a : args.b,
                      .y = left ? args.a_sums : args.b_sums,
                      .output_type = args.output_type,
                      .accumulate = args.beta != 0,
                      .rows = args.k,
                      .columns = left ? args.m : args.n,
                      .dtype = args.input_type});
}

/// The product first, then what belongs to it.
void multiply_apart(const Stream& stream, const Gemm& args) {
  Gemm product = args;
  product.epilogue = GemmEpilogue::none;
  product.argument = product.a_sums = product.b_sums = nullptr;
  if (args.epilogue == GemmEpilogue::activation) product.c = args.argument;
  multiply(stream, product);
  const std::int64_t count = args.m * args.n;
  if (args.epilogue == GemmEpilogue::activation)
    activation_forward(stream, {.x = args.argument,
                                .y = args.c,
                                .count = count,
                                .function = args.function,
                                .dtype = args.output_type});
  if (args.epilogue == GemmEpilogue::activation_gradient)
    activation_backward(stream, {.dy = args.c,
                                 .x = args.argument,
                                 .dx = args.c,
                                 .count = count,
                                 .function = args.function,
                                 .dtype = args.output_type});
  sum_operand(stream, args);
}

}  // namespace

void gemm(const Stream& stream, const Gemm& args) {
  check_types(args);
  TESSERA_CHECK(
      args.m >= 0 && args.n >= 0 && args.k >= 0, Code::invalid_argument,
      fmt::format("gemm: sizes must not be negative: m {}, n {}, k {}", args.m, args.n, args.k));
  TESSERA_CHECK(args.beta == 0 || args.beta == 1, Code::invalid_argument,
                fmt::format("gemm: beta must be 0 or 1, not {}", args.beta));
  Gemm full = args;
  full.lda = leading_dimension("lda", args.lda, args.transpose_a ? args.m : args.k);
  full.ldb = leading_dimension("ldb", args.ldb, args.transpose_b ? args.k : args.n);
  full.ldc = leading_dimension("ldc", args.ldc, args.n);
  check_epilogue(full);
  check_sums(full);
  if (stream.device().is_cpu() || !cuda::gemm_with_epilogue(stream, full))
    multiply_apart(stream, full);
  add_flops(2 * args.m * args.n * args.k);
}

void set_gemm_options(const GemmOptions& options) {
  options_word().store((options.tf32 ? 1u : 0u) | (options.measure ? 2u : 0u));
}

GemmOptions gemm_options() {
  const unsigned word = options_word().load(std::memory_order_relaxed);
  return {.tf32 = (word & 1u) != 0, .measure = (word & 2u) != 0};
}

std::int64_t flop_count() {
  return counter().load(std::memory_order_relaxed);
}

void add_flops(std::int64_t flops) {
  counter().fetch_add(flops, std::memory_order_relaxed);
}

}  // namespace tessera::kernels
