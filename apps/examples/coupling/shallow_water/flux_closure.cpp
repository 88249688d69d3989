// SPDX-License-Identifier: Apache-2.0
#include "flux_closure.hpp"

#include <filesystem>

#include "tessera/engine/guest_config.hpp"

namespace {

constexpr const char* kNetwork =
    "model: {model_type: mlp, layer_sizes: [12, 48, 48, 3], activation: tanh,\n"
    "        normalize_inputs: true, normalize_outputs: true}\n"
    "engine: {optimizer: {type: Adam, params: {lr: 2e-3}}}\n";

// Faces on the upper edge of a rank's rows are the next rank's lower ones: they teach once.
std::size_t own_faces(const Faces& faces) {
  return faces.at(faces.rows, 0);
}

tessera::Tensor borrow(std::vector<float>& values, std::int64_t columns) {
  const auto rows = static_cast<std::int64_t>(values.size()) / columns;
  return tessera::Tensor::borrow(values.data(), {rows, columns}, tessera::DType::fp32);
}

void append(std::vector<float>& values, const Water& water) {
  for (const double value : water) values.push_back(static_cast<float>(value));
}

}  // namespace

FluxClosure::FluxClosure(tessera::Runtime& runtime)
    : learner_(runtime.world(), tessera::engine::read_guest_config(kNetwork, runtime)) {}

// Of the x faces, then of the y faces, with those of the upper edge last.
void FluxClosure::gather_inputs(const ShallowWater& coarse) {
  inputs_.clear();
  for (int j = 0; j < coarse.rows(); ++j)
    for (int i = 0; i < coarse.cells(); ++i)
      for (const Water& cell : coarse.around_x(j, i)) append(inputs_, cell);
  for (int j = 0; j <= coarse.rows(); ++j)
    for (int i = 0; i < coarse.cells(); ++i)
      for (const Water& cell : coarse.around_y(j, i)) append(inputs_, cell);
}

void FluxClosure::gather_samples(const ShallowWater& coarse, const Faces& wanted) {
  gather_inputs(coarse);
  inputs_.resize(12 * 2 * own_faces(wanted));
  targets_.clear();
  for (std::size_t f = 0; f < own_faces(wanted); ++f) append(targets_, wanted.x[f]);
  for (std::size_t f = 0; f < own_faces(wanted); ++f) append(targets_, wanted.y[f]);
}

void FluxClosure::observe(const ShallowWater& coarse, const Faces& wanted) {
  gather_samples(coarse, wanted);
  learner_.observe(borrow(inputs_, 12), borrow(targets_, 3));
}

double FluxClosure::learn(const ShallowWater& coarse, const Faces& wanted) {
  gather_samples(coarse, wanted);
  return learner_.train_step(borrow(inputs_, 12), borrow(targets_, 3)).loss;
}

void FluxClosure::correct(const ShallowWater& coarse, Faces& flux) {
  gather_inputs(coarse);
  const tessera::Tensor outputs = learner_.predict(borrow(inputs_, 12));
  const float* value = outputs.as<float>();
  for (Water& face : flux.x)
    for (double& part : face) part += *value++;
  for (Water& face : flux.y)
    for (double& part : face) part += *value++;
}

void FluxClosure::save(const std::string& folder) {
  learner_.engine().save_checkpoint(folder);
}

void FluxClosure::resume(const std::string& folder) {
  if (std::filesystem::exists(folder)) learner_.engine().load_checkpoint(folder);
}
