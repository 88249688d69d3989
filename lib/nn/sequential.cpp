// SPDX-License-Identifier: Apache-2.0
#include "tessera/nn/sequential.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/autograd/losses.hpp"
#include "tessera/base/error.hpp"

namespace tessera::nn {

using autograd::Tape;
using autograd::Value;

Objective cross_entropy() {
  return {.loss =
              [](Tape& tape, const Value& outputs, const Batch& batch) {
                return autograd::cross_entropy_loss(tape, outputs, batch.targets,
                                                    batch.gradient_scale);
              },
          .count = count_classes,
          .target_type = DType::int32};
}

Objective squared_error() {
  return {.loss =
              [](Tape& tape, const Value& outputs, const Batch& batch) {
                return autograd::element_loss(tape, outputs, batch.targets,
                                              kernels::ElementLossKind::squared, 1,
                                              batch.gradient_scale);
              },
          .count = [](const Tensor& targets) { return targets.numel(); },
          .target_type = DType::fp32};
}

Sequential::Sequential(const ModelOptions& options, DType input_type, Objective objective)
    : Network(options), input_type_(input_type), objective_(std::move(objective)) {
  TESSERA_CHECK(
      options.tensor.size == 1 && options.sequence.size == 1, Code::not_supported,
      "a list of layers is not split over tensor or sequence axes: use data and pipeline");
  TESSERA_CHECK(options.recompute != Recompute::selective, Code::not_supported,
                "which results of a layer are cheap to compute again is not known: recompute none "
                "or full");
  TESSERA_CHECK(objective_.loss && objective_.count, Code::invalid_argument,
                "an objective needs a loss and a count of targets");
}

Sequential& Sequential::add(const std::string& name, std::unique_ptr<Layer> layer,
                            const std::map<std::string, std::string>& ties) {
  const bool taken = std::ranges::any_of(entries_, [&](const Entry& e) { return e.name == name; });
  TESSERA_CHECK(!taken, Code::invalid_argument, fmt::format("there are two layers '{}'", name));
  TESSERA_CHECK(!in_stages(), Code::invalid_argument,
                fmt::format("layer '{}' comes after take_stages()", name));
  Entry entry{name, std::move(layer), {}, {}};
  auto open = ties;
  for (NamedParameter named : entry.layer->parameters()) {
    if (const auto found = open.find(named.name); found != open.end()) {
      tie(name, named, found->second);
      open.erase(found);
    } else {
      named.name = name + "." + named.name;
    }
    ++uses_[named.name];
    entry.parameters.push_back(named);
  }
  TESSERA_CHECK(open.empty(), Code::invalid_argument,
                fmt::format("layer '{}' has no parameter '{}' to tie", name, open.begin()->first));
  entries_.push_back(std::move(entry));
  units_ = units_of_stages();
  return *this;
}

void Sequential::tie(const std::string& layer, NamedParameter& named, const std::string& to) {
  for (const Entry& entry : entries_)
    for (const NamedParameter& earlier : entry.parameters) {
      if (earlier.name != to) continue;
      TESSERA_CHECK(earlier.parameter->shape() == named.parameter->shape(), Code::invalid_argument,
                    fmt::format("'{}' of layer '{}' is {}, but '{}', to which it is tied, {}",
                                named.name, layer, named.parameter->shape().to_string(), to,
                                earlier.parameter->shape().to_string()));
      named.name = to;
      named.parameter->counted = false;
      named.parameter->initialization = earlier.parameter->initialization;
      return;
    }
  fail(Code::invalid_argument,
       fmt::format("'{}' of layer '{}' is tied to '{}', which no layer before has", named.name,
                   layer, to));
}

// What is tied is a unit of its own wherever it is held, so that it is partitioned alike.
void Sequential::append_units(std::vector<Unit>& units, Entry& entry, int stage) {
  entry.units.clear();
  const auto append = [&](const std::string& name, std::vector<NamedParameter> parameters,
                          bool tied) {
    const int index = static_cast<int>(units.size());
    entry.units.push_back(index);
    units.push_back({name, std::move(parameters), index, index, stage, tied});
  };
  std::vector<NamedParameter> own;
  for (const NamedParameter& named : entry.parameters)
    if (!is_tied(named.name)) own.push_back(named);
  if (!own.empty()) append(entry.name, std::move(own), false);
  for (const NamedParameter& named : entry.parameters)
    if (is_tied(named.name)) append(entry.name + "/" + named.name, {named}, true);
}

std::vector<Unit> Sequential::units_of_stages() {
  std::vector<Unit> units;
  if (!in_stages())
    for (Entry& entry : entries_) append_units(units, entry, 0);
  for (const int stage : pipeline_.own) {
    const auto at = static_cast<std::size_t>(stage);
    for (int layer = pipeline_.cuts[at]; layer < pipeline_.cuts[at + 1]; ++layer)
      append_units(units, entries_[static_cast<std::size_t>(layer)], stage);
  }
  return units;
}

std::vector<LayerInfo> Sequential::layers() const {
  std::vector<LayerInfo> layers;
  for (const Entry& entry : entries_) {
    LayerInfo& info = layers.emplace_back(LayerInfo{entry.name});
    for (const auto& [name, parameter] : entry.parameters) {
      info.parameters += parameter->shape().numel();
      if (is_tied(name)) info.tied.push_back(name);
    }
  }
  return layers;
}

Value Sequential::first_value(Tape& tape, const Tensor& inputs) const {
  const bool numbers = input_type_ == DType::fp32;
  return Value(numbers ? inputs.to(options_.dtype, tape.stream()) : inputs);
}

Value Sequential::run_layer(Tape& tape, int index, const Value& x, const Batch& batch) {
  Entry& entry = entries_[static_cast<std::size_t>(index)];
  const auto body = [&layer = *entry.layer, batch](Tape& inside, const Value& input) {
    return layer.forward(inside, input, batch);
  };
  const bool again =
      options_.recompute_of(index) == Recompute::full && tape.recording() && x.requires_gradient();
  for (const int unit : entry.units) tape.enter(unit);
  const Value y = again ? autograd::recompute(tape, x, body, {nullptr, options_.host_activations})
                        : body(tape, x);
  for (auto unit = entry.units.rbegin(); unit != entry.units.rend(); ++unit) tape.leave(*unit);
  // Without its origin: what the next layer may compute along with this one would depend on the
  // cut.
  return {y.data(), y.slot()};
}

Value Sequential::run(Tape& tape, int first, int last, Value x, const Batch& batch) {
  for (int layer = first; layer < last; ++layer) x = run_layer(tape, layer, x, batch);
  return x;
}

autograd::Loss Sequential::loss(Tape& tape, const Value& outputs, const Batch& batch) const {
  if (batch.loss) return autograd::given_loss(tape, outputs, batch.loss, batch.gradient_scale);
  return objective_.loss(tape, outputs, batch);
}

autograd::Loss Sequential::forward_loss(Tape& tape, const Batch& batch) {
  require_whole("its loss");
  check(batch.ids, batch.loss ? nullptr : &batch.targets);
  return loss(tape, run(tape, 0, count(), first_value(tape, batch.ids), batch), batch);
}

StageOutput Sequential::forward_stage(Tape& tape, int stage, const Batch& batch,
                                      const Value& input) {
  check(batch.ids, batch.loss ? nullptr : &batch.targets);
  const auto at = static_cast<std::size_t>(stage);
  const int first = pipeline_.cuts.at(at), last = pipeline_.cuts.at(at + 1);
  const Value y = run(tape, first, last, stage == 0 ? first_value(tape, batch.ids) : input, batch);
  if (last < count()) return {y, {}};
  return {{}, loss(tape, y, batch)};
}

Tensor Sequential::predict(Tape& tape, const Tensor& inputs) {
  require_whole("predictions");
  TESSERA_CHECK(!tape.recording(), Code::invalid_argument,
                "predictions are for reading only: use a tape that does not record");
  check(inputs, nullptr);
  Batch batch;
  batch.ids = inputs;
  batch.training = false;
  const Value outputs = run(tape, 0, count(), first_value(tape, inputs), batch);
  return outputs.data().to(DType::fp32, tape.stream());
}

void Sequential::require_whole(const char* what) const {
  TESSERA_CHECK(!in_stages(), Code::not_supported,
                fmt::format("{} of a network of which this rank has some stages only: load its "
                            "checkpoint without a pipeline",
                            what));
}

std::int64_t Sequential::count_targets(const Tensor& targets) const {
  return objective_.count(targets);
}

void Sequential::check(const Tensor& inputs, const Tensor* targets) const {
  TESSERA_CHECK(inputs.dtype() == input_type_, Code::invalid_argument,
                fmt::format("inputs are {}, but the network wants {}", to_string(inputs.dtype()),
                            to_string(input_type_)));
  if (targets == nullptr) return;
  TESSERA_CHECK(targets->dtype() == target_type(), Code::invalid_argument,
                fmt::format("targets are {}, but the objective wants {}",
                            to_string(targets->dtype()), to_string(target_type())));
}

std::string Sequential::config_json() const {
  auto names = nlohmann::ordered_json::array();
  for (const Entry& entry : entries_) names.push_back(entry.name);
  return nlohmann::ordered_json{{"model_type", "sequential"}, {"layers", names}}.dump();
}

}  // namespace tessera::nn
