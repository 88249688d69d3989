// SPDX-License-Identifier: Apache-2.0
// Networks by configuration.
#include <optional>
#include <utility>
#include <vector>

#include "tessera/engine/guest_config.hpp"

#include "c/array.hpp"
#include "c/callbacks.hpp"
#include "c/checkpoint_path.hpp"
#include "c/guard.hpp"
#include "c/handles.hpp"
#include "c/step.hpp"

namespace tessera::c {
namespace {

tessera_network make_network(const tessera_runtime& runtime,
                             const tessera_network_options* options) {
  const auto given = options_of(options, "tessera_network_options");
  auto group = ranks_of(runtime, given.group);
  const engine::GuestConfig config = engine::read_guest_config(
      text_of(given.config), *group, [&] { return runtime.session->gpu(); });
  std::vector<nn::GivenLayer> layers;
  agreeing(*group, [&] { layers = given_layers(given); });
  auto learner = std::make_unique<engine::Learner>(*group, config, std::move(layers));
  auto kept = keeping(std::move(group), std::move(learner));
  runtime.session->add(kept);
  return {{runtime.session, std::move(kept)}, callback_memory(given), {}};
}

void keep_failure(tessera_network& network, const std::optional<engine::SaveOutcome>& saved) {
  if (saved && !saved->error.empty()) network.failed_save = saved->error;
}

/// Waits until at most `most` steps are under way. Collective.
void finish_steps(tessera_network& network, int most = 0) {
  engine::Learner& learner = *network.value;
  while (learner.engine().unfinished_steps() > most) {
    network.last_step = learner.finish_step();
    keep_failure(network, network.last_step.saved);
  }
}

engine::Learner& learner_of(tessera_network* network) {
  return value_of(network, "network");
}

/// For all that looks at weights, and all that changes them but steps.
engine::Learner& learner_after_steps(tessera_network* network) {
  engine::Learner& learner = learner_of(network);
  finish_steps(*network);
  return learner;
}

Tensor read_array(tessera_network& network, const tessera_array* array, DType dtype,
                  const char* name) {
  return read(array, dtype, name, *network.session, network.value->engine().stream().device());
}

/// A caller's samples in the network's types. A descriptor that is wrong on one rank is an error of
/// all of them. Collective.
class Samples {
 public:
  Tensor inputs, targets;

  Samples(tessera_network& network, const tessera_array* given_inputs) : network_(network) {
    agreeing(network.value->engine().group(), [&] { read_inputs(given_inputs); });
  }
  Samples(tessera_network& network, const tessera_array* given_inputs,
          const tessera_array* given_targets)
      : network_(network) {
    agreeing(network.value->engine().group(), [&] {
      read_inputs(given_inputs);
      targets =
          read_array(network_, given_targets, network_.value->network().target_type(), "targets");
    });
  }

  /// For a step that is under way when the call returns: nothing of it is in the caller's memory
  /// on a GPU.
  void take() {
    for (Tensor* tensor : {&inputs, &targets})
      if (!tensor->device().is_cpu() && !tensor->unique()) *tensor = tensor->clone(stream());
    taken_ = stream().record();
  }
  /// Until the caller may change its arrays; to be called when the step has its work.
  void wait_until_taken() const { taken_.synchronize(); }

 private:
  const Stream& stream() const { return network_.value->engine().stream(); }
  void read_inputs(const tessera_array* given) {
    inputs = read_array(network_, given, network_.value->network().input_type(), "inputs");
  }

  tessera_network& network_;
  Event taken_;
};

/// Begins a step, start(samples). Reading its loss is what waits. Without, it may be under way as
/// long as there is no other.
template <typename Start>
void run_step(tessera_network& network, Samples samples, double* loss, Start&& start) {
  if (loss == nullptr) samples.take();
  start(samples);
  samples.wait_until_taken();
  finish_steps(network, loss != nullptr ? 0 : 1);
  if (loss != nullptr) *loss = network.last_step.loss;
}

void finish_save(tessera_network& network) {
  keep_failure(network, network.value->engine().finish_save());
  const std::string failure = std::exchange(network.failed_save, {});
  TESSERA_CHECK(failure.empty(), Code::io, failure);
}

void save(tessera_network* network, const char* path, const char* client_state, bool asynchronous) {
  engine::Learner& learner = learner_after_steps(network);
  finish_save(*network);
  const CheckpointPath place(&deref(path, "path"));
  learner.engine().save_checkpoint(
      place.folder,
      {.tag = place.tag, .client_state = text_of(client_state), .asynchronous = asynchronous});
}

Tensor read_if_given(tessera_network& network, const tessera_array* array, DType dtype,
                     const char* name) {
  return array != nullptr ? read_array(network, array, dtype, name) : Tensor();
}

}  // namespace
}  // namespace tessera::c

using namespace tessera;
using c::deref;
using c::guard;
using c::learner_after_steps;
using c::learner_of;
using c::Samples;

tessera_code tessera_network_create(tessera_runtime* runtime,
                                    const tessera_network_options* options,
                                    tessera_network** network) {
  return c::create(network,
                   [&] { return c::make_network(c::opened(runtime, "runtime"), options); });
}

tessera_code tessera_network_destroy(tessera_network** network) {
  const bool usable = network != nullptr && *network != nullptr && (*network)->session->open;
  const auto finish = [&](const auto& work) { return usable ? guard(work) : TESSERA_OK; };
  // A step that fails takes no save with it.
  const tessera_code stepped = finish([&] { c::finish_steps(**network); });
  const tessera_code saved = finish([&] { c::finish_save(**network); });
  const tessera_code destroyed = c::destroy(network);
  if (destroyed != TESSERA_OK) return destroyed;
  return saved != TESSERA_OK ? saved : stepped;
}

tessera_code tessera_network_observe(tessera_network* network, const tessera_array* inputs,
                                     const tessera_array* targets) {
  return guard([&] {
    engine::Learner& learner = learner_after_steps(network);
    learner.observe(
        c::read_if_given(*network, inputs, learner.network().input_type(), "inputs"),
        c::read_if_given(*network, targets, learner.network().target_type(), "targets"));
  });
}

tessera_code tessera_network_train_step(tessera_network* network, const tessera_array* inputs,
                                        const tessera_array* targets, double* loss) {
  return guard([&] {
    engine::Learner& learner = learner_of(network);
    c::run_step(*network, Samples(*network, inputs, targets), loss, [&](const Samples& samples) {
      learner.start_step(samples.inputs, samples.targets);
    });
  });
}

tessera_code tessera_network_train_step_with(tessera_network* network, const tessera_array* inputs,
                                             tessera_loss_function function, void* user,
                                             double* loss) {
  return guard([&] {
    engine::Learner& learner = learner_of(network);
    const auto call = c::given_loss(function, user, network->callback_memory);
    c::run_step(*network, Samples(*network, inputs), loss,
                [&](const Samples& samples) { learner.start_step(samples.inputs, call); });
  });
}

tessera_code tessera_network_last_step(tessera_network* network, tessera_step* result) {
  return guard([&] {
    learner_after_steps(network);
    c::give_step(&deref(result, "result"), network->last_step);
  });
}

tessera_code tessera_network_evaluate(tessera_network* network, const tessera_array* inputs,
                                      const tessera_array* targets, double* loss) {
  return guard([&] {
    engine::Learner& learner = learner_after_steps(network);
    const Samples samples(*network, inputs, targets);
    deref(loss, "loss") = learner.evaluate(samples.inputs, samples.targets);
  });
}

tessera_code tessera_network_predict(tessera_network* network, const tessera_array* inputs,
                                     const tessera_array* outputs) {
  return guard([&] {
    engine::Learner& learner = learner_after_steps(network);
    c::write(learner.predict(Samples(*network, inputs).inputs), outputs, "outputs",
             *network->session);
  });
}

tessera_code tessera_network_save(tessera_network* network, const char* path,
                                  const char* client_state) {
  return guard([&] { c::save(network, path, client_state, false); });
}

tessera_code tessera_network_save_async(tessera_network* network, const char* path,
                                        const char* client_state) {
  return guard([&] { c::save(network, path, client_state, true); });
}

tessera_code tessera_network_finish_save(tessera_network* network) {
  return guard([&] {
    learner_of(network);
    c::finish_save(*network);
  });
}

tessera_code tessera_network_saving(tessera_network* network, int* saving) {
  return guard([&] { deref(saving, "saving") = learner_of(network).engine().saving() ? 1 : 0; });
}

tessera_code tessera_network_load(tessera_network* network, const char* path) {
  return guard([&] {
    const auto outcome =
        learner_after_steps(network).engine().load_checkpoint(&deref(path, "path"));
    network->client_state = outcome.client_state;
  });
}

tessera_code tessera_network_client_state(tessera_network* network, const char** client_state) {
  return guard([&] {
    deref(client_state, "client_state") = deref(network, "network").client_state.c_str();
  });
}

tessera_code tessera_network_steps(tessera_network* network, int64_t* steps) {
  return guard([&] { deref(steps, "steps") = learner_of(network).engine().step(); });
}

tessera_code tessera_network_parameters(tessera_network* network, int64_t* count) {
  return guard([&] { deref(count, "count") = learner_of(network).network().parameter_count(); });
}
