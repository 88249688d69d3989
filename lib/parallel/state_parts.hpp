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

// Every rank's part of a chunk of a parameter, which lie one after the other in the order of the
// ranks.
inline void gather_chunk(const zero::PartitionedOptimizer& optimizer, int index, zero::Range chunk,
                         const std::vector<float>& mine, std::vector<float>& all) {
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < optimizer.group().size(); ++rank)
    counts.push_back(zero::intersect(chunk, optimizer.layout().owned(index, rank)).count);
  all.resize(static_cast<std::size_t>(chunk.count));
  optimizer.group().all_gather_v(mine.data(), all.data(), counts, DType::fp32).wait();
}

// The values of a file: of each parameter the leading extent(index, named parameter) elements.
// read(named parameter, range, out) reads elements, store(index, range, values) takes what this
// rank holds. A rank reads what it owns; where it holds more, the rest comes from the others, so
// that all together read each byte once.
template <typename Extent, typename Read, typename Store>
void read_each_once(const nn::Model& model, zero::PartitionedOptimizer& optimizer, Extent&& extent,
                    Read&& read, Store&& store) {
  Communicator& group = optimizer.group();
  const Traffic::Pause pause(group.traffic());
  std::exception_ptr error;  // kept, for the others wait for this rank's part
  std::vector<float> mine, all;
  int index = 0;
  for (const nn::NamedParameter& named : model.parameters()) {
    const zero::Range there{0, extent(index, named)};
    for_each_chunk(zero::intersect(optimizer.held(index), there), [&](zero::Range chunk) {
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

}  // namespace tessera::parallel
