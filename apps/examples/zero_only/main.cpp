// SPDX-License-Identifier: Apache-2.0
// A least-squares fit by a program with its own arrays and its own gradients; Tessera only
// partitions the optimizer over the ranks:   mpirun -n 4 zero_only [stage 0-3]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <vector>

#include "tessera/comm/runtime.hpp"
#include "tessera/zero/partitioned_optimizer.hpp"

constexpr int kSamples = 512, kFeatures = 24, kSteps = 300;

/// Mean squared error of y = x w + b over this rank's samples; writes the gradients.
double evaluate(const std::vector<float>& x, const std::vector<float>& w, float b,
                std::vector<float>& dw, float& db) {
  double loss = 0;
  dw.assign(kFeatures, db = 0.f);
  for (int s = 0; s < kSamples; ++s) {
    const float* row = &x[s * kFeatures];
    float error = b - 3.f;  // the true b is 3 and the true w are sines
    for (int f = 0; f < kFeatures; ++f) error += row[f] * (w[f] - std::sin(1.f + f));
    for (int f = 0; f < kFeatures; ++f) dw[f] += 2 * error * row[f] / kSamples;
    db += 2 * error / kSamples;
    loss += error * error / kSamples;
  }
  return loss;
}

int fit(int stage) {
  tessera::Runtime runtime;
  tessera::zero::Options options;
  options.stage = stage;
  options.rule = {.type = "AdamW"};
  options.gradient_clipping = 10;
  options.reduction = tessera::Reduction::mean;
  tessera::zero::PartitionedOptimizer optimizer(runtime, options);

  std::vector<float> w(kFeatures), dw(kFeatures), x(kSamples * kFeatures);
  float b = 0, db = 0;
  optimizer.add("w", {kFeatures}, w.data(), dw.data());
  optimizer.add("b", {}, &b, &db);
  optimizer.commit();

  std::mt19937 generator(static_cast<unsigned>(1 + runtime.rank()));  // other samples on each rank
  std::normal_distribution<float> normal;
  for (float& value : x) value = normal(generator);
  double loss = 0;
  for (int step = 0; step < kSteps; ++step) {
    loss = runtime.world().all_reduce_scalar(evaluate(x, w, b, dw, db), tessera::Reduction::mean);
    const auto result = optimizer.step({.lr = 0.1 * (kSteps - step) / kSteps});
    if (runtime.rank() == 0 && step % 50 == 0)
      std::printf("step %3d  loss %10.6f  gradient norm %9.5f\n", step, loss, result.grad_norm);
  }
  if (runtime.rank() == 0) std::printf("stage %d, %d ranks: %.3g\n", stage, runtime.size(), loss);
  return loss < 1e-4 ? 0 : 1;
}

int main(int argc, char** argv) {
  try {
    return fit(argc > 1 ? std::atoi(argv[1]) : 2);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "zero_only: %s\n", error.what());
    return 2;
  }
}
