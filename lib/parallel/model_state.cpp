// SPDX-License-Identifier: Apache-2.0
#include "tessera/parallel/model_state.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>

#include <fmt/format.h>

#include "tessera/checkpoint/checksum.hpp"

#include "parallel/state_parts.hpp"

namespace tessera::parallel {
namespace {

// fill(named parameter, chunk, out) writes the fp32 values of a chunk of the parameter.
template <typename Fill>
void load_each(const nn::Network& model, zero::PartitionedOptimizer& optimizer, Fill&& fill) {
  agreeing(optimizer.everyone(), [&] {
    std::vector<float> values;
    int index = 0;
    for (const nn::NamedParameter& named : model.parameters()) {
      for_each_chunk(optimizer.held(index), [&](zero::Range chunk) {
        values.resize(static_cast<std::size_t>(chunk.count));
        fill(named, chunk, values.data());
        optimizer.load(index, chunk.begin, chunk.count, values.data());
      });
      ++index;
    }
  });
  optimizer.finish_load();
}

// The parameters that this rank answers for, by name: their indices.
std::map<std::string, int> answered_for(const nn::Network& model) {
  std::map<std::string, int> indices;
  int index = 0;
  for (const auto& [name, parameter] : model.parameters()) {
    if (parameter->counted) indices.emplace(name, index);
    ++index;
  }
  return indices;
}

// A Piece's elements, numbered run after run, by copy(local range, target).
template <typename Copy>
checkpoint::Piece::Fill fill_from(const nn::Runs& runs, Copy copy) {
  return [runs, copy](std::int64_t offset, std::int64_t count, void* target) {
    auto* out = static_cast<float*>(target);
    while (count > 0) {
      const std::int64_t row = offset / runs.count, at = offset % runs.count;
      const std::int64_t part = std::min(count, runs.count - at);
      copy(zero::Range{runs.local + row * runs.local_stride + at, part}, out);
      out += part;
      offset += part;
      count -= part;
    }
  };
}

// One unit of a rank adds up with those of other ranks, and the others of this rank with it.
void begin_tied_unit(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                     const nn::Unit& unit, std::map<std::string, int>& first) {
  const std::string& name = unit.parameters.front().name;
  const auto group = model.pipeline().ties.find(name);
  const bool is_first = !first.contains(name);
  const bool has_group = is_first && group != model.pipeline().ties.end();
  const int index = optimizer.begin_unit(unit.name, has_group ? group->second : nullptr);
  if (is_first)
    first[name] = index;
  else
    optimizer.tie_units(first[name], index);
}

}  // namespace

void add_parameters(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                    const optim::ParameterGroupOptions& groups) {
  std::map<std::string, int> places;
  for (const nn::NamedParameter& named : model.logical_parameters())
    places.emplace(named.name, static_cast<int>(places.size()));
  std::map<std::string, int> tied;  // parameter -> this rank's first unit of it
  std::set<std::string> names;
  for (const nn::Unit& unit : model.units()) {
    if (unit.tied)
      begin_tied_unit(model, optimizer, unit, tied);
    else
      optimizer.begin_unit(unit.name);
    for (const auto& [name, parameter] : unit.parameters)
      optimizer.add(
          names.insert(name).second ? name : fmt::format("{} of the {}", name, unit.name),
          parameter->shape(),
          {parameter->trainable, optim::weight_decay_of(groups, name, parameter->shape().rank()),
           parameter->counted, places.at(name)});
  }
}

void initialize(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                std::uint64_t seed) {
  load_each(model, optimizer, [&](const nn::NamedParameter& named, zero::Range chunk, float* out) {
    nn::initialize(*named.parameter, named.name, seed, chunk.begin, chunk.count, out);
  });
}

void load_parameters(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                     const checkpoint::ModelWeights& weights) {
  const auto shape_of = [&](const std::string& name) -> std::optional<Shape> {
    if (!weights.contains(name)) return std::nullopt;
    return weights.shape(name);
  };
  std::vector<std::string> names;
  agreeing(optimizer.everyone(), [&] {
    for (const nn::NamedParameter& named : model.parameters())
      names.push_back(nn::find_in_files(model, named, shape_of));
  });
  read_parameters_once(
      model, optimizer,
      [](int, const nn::NamedParameter& named) { return named.parameter->shape().numel(); },
      [&](int index, const nn::NamedParameter&, zero::Range part, float* out) {
        weights.read_range(names[static_cast<std::size_t>(index)], part.begin, part.count,
                           DType::fp32, out);
      });
}

std::vector<checkpoint::TensorRecord> records(const nn::Network& model,
                                              zero::PartitionedOptimizer& optimizer) {
  std::vector<checkpoint::TensorRecord> records;
  const std::map<std::string, int> answered = answered_for(model);
  // set_source(piece, index, runs) says where this rank's elements come from; their place is
  // filled in here.
  const auto add_all = [&](const auto& path_of, const auto& set_source) {
    for (const auto& [name, parameter] : model.logical_parameters()) {
      const nn::Partition& partition = parameter->partition;
      checkpoint::TensorRecord record{path_of(name), partition.logical(), DType::fp32, {}};
      const auto found = answered.find(name);
      const int i = found == answered.end() ? -1 : found->second;
      const zero::Range owned = i < 0 ? zero::Range{} : optimizer.owned(i);
      for (const nn::Runs& runs : partition.runs(owned.begin, owned.count)) {
        checkpoint::Piece piece;
        piece.begin = runs.logical;
        piece.count = runs.count;
        piece.rows = runs.rows;
        piece.stride = runs.logical_stride;
        piece.data_stride = runs.local_stride;
        set_source(piece, i, runs);
        record.pieces.push_back(std::move(piece));
      }
      records.push_back(std::move(record));
    }
  };
  add_all(parameter_path, [&](checkpoint::Piece& piece, int i, const nn::Runs& runs) {
    piece.fill = fill_from(runs, [&optimizer, i](zero::Range range, float* target) {
      optimizer.master(i, range.begin, range.count, target);
    });
  });
  for (const std::string& state : optimizer.state_names())
    add_all([&](const std::string& name) { return state_path(state, name); },
            [&](checkpoint::Piece& piece, int i, const nn::Runs& runs) {
              if (optimizer.device().is_cpu())
                piece.data = optimizer.state(i, state) + (runs.local - optimizer.held(i).begin);
              else
                piece.fill =
                    fill_from(runs, [&optimizer, i, state](zero::Range range, float* target) {
                      optimizer.copy_state(i, state, range, target);
                    });
            });
  return records;
}

std::uint64_t weights_checksum(const nn::Network& model,
                               const zero::PartitionedOptimizer& optimizer) {
  std::uint64_t sum = 0;
  std::vector<float> values;
  int index = 0;
  for (const auto& [name, parameter] : model.parameters()) {
    const zero::Range owned = parameter->counted ? optimizer.owned(index) : zero::Range{};
    for_each_chunk(owned, [&](zero::Range chunk) {
      values.resize(static_cast<std::size_t>(chunk.count));
      optimizer.master(index, chunk.begin, chunk.count, values.data());
      nn::for_each_run(parameter->partition, chunk.begin, chunk.count,
                       [&](std::int64_t local, std::int64_t logical, std::int64_t count) {
                         sum += checkpoint::checksum_range(name, logical,
                                                           values.data() + (local - chunk.begin),
                                                           DType::fp32, count);
                       });
    });
    ++index;
  }
  std::uint64_t total = 0;
  for (const std::string& text : optimizer.everyone().all_gather_text(std::to_string(sum)))
    total += std::stoull(text);
  return total;
}

}  // namespace tessera::parallel
