// SPDX-License-Identifier: Apache-2.0
// The small model's training loop, and the same in fp64 on one process.
#include "zero/training.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>

#include "tessera/device/cuda.hpp"
#include "tessera/optim/parameter_groups.hpp"

#include "support/test_device.hpp"

namespace tessera::zero::testing {
namespace {

/// In [-1, 1).
float noise(std::uint64_t key) {
  key += 0x9e3779b97f4a7c15u;
  key = (key ^ (key >> 30)) * 0xbf58476d1ce4e5b9u;
  key = (key ^ (key >> 27)) * 0x94d049bb133111ebu;
  key ^= key >> 31;
  return static_cast<float>(static_cast<double>(key >> 40) / 8388608.0 - 1.0);
}

std::uint64_t combine(std::initializer_list<std::int64_t> values) {
  std::uint64_t key = 1;
  for (const std::int64_t value : values)
    key = key * 0x100000001b3u + static_cast<std::uint64_t>(value);
  return key;
}

float read(const void* data, std::int64_t index, DType dtype) {
  float value = 0;
  convert(static_cast<const std::byte*>(data) + index * static_cast<std::int64_t>(size_of(dtype)),
          dtype, &value, DType::fp32, 1);
  return value;
}

void write(void* data, std::int64_t index, DType dtype, float value, bool accumulate) {
  if (accumulate) value += read(data, index, dtype);
  convert(&value, DType::fp32,
          static_cast<std::byte*>(data) + index * static_cast<std::int64_t>(size_of(dtype)), dtype,
          1);
}

/// An array of the optimizer's device while the host works with it; zeros unless `read`.
class Visible {
 public:
  Visible(const PartitionedOptimizer& optimizer, void* data, std::int64_t count, DType dtype,
          bool read)
      : stream_(current_stream(optimizer.device())),
        data_(data),
        host_(static_cast<std::size_t>(count) * size_of(dtype)) {
    if (!read) return;
    stream_.copy(host_.data(), data_, host_.size());
    stream_.synchronize();
  }
  void* host() { return host_.data(); }
  void put_back() { stream_.copy(data_, host_.data(), host_.size()); }

 private:
  Stream stream_;
  void* data_;
  std::vector<std::byte> host_;
};

void write_gradients(PartitionedOptimizer& optimizer, int unit, int index,
                     const MicroBatchOptions& options) {
  const int rank = optimizer.group().rank();
  const bool spoils = options.spoiled && rank == optimizer.group().size() - 1;
  const FlatUnit& flat = optimizer.layout().unit(unit);
  std::vector<bool> written;
  for (int j = 0; j < flat.parameters; ++j) {
    const int p = flat.first_parameter + j;
    written.push_back(options.used(p) && optimizer.parameter_options(p).trainable);
    if (!written.back()) continue;
    const std::int64_t numel = optimizer.layout().parameter(p).numel();
    const bool adds = optimizer.gradients_accumulate();
    Visible weights(optimizer, optimizer.parameter_data(p), numel, optimizer.dtype(), true);
    Visible gradient(optimizer, optimizer.gradient_data(p), numel, optimizer.gradient_dtype(),
                     adds);
    for (std::int64_t i = 0; i < numel; ++i)
      write(gradient.host(), i, optimizer.gradient_dtype(),
            gradient_value(read(weights.host(), i, optimizer.dtype()), rank,
                           options.step.value_or(optimizer.steps()), index, p, i),
            adds);
    if (spoils && p == 3)
      write(gradient.host(), numel - 1, optimizer.gradient_dtype(), std::nanf(""), false);
    gradient.put_back();
  }
  optimizer.gradients_ready(unit, written);
}

/// Every rank's part of a whole array, put together as bits.
std::vector<std::uint32_t> whole(const PartitionedOptimizer& optimizer, int parameter,
                                 const std::vector<float>& owned) {
  Communicator& group = optimizer.group();
  const Traffic::Pause pause(group.traffic());
  const Range range = optimizer.owned(parameter);
  const auto numel = static_cast<std::size_t>(optimizer.layout().parameter(parameter).numel());
  std::vector<std::int64_t> bits(numel, 0);
  for (std::int64_t i = 0; i < range.count; ++i)
    bits[static_cast<std::size_t>(range.begin + i)] =
        std::bit_cast<std::uint32_t>(owned[static_cast<std::size_t>(i)]);
  if (numel > 0)
    group.all_reduce(bits.data(), static_cast<std::int64_t>(numel), DType::int64, Reduction::sum)
        .wait();
  std::vector<std::uint32_t> result;
  for (const std::int64_t value : bits) result.push_back(static_cast<std::uint32_t>(value));
  return result;
}

std::vector<float> own_state(const PartitionedOptimizer& optimizer, int parameter,
                             const std::string& name) {
  const Range own = optimizer.owned(parameter);
  std::vector<float> values(static_cast<std::size_t>(own.count));
  if (own.count > 0) optimizer.copy_state(parameter, name, own, values.data());
  return values;
}

}  // namespace

ModelSpec awkward_model() {
  return {
      {"embedding", {{"wte", {97, 31}, {}}}},
      {"h.0",
       {{"h.0.weight", {67, 191}, {}},
        {"h.0.bias", {67}, {}},
        {"h.0.scale", {}, {}},
        {"h.0.frozen", {41, 3}, {.trainable = false}}}},
      {"nothing", {}},
      {"h.1",
       {{"h.1.weight", {20011}, {.weight_decay = 0.05}},
        {"h.1.empty", {0, 5}, {}},
        {"h.1.bias", {3}, {}}}},
      {"final", {{"ln.weight", {13}, {}}, {"ln.bias", {1}, {}}}},
  };
}

float to_float(std::uint32_t bits) {
  return std::bit_cast<float>(bits);
}

float initial_value(int parameter, std::int64_t index) {
  return 0.5f * noise(combine({parameter, index}));
}

float gradient_value(float weight, int rank, std::int64_t step, int micro_batch, int parameter,
                     std::int64_t index) {
  return 0.01f * (0.3f * weight + noise(combine({7, rank, step, micro_batch, parameter, index})));
}

Options usual_options(int stage, DType dtype) {
  Options options;
  options.device = tessera::testing::test_device();
  options.stage = stage;
  options.dtype = dtype;
  options.rule.lr = 3e-3;
  options.rule.weight_decay = 0.1;
  options.gradient_clipping = 1.5;
  return options;
}

void declare(PartitionedOptimizer& optimizer, const ModelSpec& model) {
  for (const UnitSpec& unit : model) {
    optimizer.begin_unit(unit.name);
    for (const ParameterSpec& p : unit.parameters) optimizer.add(p.name, p.shape, p.options);
  }
}

void load_initial_values(PartitionedOptimizer& optimizer) {
  for (int p = 0; p < static_cast<int>(optimizer.layout().parameters().size()); ++p) {
    const Range held = optimizer.held(p);
    std::vector<float> values;
    for (std::int64_t i = held.begin; i < held.end(); ++i) values.push_back(initial_value(p, i));
    optimizer.load(p, held.begin, held.count, values.data());
  }
  optimizer.finish_load();
}

void micro_batch(PartitionedOptimizer& optimizer, int index, const MicroBatchOptions& options) {
  const auto units = static_cast<int>(optimizer.layout().units().size());
  for (int u = 0; u < units; ++u) {
    optimizer.gather(u);
    optimizer.prefetch_after(u, Direction::forward);
    optimizer.release(u);
  }
  for (int u = units - 1; u >= 0; --u) {
    optimizer.gather(u);
    optimizer.prefetch_after(u, Direction::backward);
    optimizer.attach_gradients(u);
    write_gradients(optimizer, u, index, options);
    optimizer.release(u);
  }
  optimizer.end_micro_batch();
}

StepResult one_step(PartitionedOptimizer& optimizer, const StepInput& input) {
  for (int m = 0; m < optimizer.options().accumulation_steps; ++m) micro_batch(optimizer, m);
  return optimizer.step(input);
}

Outcome outcome(const PartitionedOptimizer& optimizer) {
  Outcome result;
  for (int p = 0; p < static_cast<int>(optimizer.layout().parameters().size()); ++p) {
    const Range own = optimizer.owned(p);
    std::vector<float> master(static_cast<std::size_t>(own.count));
    optimizer.master(p, own.begin, own.count, master.data());
    result.master.push_back(whole(optimizer, p, master));
    result.exp_avg.push_back(whole(optimizer, p, own_state(optimizer, p, "exp_avg")));
    result.exp_avg_sq.push_back(whole(optimizer, p, own_state(optimizer, p, "exp_avg_sq")));
  }
  return result;
}

Outcome train(Communicator& group, const Options& options, int steps, const ModelSpec& model) {
  PartitionedOptimizer optimizer(group, options);
  declare(optimizer, model);
  optimizer.commit();
  load_initial_values(optimizer);
  std::vector<double> norms;
  for (int s = 0; s < steps; ++s) norms.push_back(one_step(optimizer).grad_norm);
  Outcome result = outcome(optimizer);
  result.norms = norms;
  return result;
}

std::vector<std::vector<double>> train_in_fp64(int ranks, const Options& options, int steps,
                                               const ModelSpec& model, std::vector<double>* norms) {
  std::vector<ParameterSpec> specs;
  for (const UnitSpec& unit : model)
    specs.insert(specs.end(), unit.parameters.begin(), unit.parameters.end());
  std::vector<std::vector<double>> w(specs.size()), m(specs.size()), v(specs.size());
  for (std::size_t p = 0; p < specs.size(); ++p)
    for (std::int64_t i = 0; i < specs[p].shape.numel(); ++i)
      w[p].push_back(initial_value(static_cast<int>(p), i));
  for (std::size_t p = 0; p < specs.size(); ++p) {
    m[p].assign(w[p].size(), 0.0);
    v[p].assign(w[p].size(), 0.0);
  }
  for (int step = 0; step < steps; ++step) {
    std::vector<std::vector<double>> g(specs.size());
    double squares = 0;
    for (std::size_t p = 0; p < specs.size(); ++p) {
      g[p].assign(w[p].size(), 0.0);
      if (!specs[p].options.trainable) continue;
      for (std::size_t i = 0; i < w[p].size(); ++i) {
        for (int rank = 0; rank < ranks; ++rank)
          for (int k = 0; k < options.accumulation_steps; ++k)
            g[p][i] += gradient_value(static_cast<float>(w[p][i]), rank, step, k,
                                      static_cast<int>(p), static_cast<std::int64_t>(i));
        squares += g[p][i] * g[p][i];
      }
    }
    const double norm = std::sqrt(squares);
    norms->push_back(norm);
    const double clip = std::min(1.0, options.gradient_clipping / (norm + 1e-6));
    const double lr = options.rule.lr, b1 = options.rule.beta1, b2 = options.rule.beta2;
    const double c1 = 1 - std::pow(b1, step + 1), c2 = 1 - std::pow(b2, step + 1);
    for (std::size_t p = 0; p < specs.size(); ++p) {
      if (!specs[p].options.trainable) continue;
      const double decay = specs[p].options.weight_decay.value_or(
          specs[p].shape.rank() > 1 ? options.rule.weight_decay : 0.0);
      for (std::size_t i = 0; i < w[p].size(); ++i) {
        const double scaled = g[p][i] * clip;
        m[p][i] = b1 * m[p][i] + (1 - b1) * scaled;
        v[p][i] = b2 * v[p][i] + (1 - b2) * scaled * scaled;
        w[p][i] *= 1 - lr * decay;
        w[p][i] -= lr * (m[p][i] / c1) / (std::sqrt(v[p][i] / c2) + options.rule.epsilon);
      }
    }
  }
  return w;
}

}  // namespace tessera::zero::testing
