// SPDX-License-Identifier: Apache-2.0
// Names of datasets, and moving what a rank holds between it and a file.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "tessera/nn/model.hpp"
#include "tessera/zero/partitioned_optimizer.hpp"

namespace tessera::parallel {

// Elements that pass through host memory at once while loading.
inline constexpr std::int64_t kStagingElements = std::int64_t{1} << 20;

inline std::string parameter_path(const std::string& name) {
  return "parameters/" + name;
}
inline std::string state_path(const std::string& state, const std::string& name) {
  return "optimizer/" + state + "/" + name;
}

// Walks a range in pieces of at most kStagingElements.
template <typename Body>
void for_each_chunk(zero::Range whole, Body&& body) {
  for (std::int64_t begin = whole.begin; begin < whole.end(); begin += kStagingElements)
    body(zero::Range{begin, std::min(kStagingElements, whole.end() - begin)});
}

// Completes a chunk of a parameter, of which each rank has read what it owns, on all ranks.
inline void gather_chunk(const zero::PartitionedOptimizer& optimizer, int index, zero::Range chunk,
                         const float* own, float* all) {
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < optimizer.group().size(); ++rank)
    counts.push_back(zero::intersect(chunk, optimizer.layout().owned(index, rank)).count);
  optimizer.group().all_gather_v(own, all, counts, DType::fp32).wait();
}

// The values of a file: of each parameter the leading extent(index, named parameter) elements that
// this rank has. read(index, named parameter, logical range, out) reads elements; place(index,
// range) is where a chunk of what this rank holds shall be, and store(index, range) is told when it
// is there. A rank reads what it owns; where it holds more, the rest comes from the others, so that
// all together read each byte once.
template <typename Extent, typename Read, typename Place, typename Store>
void read_each_once(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                    Extent&& extent, Read&& read, Place&& place, Store&& store) {
  Communicator& group = optimizer.group();
  const Traffic::Pause pause(group.traffic());
  std::exception_ptr error;  // kept, for the others wait for this rank's part
  int index = 0;
  const auto read_runs = [&](const nn::NamedParameter& named, zero::Range local, float* out) {
    nn::for_each_run(named.parameter->partition, local.begin, local.count,
                     [&](std::int64_t begin, std::int64_t logical, std::int64_t count) {
                       read(index, named, zero::Range{logical, count}, out + (begin - local.begin));
                     });
  };
  for (const nn::NamedParameter& named : model.parameters()) {
    const zero::Range there{0, extent(index, named)};
    for_each_chunk(zero::intersect(optimizer.held(index), there), [&](zero::Range chunk) {
      const zero::Range owned = zero::intersect(chunk, optimizer.owned(index));
      float* const all = place(index, chunk);
      float* const own = owned.count > 0 ? all + (owned.begin - chunk.begin) : all;
      try {
        if (!error && owned.count > 0) read_runs(named, owned, own);
      } catch (...) {
        error = std::current_exception();
      }
      if (optimizer.options().stage == 0) gather_chunk(optimizer, index, chunk, own, all);
      if (!error) store(index, chunk);
    });
    ++index;
  }
  agreeing(optimizer.everyone(), [&] {
    if (error) std::rethrow_exception(error);
  });
}

// read_each_once for parameters: through host memory, for they are held in more than one form.
template <typename Extent, typename Read>
void read_parameters_once(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                          Extent&& extent, Read&& read) {
  std::vector<float> values(static_cast<std::size_t>(kStagingElements));
  read_each_once(
      model, optimizer, extent, read, [&](int, zero::Range) { return values.data(); },
      [&](int index, zero::Range chunk) {
        optimizer.load(index, chunk.begin, chunk.count, values.data());
      });
  optimizer.finish_load();
}

}  // namespace tessera::parallel
