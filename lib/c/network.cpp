// SPDX-License-Identifier: Apache-2.0
// Networks by configuration.
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "tessera/engine/guest_config.hpp"

#include "c/array.hpp"
#include "c/checkpoint_path.hpp"
#include "c/guard.hpp"
#include "c/handles.hpp"
#include "c/step.hpp"

namespace tessera::c {
namespace {

const float* read_only(const Tensor& tensor) {
  return tensor ? tensor.as<float>() : nullptr;
}
float* writable(const Tensor& tensor) {
  return tensor ? tensor.as<float>() : nullptr;
}

nn::GivenLayer given_layer(const tessera_layer* described) {
  const tessera_layer own = options_of(described, "tessera_layer");
  nn::GivenLayer layer{own.index, own.parameters, static_cast<float>(own.deviation), {}};
  if (own.forward != nullptr)
    layer.functions.forward = [own](const Tensor& x, const Tensor& w, const Tensor& y) {
      own.forward(x.size(0), x.size(1), y.size(1), own.parameters, read_only(x), read_only(w),
                  writable(y), own.user);
    };
  if (own.backward != nullptr)
    layer.functions.backward = [own](const Tensor& x, const Tensor& w, const Tensor& dy,
                                     const Tensor& dx, const Tensor& dw) {
      own.backward(x.size(0), x.size(1), dy.size(1), own.parameters, read_only(x), read_only(w),
                   read_only(dy), writable(dx), writable(dw), own.user);
    };
  return layer;
}

/// The caller's array has elements of the caller's size.
std::vector<nn::GivenLayer> given_layers(const tessera_network_options& options) {
  std::vector<nn::GivenLayer> layers;
  if (options.layer_count == 0) return layers;
  TESSERA_CHECK(options.layers != nullptr && options.layer_count > 0, Code::invalid_argument,
                fmt::format("tessera_network_options has {} layers, and the array is {}",
                            options.layer_count, options.layers != nullptr ? "there" : "NULL"));
  const std::size_t size = size_of_struct(*options.layers, "tessera_layer");
  const auto* bytes = reinterpret_cast<const std::byte*>(options.layers);
  for (int i = 0; i < options.layer_count; ++i)
    layers.push_back(given_layer(
        reinterpret_cast<const tessera_layer*>(bytes + static_cast<std::size_t>(i) * size)));
  return layers;
}

tessera_network make_network(const tessera_runtime& runtime,
                             const tessera_network_options* options) {
  const auto given = options_of(options, "tessera_network_options");
  auto group = ranks_of(runtime, given.group);
  engine::GuestConfig config;
  std::vector<nn::GivenLayer> layers;
  agreeing(*group, [&] {
    config = engine::read_guest_config(text_of(given.config), group->size());
    layers = given_layers(given);
  });
  auto learner = std::make_unique<engine::Learner>(*group, config, std::move(layers));
  auto kept = keeping(std::move(group), std::move(learner));
  runtime.session->add(kept);
  return {{runtime.session, std::move(kept)}, {}};
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

/// A caller's samples in the network's types. A descriptor that is wrong on one rank is an error of
/// all of them. Collective.
struct Samples {
  Tensor inputs, targets;

  Samples(engine::Learner& learner, const tessera_array* given_inputs) {
    agreeing(learner.engine().group(), [&] { read_inputs(learner, given_inputs); });
  }
  Samples(engine::Learner& learner, const tessera_array* given_inputs,
          const tessera_array* given_targets) {
    agreeing(learner.engine().group(), [&] {
      read_inputs(learner, given_inputs);
      targets = read(given_targets, learner.network().target_type(), "targets");
    });
  }

 private:
  void read_inputs(engine::Learner& learner, const tessera_array* given) {
    inputs = read(given, learner.network().input_type(), "inputs");
  }
};

/// After a step began: reading its loss is what waits. Without, it may be under way as long as
/// there is no other.
void give_loss(tessera_network& network, double* loss) {
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

Tensor read_if_given(const tessera_array* array, DType dtype, const char* name) {
  return array != nullptr ? read(array, dtype, name) : Tensor();
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
    learner.observe(c::read_if_given(inputs, learner.network().input_type(), "inputs"),
                    c::read_if_given(targets, learner.network().target_type(), "targets"));
  });
}

tessera_code tessera_network_train_step(tessera_network* network, const tessera_array* inputs,
                                        const tessera_array* targets, double* loss) {
  return guard([&] {
    engine::Learner& learner = learner_of(network);
    const Samples samples(learner, inputs, targets);
    learner.start_step(samples.inputs, samples.targets);
    c::give_loss(*network, loss);
  });
}

tessera_code tessera_network_train_step_with(tessera_network* network, const tessera_array* inputs,
                                             tessera_loss_function function, void* user,
                                             double* loss) {
  return guard([&] {
    engine::Learner& learner = learner_of(network);
    TESSERA_CHECK(function != nullptr, Code::invalid_argument, "`function` is NULL");
    const auto call = [=](std::int64_t first, const Tensor& outputs, const Tensor& gradients) {
      return function(first, outputs.size(0), outputs.size(1), outputs.as<float>(),
                      gradients.as<float>(), user);
    };
    const Tensor samples = Samples(learner, inputs).inputs;
    learner.start_step(samples, engine::Learner::LossFunction(call));
    c::give_loss(*network, loss);
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
    const Samples samples(learner, inputs, targets);
    deref(loss, "loss") = learner.evaluate(samples.inputs, samples.targets);
  });
}

tessera_code tessera_network_predict(tessera_network* network, const tessera_array* inputs,
                                     const tessera_array* outputs) {
  return guard([&] {
    engine::Learner& learner = learner_after_steps(network);
    c::write(learner.predict(Samples(learner, inputs).inputs), outputs, "outputs");
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
