// SPDX-License-Identifier: Apache-2.0
// The runtime's calls about captures and graphs.
#include <cuda_runtime_api.h>
#include <memory>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "emulation/device_state.hpp"
#include "emulation/emulation.hpp"
#include "emulation/graphs.hpp"
#include "emulation/streams.hpp"

// Handles are never given back, so that the use of a dead one can be told.
struct CUgraph_st {
  std::shared_ptr<const tessera::emulation::GraphNodes> nodes;
  bool destroyed = false;
};

struct CUgraphExec_st {
  std::shared_ptr<const tessera::emulation::GraphNodes> nodes;
  std::shared_ptr<bool> running = std::make_shared<bool>(false);
  bool destroyed = false;
};

namespace tessera::emulation {

namespace {

template <typename Handle>
bool exists(Handle handle, const char* call) {
  if (handle != nullptr && !handle->destroyed) {
    return true;
  }
  report_fault(FaultKind::misuse, fmt::format("{} uses a graph that does not exist", call));
  return false;
}

template <typename Handle>
cudaError_t destroy(Handle handle, const char* call) {
  const Guard guard(mutex());
  if (!exists(handle, call)) {
    return set_last_error(cudaErrorInvalidValue);
  }
  handle->destroyed = true;
  handle->nodes.reset();
  return cudaSuccess;
}

}  // namespace

}  // namespace tessera::emulation

using namespace tessera::emulation;  // NOLINT: the rest of the file is the runtime's C interface

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const Guard guard(mutex());
  if (!usable(stream, "cudaStreamBeginCapture")) {
    return set_last_error(cudaErrorInvalidResourceHandle);
  }
  if (stream->capture != nullptr) {
    return set_last_error(cudaErrorIllegalState);
  }
  stream->capture = std::make_shared<Capturing>(stream, mode);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Guard guard(mutex());
  *graph = nullptr;
  if (!usable(stream, "cudaStreamEndCapture")) {
    return set_last_error(cudaErrorInvalidResourceHandle);
  }
  GraphNodes nodes;
  const cudaError_t error = end_capture(*stream, nodes);
  if (error == cudaSuccess) {
    *graph = new CUgraph_st{.nodes = std::make_shared<const GraphNodes>(std::move(nodes))};
  }
  return set_last_error(error);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const Guard guard(mutex());
  if (!usable(stream, "cudaStreamIsCapturing")) {
    return set_last_error(cudaErrorInvalidResourceHandle);
  }
  *status = !is_capturing(stream)          ? cudaStreamCaptureStatusNone
            : stream->capture->invalidated ? cudaStreamCaptureStatusInvalidated
                                           : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  const Guard guard(mutex());
  if (!exists(graph, "cudaGraphInstantiate")) {
    return set_last_error(cudaErrorInvalidValue);
  }
  *executable = new CUgraphExec_st{.nodes = graph->nodes};
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return destroy(graph, "cudaGraphDestroy");
}

// What is under way still runs.
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return destroy(executable, "cudaGraphExecDestroy");
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const Guard guard(mutex());
  if (!exists(executable, "cudaGraphLaunch")) {
    return set_last_error(cudaErrorInvalidValue);
  }
  if (is_capturing(stream)) {
    report_fault(FaultKind::misuse, "a graph inside a graph, which the emulation does not know");
    return set_last_error(refuse_in_capture(stream));
  }
  return set_last_error(enqueue(stream,
                                fmt::format("a graph of {} nodes", executable->nodes->size()),
                                replay(executable->nodes, executable->running)));
}

}  // extern "C"
