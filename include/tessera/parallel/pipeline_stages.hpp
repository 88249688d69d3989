// SPDX-License-Identifier: Apache-2.0
// Cuts the layers of a network into the stages of a pipeline and gives them to ranks.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tessera/comm/communicator.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/parallel/pipeline_schedule.hpp"

namespace tessera::parallel {

/// How layers are divided: the stages are as even as contiguous ones can be.
struct StageCut {
  enum class By : std::uint8_t {
    parameters,  ///< in their parameters
    uniform,     ///< in the number of layers
    type,        ///< in the number of layers whose name matches `pattern`
    counts,      ///< as `counts` says: the layers of each stage
  };
  By by = By::parameters;
  std::string pattern{};  ///< a regular expression, found anywhere in the name, in any case
  std::vector<int> counts{};

  /// "parameters" (also "best"), "uniform", "type:PATTERN", "3,4,4,3". Errors: invalid_config.
  static StageCut parse(const std::string& text);
  std::string to_string() const;
};

/// First layer of each stage, and the number of layers. Errors: invalid_config with the numbers and
/// the nearest that would work: more stages than layers, or than layers that match; counts that are
/// not those of the stages and layers.
std::vector<int> cut_layers(const std::vector<nn::LayerInfo>& layers, int stages,
                            const StageCut& cut);

/// The stages of a rank, without its groups.
nn::PipelineAxis pipeline_axis(const PipelineShape& resolved, std::vector<int> cuts, int rank);

/// The groups that nn::PipelineAxis points at.
using TieGroups = std::map<std::string, std::unique_ptr<Communicator>>;

/// Makes `network` the stages that this rank of `line` has. `line`, whose device is open if the
/// network computes on one, and the groups that are returned have to outlive it. Collective over
/// `line`.
TieGroups take_stages(nn::Network& network, Communicator& line, const PipelineShape& resolved,
                      const std::vector<int>& cuts);

/// "stage 0: embedding, h.0 – h.2 (12.3 M parameters)" and so on, a line for each stage, the
/// last without its end.
std::string describe_stages(const std::vector<nn::LayerInfo>& layers, const std::vector<int>& cuts);

}  // namespace tessera::parallel
