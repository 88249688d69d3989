// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn_plan.hpp"

#include <utility>
#include <vector>

#include "tessera/base/error.hpp"

namespace tessera::kernels::cuda::cudnn {
namespace {

using Settings = std::vector<std::pair<cudnnBackendKnobType_t, std::int64_t>>;

/// Of Blackwell's engine for the backward pass (number 5), those that keep an order of sums. The
/// heuristic does not offer them. From 9.23 on the configuration has parts.
Settings repeatable_settings() {
  if (cudnnGetVersion() < 92300)
    return {{CUDNN_KNOB_TYPE_KERNEL_CFG, 31}, {CUDNN_KNOB_TYPE_STAGES, 2}};
  return {{CUDNN_KNOB_TYPE_TILE_M, 3},     {CUDNN_KNOB_TYPE_TILE_N, 2},
          {CUDNN_KNOB_TYPE_KERNEL_CFG, 2}, {CUDNN_KNOB_TYPE_STREAM_K, 0},
          {CUDNN_KNOB_TYPE_TILE_CGA_M, 0}, {CUDNN_KNOB_TYPE_STAGES, 2}};
}

Descriptor blackwell_engine(const Descriptor& graph, const Target& target) {
  Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  engine.set(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph)
      .set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, std::int64_t{5});
  if (target.description != nullptr) engine.set(CUDNN_ATTR_ENGINE_DEVICEPROP, *target.description);
  engine.finalize();
  std::vector<Descriptor> choices;
  for (const auto& [type, value] : repeatable_settings())
    choices.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR)
        .set(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, type)
        .set(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, value)
        .finalize();
  Descriptor configuration(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  configuration.set(CUDNN_ATTR_ENGINECFG_ENGINE, engine)
      .set(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, choices)
      .finalize();
  return configuration;
}

}  // namespace

Descriptor first_engine(const Descriptor& graph, const Target& target) {
  Descriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)
      .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_HEUR_MODE_A);
  if (target.description != nullptr)
    heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *target.description);
  heuristic.finalize();
  std::vector<Descriptor> found =
      heuristic.descriptors(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, 1);
  TESSERA_CHECK(!found.empty(), Code::not_supported, "cuDNN has no engine for it");
  return std::move(found.front());
}

Descriptor first_repeatable_engine(const Descriptor& graph, const Target& target) {
  const bool blackwell = target.capability >= 100 && target.capability <= 103;
  return blackwell ? blackwell_engine(graph, target) : first_engine(graph, target);
}

Plan::Plan(const Descriptor& engine) : plan_(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
  plan_.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engine).finalize();
  workspace_ =
      static_cast<std::size_t>(plan_.value<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE));
}

void Plan::execute(cudnnHandle_t handle, std::span<const Argument> arguments,
                   void* workspace) const {
  std::vector<std::int64_t> numbers;
  std::vector<void*> places;
  for (const Argument& argument : arguments) {
    numbers.push_back(argument.number);
    places.push_back(const_cast<void*>(argument.data));
  }
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, numbers)
      .set<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, places)
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, workspace)
      .finalize();
  check(cudnnBackendExecute(handle, plan_.get(), pack.get()), "enqueueing");
}

}  // namespace tessera::kernels::cuda::cudnn
