// SPDX-License-Identifier: Apache-2.0
// A decoder as the stages of a pipeline: its layers, and the units of those that a rank has.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/comm/communicator.hpp"

#include "nn/models/decoder_pass.hpp"

namespace tessera::nn {
namespace {

std::int64_t elements_of(const Unit& unit) {
  std::int64_t elements = 0;
  for (const NamedParameter& named : unit.parameters)
    elements += named.parameter->partition.logical().numel();
  return elements;
}

}  // namespace

std::vector<LayerInfo> Decoder::layers() const {
  if (in_stages()) return {};
  std::vector<LayerInfo> layers;
  for (const Unit& unit : units_) layers.push_back({unit.name, elements_of(unit)});
  if (!sizes_.tied) return layers;
  layers.back().parameters += table_.partition.logical().numel();
  layers.front().tied = layers.back().tied = {table_name_};
  return layers;
}

// The tied table is a unit of its own on both ends, so that it is partitioned alike there.
std::vector<Unit> Decoder::units_of_stages() {
  std::vector<Unit> kept = Network::units_of_stages();
  if (!sizes_.tied) return kept;
  if (pipeline_.has_first()) {
    Unit& table = kept.front();
    Unit positions = table;
    const auto is_table = [&](const NamedParameter& named) { return named.parameter == &table_; };
    std::erase_if(table.parameters, [&](const auto& named) { return !is_table(named); });
    std::erase_if(positions.parameters, is_table);
    table.tied = true;
    positions.name = "positions";
    if (has_position_table_) kept.insert(kept.begin() + 1, std::move(positions));
  }
  if (pipeline_.has_last()) {
    last_table_ = table_;
    last_table_.counted = false;
    Unit copy{"head", {{table_name_, &last_table_}}, 0, 0};
    copy.stage = pipeline_.stages() - 1;
    copy.tied = true;
    kept.push_back(std::move(copy));
  }
  for (std::size_t i = 0; i < kept.size(); ++i)
    kept[i].first_use = kept[i].last_use = static_cast<int>(i);
  return kept;
}

int Decoder::unit_of(int layer) const {
  if (!in_stages()) return layer;
  int unit = sizes_.tied && has_position_table_ && pipeline_.has_first() && layer > 0 ? 1 : 0;
  for (const int stage : pipeline_.own) {
    const auto at = static_cast<std::size_t>(stage);
    const int first = pipeline_.cuts[at], end = pipeline_.cuts[at + 1];
    if (layer < end) return unit + layer - first;
    unit += end - first;
  }
  fail(Code::internal, fmt::format("layer {} is on another rank", layer));
}

int Decoder::head_unit() const {
  if (!sizes_.tied) return unit_of(final_layer());
  return in_stages() ? static_cast<int>(units_.size()) - 1 : 0;
}

bool Decoder::has_layer(int layer) const {
  return !in_stages() || std::ranges::any_of(pipeline_.own, [&](int stage) {
    const auto at = static_cast<std::size_t>(stage);
    return pipeline_.cuts[at] <= layer && layer < pipeline_.cuts[at + 1];
  });
}

void Decoder::require_all_layers() const {
  TESSERA_CHECK(!in_stages(), Code::not_supported,
                "this rank has some stages of the model only: load its checkpoint without a "
                "pipeline");
}

autograd::Value Decoder::embed_stage(autograd::Tape& tape, const Pass& pass, const Tensor& ids) {
  const int uses = sizes_.tied && has_position_table_ ? 2 : 1;
  for (int unit = 0; unit < uses; ++unit) tape.enter(unit);
  autograd::Value x = embed(tape, pass, ids);
  for (int unit = uses - 1; unit >= 0; --unit) tape.leave(unit);
  return x;
}

autograd::Value Decoder::blocks_of_stage(autograd::Tape& tape, const Pass& pass, int stage,
                                         const Tensor& ids, autograd::Value x) {
  const auto at = static_cast<std::size_t>(stage);
  const int end = std::min(pipeline_.cuts.at(at + 1), final_layer());
  for (int layer = pipeline_.cuts.at(at); layer < end; ++layer)
    x = layer == 0 ? embed_stage(tape, pass, own_tokens(tape.stream(), pass, ids))
                   : block(tape, pass, layer - 1, x);
  return x;
}

Tensor Decoder::logits_through_stages(autograd::Tape& tape, const Pass& pass, const Tensor& ids,
                                      Wanted wanted) {
  TESSERA_CHECK(pipeline_.group != nullptr, Code::invalid_argument,
                "this model has the stages of a pipeline without its group");
  Communicator& line = *pipeline_.group;
  const Stream& stream = tape.stream();
  const int last = pipeline_.stages() - 1;
  const auto is_own = [&](int stage) { return pipeline_.rank_of(stage) == pipeline_.rank; };
  const Shape shape = wanted == Wanted::all ? Shape{ids.size(0), ids.size(1), sizes_.vocabulary}
                                            : Shape{ids.size(0), sizes_.vocabulary};
  Tensor logits(shape, DType::fp32, ids.device());
  autograd::Value x;
  for (const int stage : pipeline_.own) {
    if (stage > 0 && !is_own(stage - 1)) {
      Tensor arrived(Shape{ids.size(0), ids.size(1), sizes_.width}, options_.dtype, ids.device());
      line.receive(arrived.data(), arrived.numel(), arrived.dtype(), pipeline_.rank_of(stage - 1),
                   0, stream)
          .wait();
      x = autograd::Value(std::move(arrived));
    }
    x = blocks_of_stage(tape, pass, stage, ids, x);
    if (stage == last) {
      logits = logits_of(tape, x, wanted);
    } else if (!is_own(stage + 1)) {
      const Tensor& made = x.data();
      line.send(made.data(), made.numel(), made.dtype(), pipeline_.rank_of(stage + 1), 0, stream)
          .wait();
    }
  }
  line.broadcast(logits.data(), logits.numel(), DType::fp32, pipeline_.rank_of(last), stream)
      .wait();
  return logits;
}

}  // namespace tessera::nn
