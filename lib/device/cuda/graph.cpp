// SPDX-License-Identifier: Apache-2.0
#include "tessera/device/graph.hpp"

#include <cuda_runtime_api.h>

#include "tessera/base/error.hpp"

#include "device/cuda/check.hpp"
#include "device/cuda/device_guard.hpp"

namespace tessera {

namespace {

cudaStream_t handle_of(const Stream& stream) {
  return static_cast<cudaStream_t>(stream.native_handle());
}

/// Destroyed at the end of a scope.
class RecordedGraph {
 public:
  RecordedGraph() = default;
  RecordedGraph(const RecordedGraph&) = delete;
  RecordedGraph& operator=(const RecordedGraph&) = delete;
  ~RecordedGraph() {
    if (graph_ != nullptr) cuda::warn_cuda(cudaGraphDestroy(graph_), "destroying a graph");
  }
  cudaGraph_t* address() { return &graph_; }
  cudaGraph_t get() const { return graph_; }

 private:
  cudaGraph_t graph_ = nullptr;
};

/// Freed by CUDA after the launches that are under way.
std::shared_ptr<void> instantiate(cudaGraph_t graph) {
  cudaGraphExec_t executable = nullptr;
  cuda::check_cuda(cudaGraphInstantiate(&executable, graph, 0), "instantiating a graph");
  return {executable, [](void* used) {
            cuda::warn_cuda(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(used)),
                            "destroying a graph");
          }};
}

}  // namespace

void Graph::launch(const Stream& stream) const {
  const cuda::DeviceGuard guard(stream.device().index);
  cuda::check_cuda(
      cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable_.get()), handle_of(stream)),
      "launching a graph");
}

Capture::Capture(const Stream& stream) : stream_(stream) {
  TESSERA_CHECK(!stream.device().is_cpu(), Code::not_supported,
                "work of the CPU cannot be recorded in a graph");
  const cuda::DeviceGuard guard(stream_.device().index);
  // Other threads (a save in the background) go on with what they do.
  cuda::check_cuda(cudaStreamBeginCapture(handle_of(stream_), cudaStreamCaptureModeThreadLocal),
                   "beginning to record a graph");
  active_ = true;
}

Capture::~Capture() {
  if (!active_) return;
  RecordedGraph dropped;
  // It fails where an error that is reported already made the recording invalid.
  if (cudaStreamEndCapture(handle_of(stream_), dropped.address()) != cudaSuccess)
    cudaGetLastError();
}

Graph Capture::finish() {
  TESSERA_CHECK(active_, Code::internal, "a recording is finished twice");
  active_ = false;
  const cuda::DeviceGuard guard(stream_.device().index);
  RecordedGraph graph;
  cuda::check_cuda(cudaStreamEndCapture(handle_of(stream_), graph.address()), "recording a graph");
  return Graph(instantiate(graph.get()));
}

}  // namespace tessera
