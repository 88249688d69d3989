// SPDX-License-Identifier: Apache-2.0
// Streams that record their work for a graph instead of running it, and what is forbidden
// meanwhile.
#pragma once

#include <cstddef>
#include <driver_types.h>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "emulation/stream_state.hpp"

namespace tessera::emulation {

/// A piece of work of a graph, and those that have to be done before.
struct GraphNode {
  std::string what;
  Step step;
  std::vector<std::size_t> after;
};
using GraphNodes = std::vector<GraphNode>;

/// What the streams of one capture have recorded so far.
class Capturing {
 public:
  Capturing(cudaStream_t origin, cudaStreamCaptureMode mode) : origin_(origin), mode_(mode) {}

  cudaStream_t origin() const { return origin_; }
  /// Whether this thread may make calls that could disturb a capture.
  bool forbids_unsafe_calls() const {
    return mode_ == cudaStreamCaptureModeGlobal ||
           (mode_ == cudaStreamCaptureModeThreadLocal && thread_ == std::this_thread::get_id());
  }

  GraphNodes nodes;
  bool invalidated = false;  ///< nothing but its end is allowed any more
  bool ended = false;

 private:
  cudaStream_t origin_;
  cudaStreamCaptureMode mode_;
  std::thread::id thread_ = std::this_thread::get_id();
};

bool is_capturing(cudaStream_t stream);
cudaError_t capture_work(CUstream_st& stream, Work work);
/// A wait by a stream that captures, or for an event of a capture, which its stream then joins.
cudaError_t capture_wait(CUstream_st& stream, const CUevent_st& event);
/// Makes `nodes` of what the streams of the capture have recorded, and ends it on all of them.
cudaError_t end_capture(CUstream_st& stream, GraphNodes& nodes);

// cudaSuccess, or the error of a call that a capture forbids; the capture is invalid then.
cudaError_t refuse_in_capture(cudaStream_t stream);
cudaError_t refuse_unsafe_call();
cudaError_t refuse_wait(CUstream_st& stream);
cudaError_t refuse_wait(const CUevent_st& event);
cudaError_t refuse_device_wait(int device);

/// Runs the nodes in any order that they allow, one with each call. Launches of the same graph do
/// not overlap.
Step replay(std::shared_ptr<const GraphNodes> nodes, std::shared_ptr<bool> running);

}  // namespace tessera::emulation
