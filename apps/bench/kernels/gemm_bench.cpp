// SPDX-License-Identifier: Apache-2.0
// Every product of a GPT-2 124M training step on 1024 tokens, as a fraction of oneDNN's own rate
// on a square product. The output head works on 256 tokens at a time and pads the rows of its
// logits, as in training.
#include <functional>
#include <string>
#include <vector>

#include "tessera/base/random.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/kernels/gemm.hpp"

#include "onednn_reference.hpp"
#include "support/bench.hpp"

namespace {

using namespace tessera;

// y[tokens, outputs] = x[tokens, inputs] w; a linear layer keeps w as [inputs, outputs], the head
// uses the embedding, [outputs, inputs].
struct Layer {
  const char* name;
  std::int64_t tokens, inputs, outputs;
  bool transposed;
};

std::vector<unsigned char> random_bytes(std::int64_t count, DType dtype, std::uint64_t seed) {
  const RandomStream random(seed, 0);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = random.uniform(i) - 0.5f;
  std::vector<unsigned char> result(values.size() * size_of(dtype));
  convert(values.data(), DType::fp32, result.data(), dtype, values.size());
  return result;
}

// The three products of a layer: output, gradient of the input, gradient of the weight.
void measure_layer(bench::Program& program, bench::OnednnReference& reference, const Layer& layer,
                   DType dtype, double share) {
  const std::string name = std::string(to_string(dtype)) + " " + layer.name;
  if (!program.wants(name)) return;
  const std::int64_t t = layer.tokens, in = layer.inputs, out = layer.outputs;
  auto x = random_bytes(t * in, dtype, 1), w = random_bytes(in * out, dtype, 2);
  const std::int64_t y_stride = round_up(out, 64);
  auto y = random_bytes(t * y_stride, dtype, 3);
  const auto product = [&](const char* what, kernels::Gemm args) {
    args.input_type = args.output_type = dtype;
    return bench::Variant{.name = what, .run = [args] { kernels::gemm({}, args); }};
  };
  kernels::Gemm output{.a = x.data(), .b = w.data(), .c = y.data(), .m = t, .n = out, .k = in};
  output.transpose_b = layer.transposed;
  output.ldc = y_stride;
  kernels::Gemm input{.a = y.data(), .b = w.data(), .c = x.data(), .m = t, .n = in, .k = out};
  input.transpose_b = !layer.transposed;
  input.lda = y_stride;
  kernels::Gemm weight{.a = x.data(), .b = y.data(), .c = w.data(), .m = in, .n = out, .k = t};
  weight.ldb = y_stride;
  if (layer.transposed) {
    std::swap(weight.a, weight.b);
    std::swap(weight.lda, weight.ldb);
    std::swap(weight.m, weight.n);
  }
  weight.transpose_a = true;
  program.measure(
      {.name = name,
       .variants = {reference.variant(), product("output", output),
                    product("input gradient", input), product("weight gradient", weight)},
       .work = 2.0 * static_cast<double>(t) * static_cast<double>(in) * static_cast<double>(out),
       .unit = "flop"},
      share);
}

}  // namespace

int main(int argc, char** argv) {
  bench::Program program("kernels_gemm", argc, argv);
  const Layer layers[] = {{"attention input", 1024, 768, 2304, false},
                          {"attention output", 1024, 768, 768, false},
                          {"mlp input", 1024, 768, 3072, false},
                          {"mlp output", 1024, 3072, 768, false},
                          {"head", 256, 768, 50257, true},
                          {"one token mlp", 1, 768, 3072, false},
                          {"one token head", 1, 768, 50257, true}};
  for (const DType dtype : {DType::bf16, DType::fp32}) {
    bench::OnednnReference reference(dtype);
    for (const Layer& layer : layers) measure_layer(program, reference, layer, dtype, 1.0 / 14);
  }
  return program.finish();
}
