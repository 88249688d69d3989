// SPDX-License-Identifier: Apache-2.0
// The partitioned optimizer on a caller's arrays.
#include "tessera/device/cuda.hpp"
#include "tessera/engine/guest_config.hpp"

#include "c/array.hpp"
#include "c/checkpoint_path.hpp"
#include "c/guard.hpp"
#include "c/handles.hpp"
#include "c/reduction.hpp"
#include "c/step.hpp"

namespace tessera::c {
namespace {

tessera_optimizer make_optimizer(const tessera_runtime& runtime,
                                 const tessera_optimizer_options* options) {
  const auto given = options_of(options, "tessera_optimizer_options");
  auto group = ranks_of(runtime, given.group);
  const engine::GuestConfig config = engine::read_guest_config(
      text_of(given.config), *group, [&] { return runtime.session->gpu(); });
  engine::EngineOptions training = config.engine;
  agreeing(*group, [&] {
    TESSERA_CHECK(config.model_json.empty(), Code::invalid_config,
                  "the configuration has a `model`, but an optimizer works on the caller's arrays: "
                  "remove it, or make a network");
    TESSERA_CHECK(config.accumulation == 1, Code::not_supported,
                  fmt::format("gradient_accumulation_steps is {}: whoever lends arrays adds up "
                              "their gradients; remove it",
                              config.accumulation));
    training.zero.reduction = reduction_of(given.reduction);
  });
  auto optimizer = std::make_unique<engine::LentOptimizer>(*group, training);
  return {{runtime.session, keeping(std::move(group), std::move(optimizer))}, {}};
}

zero::ParamView view_of(const char* name, const tessera_array* parameter,
                        const tessera_array* gradient, const tessera_parameter_options* options,
                        Session& session) {
  const auto given = options_of(options, "tessera_parameter_options");
  const Tensor values = borrow(parameter, "parameter", session);
  zero::ParamView view;
  view.name = &deref(name, "name");
  view.shape = values.shape();
  view.dtype = values.dtype();
  view.device = values.device();
  view.data = values.data();
  view.options.trainable = given.frozen == 0;
  if (given.has_weight_decay != 0) view.options.weight_decay = given.weight_decay;
  if (gradient == nullptr) return view;
  const Tensor slope = borrow(gradient, "gradient", session);
  TESSERA_CHECK(slope.shape() == values.shape() && slope.dtype() == values.dtype(),
                Code::invalid_argument,
                fmt::format("the gradient of '{}' is {} {}, but the array is {} {}", name,
                            to_string(slope.dtype()), slope.shape().to_string(),
                            to_string(values.dtype()), values.shape().to_string()));
  TESSERA_CHECK(slope.device() == values.device(), Code::invalid_argument,
                fmt::format("the gradient of '{}' lies on {}, but the array on {}", name,
                            slope.device().to_string(), values.device().to_string()));
  view.gradient = slope.data();
  return view;
}

engine::LentOptimizer& trainer_of(tessera_optimizer* optimizer) {
  return value_of(optimizer, "optimizer");
}

/// The caller looks at its arrays next.
void wait_for_arrays(engine::LentOptimizer& trainer) {
  current_stream(trainer.optimizer().device()).synchronize();
}

}  // namespace
}  // namespace tessera::c

using namespace tessera;
using c::deref;
using c::guard;
using c::opened;
using c::trainer_of;

tessera_code tessera_optimizer_create(tessera_runtime* runtime,
                                      const tessera_optimizer_options* options,
                                      tessera_optimizer** optimizer) {
  return c::create(optimizer,
                   [&] { return c::make_optimizer(opened(runtime, "runtime"), options); });
}

tessera_code tessera_optimizer_destroy(tessera_optimizer** optimizer) {
  return c::destroy(optimizer);
}

tessera_code tessera_optimizer_add(tessera_optimizer* optimizer, const char* name,
                                   const tessera_array* parameter, const tessera_array* gradient,
                                   const tessera_parameter_options* options) {
  return guard([&] {
    engine::LentOptimizer& trainer = trainer_of(optimizer);
    trainer.add(c::view_of(name, parameter, gradient, options, *optimizer->session));
  });
}

tessera_code tessera_optimizer_commit(tessera_optimizer* optimizer) {
  return guard([&] {
    trainer_of(optimizer).commit();
    c::wait_for_arrays(*optimizer->value);
  });
}

tessera_code tessera_optimizer_step(tessera_optimizer* optimizer, tessera_step* result) {
  return guard([&] {
    const engine::StepOutcome outcome = trainer_of(optimizer).step();
    c::wait_for_arrays(*optimizer->value);
    c::give_step(result, outcome);
  });
}

tessera_code tessera_optimizer_loss_scale(tessera_optimizer* optimizer, double* scale) {
  return guard([&] { deref(scale, "scale") = trainer_of(optimizer).loss_scale(); });
}

tessera_code tessera_optimizer_save(tessera_optimizer* optimizer, const char* path,
                                    const char* client_state) {
  return guard([&] {
    const c::CheckpointPath place(&deref(path, "path"));
    trainer_of(optimizer).save_checkpoint(
        place.folder, {.tag = place.tag, .client_state = c::text_of(client_state)});
  });
}

tessera_code tessera_optimizer_load(tessera_optimizer* optimizer, const char* path) {
  return guard([&] {
    const auto outcome = trainer_of(optimizer).load_checkpoint(&deref(path, "path"));
    c::wait_for_arrays(*optimizer->value);
    optimizer->client_state = outcome.client_state;
  });
}

tessera_code tessera_optimizer_client_state(tessera_optimizer* optimizer,
                                            const char** client_state) {
  return guard([&] {
    deref(client_state, "client_state") = deref(optimizer, "optimizer").client_state.c_str();
  });
}

tessera_code tessera_optimizer_steps(tessera_optimizer* optimizer, int64_t* steps) {
  return guard([&] { deref(steps, "steps") = trainer_of(optimizer).steps(); });
}
