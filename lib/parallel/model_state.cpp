// SPDX-License-Identifier: Apache-2.0
#include "tessera/parallel/model_state.hpp"

#include <optional>
#include <string>

#include "tessera/checkpoint/checksum.hpp"

#include "parallel/state_parts.hpp"

namespace tessera::parallel {
namespace {

// fill(named parameter, chunk, out) writes the fp32 values of a chunk of the parameter.
template <typename Fill>
void load_each(const nn::Network& model, zero::PartitionedOptimizer& optimizer, Fill&& fill) {
  agreeing(optimizer.group(), [&] {
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

}  // namespace

void add_parameters(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                    const optim::ParameterGroupOptions& groups) {
  for (const nn::Unit& unit : model.units()) {
    optimizer.begin_unit(unit.name);
    for (const auto& [name, parameter] : unit.parameters)
      optimizer.add(
          name, parameter->shape,
          {parameter->trainable, optim::weight_decay_of(groups, name, parameter->shape.rank())});
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
  read_parameters_once(
      model, optimizer,
      [](int, const nn::NamedParameter& named) { return named.parameter->shape.numel(); },
      [&](int, const nn::NamedParameter& named, zero::Range part, float* out) {
        weights.read_range(nn::find_in_files(model, named, shape_of), part.begin, part.count,
                           DType::fp32, out);
      });
}

std::vector<checkpoint::TensorRecord> records(const nn::Network& model,
                                              zero::PartitionedOptimizer& optimizer) {
  std::vector<checkpoint::TensorRecord> records;
  const auto parameters = model.parameters();
  // make_piece(index, owned) gives the source of this rank's elements; their place is filled in
  // here.
  const auto add_all = [&](const auto& path_of, const auto& make_piece) {
    for (int i = 0; i < static_cast<int>(parameters.size()); ++i) {
      const nn::NamedParameter& named = parameters[static_cast<std::size_t>(i)];
      const zero::Range owned = optimizer.owned(i);
      checkpoint::TensorRecord record{path_of(named.name), named.parameter->shape, DType::fp32, {}};
      if (owned.count > 0) {
        checkpoint::Piece piece = make_piece(i, owned);
        piece.begin = owned.begin;
        piece.count = owned.count;
        record.pieces.push_back(std::move(piece));
      }
      records.push_back(std::move(record));
    }
  };
  add_all(parameter_path, [&](int i, zero::Range owned) {
    checkpoint::Piece piece;
    piece.fill = [&optimizer, i, owned](std::int64_t offset, std::int64_t count, void* target) {
      optimizer.master(i, owned.begin + offset, count, static_cast<float*>(target));
    };
    return piece;
  });
  for (const std::string& state : optimizer.state_names())
    add_all([&](const std::string& name) { return state_path(state, name); },
            [&](int i, zero::Range owned) {
              checkpoint::Piece piece;
              if (optimizer.device().is_cpu())
                piece.data = optimizer.state(i, state) + (owned.begin - optimizer.held(i).begin);
              else
                piece.fill = [&optimizer, i, owned, state](std::int64_t offset, std::int64_t count,
                                                           void* target) {
                  optimizer.copy_state(i, state, {owned.begin + offset, count},
                                       static_cast<float*>(target));
                };
              return piece;
            });
  return records;
}

std::uint64_t weights_checksum(const nn::Network& model,
                               const zero::PartitionedOptimizer& optimizer) {
  std::uint64_t sum = 0;
  std::vector<float> values;
  int index = 0;
  for (const nn::NamedParameter& named : model.parameters()) {
    for_each_chunk(optimizer.owned(index), [&](zero::Range chunk) {
      values.resize(static_cast<std::size_t>(chunk.count));
      optimizer.master(index, chunk.begin, chunk.count, values.data());
      sum += checkpoint::checksum_range(named.name, chunk.begin, values.data(), DType::fp32,
                                        chunk.count);
    });
    ++index;
  }
  std::uint64_t total = 0;
  for (const std::string& text : optimizer.group().all_gather_text(std::to_string(sum)))
    total += std::stoull(text);
  return total;
}

}  // namespace tessera::parallel
