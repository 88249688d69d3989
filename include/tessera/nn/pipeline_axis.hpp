// SPDX-License-Identifier: Apache-2.0
// Which layers of a network a rank of a pipeline computes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tessera/autograd/head_loss.hpp"
#include "tessera/autograd/value.hpp"

namespace tessera {
class Communicator;
}

namespace tessera::nn {

/// A piece of a network between two places where a pipeline may cut it.
struct LayerInfo {
  std::string name;
  /// Logical elements; those of a tied parameter in each layer that uses it.
  std::int64_t parameters = 0;
  /// Names of the parameters that it shares with other layers.
  std::vector<std::string> tied{};
};

/// The ranks that hold a network together, each one stage or more: runs of neighbouring layers.
struct PipelineAxis {
  int size = 1;
  int rank = 0;
  /// Of that size and rank, and longer alive than the network; nullptr: the network's parameters
  /// are as on that rank, but it cannot compute.
  Communicator* group = nullptr;
  /// Of the ranks whose layers share a parameter, by its name, on those ranks and where they are
  /// several.
  std::map<std::string, Communicator*> ties;
  /// Of two ranks each, first the sender, then the receiver, by the other one of them: where what a
  /// group sends waits its turn (NCCL), each direction has one of its own. Empty: `group` carries
  /// all messages.
  std::map<int, Communicator*> to, from;
  /// First layer of each stage, and the number of layers: {0, 3, 6} are two stages.
  std::vector<int> cuts;
  /// Rank of each stage.
  std::vector<int> ranks;
  /// Stages of this rank, ascending.
  std::vector<int> own;

  int rank_of(int stage) const { return ranks.at(static_cast<std::size_t>(stage)); }
  int stages() const { return static_cast<int>(cuts.size()) - 1; }
  bool has_first() const { return !own.empty() && own.front() == 0; }
  bool has_last() const { return !own.empty() && own.back() == stages() - 1; }
};

/// What a stage makes of a micro-batch: the last one its loss, the others the next one's input.
struct StageOutput {
  autograd::Value value;
  autograd::Loss loss;
};

}  // namespace tessera::nn
