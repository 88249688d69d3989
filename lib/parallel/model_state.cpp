// SPDX-License-Identifier: Apache-2.0
#include "tessera/parallel/model_state.hpp"

#include <algorithm>
#include <exception>
#include <optional>
#include <string>

#include "tessera/checkpoint/checksum.hpp"

namespace tessera::parallel {
namespace {

// Elements that pass through host memory at once while loading.
constexpr std::int64_t kStagingElements = std::int64_t{1} << 20;

std::string parameter_path(const std::string& name) {
  return "parameters/" + name;
}
std::string state_path(const std::string& state, const std::string& name) {
  return "optimizer/" + state + "/" + name;
}

// Every rank's part of a chunk of a parameter, which lie one after the other in the order of the
// ranks.
void gather_chunk(const zero::PartitionedOptimizer& optimizer, int index, zero::Range chunk,
                  const std::vector<float>& mine, std::vector<float>& all) {
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < optimizer.group().size(); ++rank)
    counts.push_back(zero::intersect(chunk, optimizer.layout().owned(index, rank)).count);
  all.resize(static_cast<std::size_t>(chunk.count));
  optimizer.group().all_gather_v(mine.data(), all.data(), counts, DType::fp32).wait();
}

// Walks a range in pieces of at most kStagingElements.
template <typename Body>
void for_each_chunk(zero::Range whole, Body&& body) {
  for (std::int64_t begin = whole.begin; begin < whole.end(); begin += kStagingElements)
    body(zero::Range{begin, std::min(kStagingElements, whole.end() - begin)});
}

// The values of a file: read(named parameter, range, out) reads elements, store(index, range,
// values) takes what this rank holds. A rank reads what it owns; where it holds more, the rest
// comes from the others, so that all together read each byte once.
template <typename Read, typename Store>
void read_each_once(const nn::Model& model, zero::PartitionedOptimizer& optimizer, Read&& read,
                    Store&& store) {
  Communicator& group = optimizer.group();
  const Traffic::Pause pause(group.traffic());
  std::exception_ptr error;  // kept, for the others wait for this rank's part
  std::vector<float> mine, all;
  int index = 0;
  for (const nn::NamedParameter& named : model.parameters()) {
    for_each_chunk(optimizer.held(index), [&](zero::Range chunk) {
      const zero::Range owned = zero::intersect(chunk, optimizer.owned(index));
      mine.resize(static_cast<std::size_t>(owned.count));
      try {
        if (!error && owned.count > 0) read(named, owned, mine.data());
      } catch (...) {
        error = std::current_exception();
      }
      if (optimizer.options().stage == 0)
        gather_chunk(optimizer, index, chunk, mine, all);
      else
        all.swap(mine);
      if (!error) store(index, chunk, all.data());
    });
    ++index;
  }
  agreeing(group, [&] {
    if (error) std::rethrow_exception(error);
  });
}

// fill(named parameter, chunk, out) writes the fp32 values of a chunk of the parameter.
template <typename Fill>
void load_each(const nn::Model& model, zero::PartitionedOptimizer& optimizer, Fill&& fill) {
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

// The stored values of a model's parameters: `shape_of(name)` tells what is there, `read(name,
// begin, count, out)` reads.
template <typename ShapeOf, typename Read>
void load_stored(const nn::Model& model, zero::PartitionedOptimizer& optimizer, ShapeOf&& shape_of,
                 Read&& read) {
  read_each_once(
      model, optimizer,
      [&](const nn::NamedParameter& named, zero::Range part, float* out) {
        read(nn::find_in_files(model, named, shape_of), part.begin, part.count, out);
      },
      [&](int index, zero::Range chunk, const float* values) {
        optimizer.load(index, chunk.begin, chunk.count, values);
      });
  optimizer.finish_load();
}

}  // namespace

void add_parameters(const nn::Model& model, zero::PartitionedOptimizer& optimizer,
                    const optim::ParameterGroupOptions& groups) {
  for (const nn::Unit& unit : model.units()) {
    optimizer.begin_unit(unit.name);
    for (const auto& [name, parameter] : unit.parameters)
      optimizer.add(
          name, parameter->shape,
          {parameter->trainable, optim::weight_decay_of(groups, name, parameter->shape.rank())});
  }
}

void initialize(const nn::Model& model, zero::PartitionedOptimizer& optimizer, std::uint64_t seed) {
  load_each(model, optimizer, [&](const nn::NamedParameter& named, zero::Range chunk, float* out) {
    nn::initialize(*named.parameter, named.name, seed, chunk.begin, chunk.count, out);
  });
}

void load_parameters(const nn::Model& model, zero::PartitionedOptimizer& optimizer,
                     const checkpoint::ModelWeights& weights) {
  load_stored(
      model, optimizer,
      [&](const std::string& name) -> std::optional<Shape> {
        if (!weights.contains(name)) return std::nullopt;
        return weights.shape(name);
      },
      [&](const std::string& name, std::int64_t begin, std::int64_t count, float* out) {
        weights.read_range(name, begin, count, DType::fp32, out);
      });
}

void load_parameters(const nn::Model& model, zero::PartitionedOptimizer& optimizer,
                     const checkpoint::Reader& reader) {
  load_stored(
      model, optimizer,
      [&](const std::string& name) -> std::optional<Shape> {
        if (!reader.contains(parameter_path(name))) return std::nullopt;
        return reader.dataset(parameter_path(name)).shape;
      },
      [&](const std::string& name, std::int64_t begin, std::int64_t count, float* out) {
        reader.read(parameter_path(name), begin, count, DType::fp32, out);
      });
}

void load_optimizer_states(const nn::Model& model, zero::PartitionedOptimizer& optimizer,
                           const checkpoint::Reader& reader) {
  for (const std::string& state : optimizer.state_names())
    read_each_once(
        model, optimizer,
        [&](const nn::NamedParameter& named, zero::Range part, float* out) {
          reader.read(state_path(state, named.name), part.begin, part.count, DType::fp32, out);
        },
        [&](int index, zero::Range chunk, const float* values) {
          std::copy_n(values, chunk.count,
                      optimizer.state(index, state) + (chunk.begin - optimizer.held(index).begin));
        });
}

std::vector<checkpoint::TensorRecord> records(const nn::Model& model,
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
              piece.data = optimizer.state(i, state) + (owned.begin - optimizer.held(i).begin);
              return piece;
            });
  return records;
}

std::uint64_t weights_checksum(const nn::Model& model,
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
