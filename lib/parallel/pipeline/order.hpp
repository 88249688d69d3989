// SPDX-License-Identifier: Apache-2.0
// In which order a rank computes in each pipeline schedule, before messages are put in.
#pragma once

#include <vector>

#include "tessera/parallel/pipeline_schedule.hpp"

namespace tessera::parallel::pipeline {

/// Computations only.
using RankOrder = std::vector<PipelineAction>;
using OrderOfRank = RankOrder (*)(const PipelineShape& shape, int rank);

RankOrder gpipe_order(const PipelineShape& shape, int rank);
RankOrder one_forward_one_backward_order(const PipelineShape& shape, int rank);
RankOrder interleaved_order(const PipelineShape& shape, int rank);
RankOrder zero_bubble_order(const PipelineShape& shape, int rank);
RankOrder zb_v_order(const PipelineShape& shape, int rank);

}  // namespace tessera::parallel::pipeline
