// SPDX-License-Identifier: Apache-2.0
// Captures follow the rules of the CUDA programming guide; where it leaves open whether a call is
// safe, it is refused.
#include "emulation/graphs.hpp"

#include <algorithm>
#include <cuda_runtime_api.h>
#include <utility>

#include "emulation/emulation.hpp"

namespace tessera::emulation {

namespace {

cudaError_t invalidate(Capturing& capture, cudaError_t error) {
  capture.invalidated = true;
  return error;
}

void join(std::vector<std::size_t>& nodes, const std::vector<std::size_t>& more) {
  for (const std::size_t node : more) {
    if (std::ranges::find(nodes, node) == nodes.end()) {
      nodes.push_back(node);
    }
  }
}

/// For each node whether it is among `last` or comes before one of them.
std::vector<bool> reached_from(const GraphNodes& nodes, const std::vector<std::size_t>& last) {
  std::vector<bool> reached(nodes.size());
  for (const std::size_t node : last) {
    reached[node] = true;
  }
  for (std::size_t node = nodes.size(); node-- > 0;) {
    for (const std::size_t before : nodes[node].after) {
      reached[before] = reached[before] || reached[node];
    }
  }
  return reached;
}

class Replay {
 public:
  Replay(std::shared_ptr<const GraphNodes> nodes, std::shared_ptr<bool> running)
      : nodes_(std::move(nodes)), running_(std::move(running)), done_(nodes_->size()) {}

  bool step() {
    if (!started_ && *running_) {
      return false;
    }
    started_ = *running_ = true;
    if (left_ > 0) {
      run_one();
    }
    *running_ = left_ > 0;
    return left_ == 0;
  }

 private:
  void run_one() {
    std::vector<std::size_t> ready;
    for (std::size_t node = 0; node < nodes_->size(); ++node) {
      if (!done_[node] && std::ranges::all_of((*nodes_)[node].after, [this](std::size_t before) {
            return done_[before];
          })) {
        ready.push_back(node);
      }
    }
    const std::size_t node = ready[choices().below(ready.size())];
    if ((*nodes_)[node].step()) {
      done_[node] = true;
      --left_;
    }
  }

  std::shared_ptr<const GraphNodes> nodes_;
  std::shared_ptr<bool> running_;
  std::vector<bool> done_;
  std::size_t left_ = done_.size();
  bool started_ = false;
};

}  // namespace

bool is_capturing(cudaStream_t stream) {
  return stream != nullptr && stream->capture != nullptr;
}

cudaError_t capture_work(CUstream_st& stream, Work work) {
  Capturing& capture = *stream.capture;
  if (capture.invalidated) {
    return cudaErrorStreamCaptureInvalidated;
  }
  capture.nodes.push_back({std::move(work.what), std::move(work.step), stream.captured_last});
  stream.captured_last = {capture.nodes.size() - 1};
  return cudaSuccess;
}

cudaError_t capture_wait(CUstream_st& stream, const CUevent_st& event) {
  if (event.capture == nullptr) {
    return invalidate(*stream.capture, cudaErrorStreamCaptureIsolation);
  }
  if (event.capture->ended) {
    if (stream.capture != nullptr) {
      invalidate(*stream.capture, cudaErrorStreamCaptureIsolation);
    }
    return cudaErrorCapturedEvent;
  }
  if (stream.capture != nullptr && stream.capture != event.capture) {
    invalidate(*event.capture, cudaErrorStreamCaptureMerge);
    return invalidate(*stream.capture, cudaErrorStreamCaptureMerge);
  }
  stream.capture = event.capture;
  join(stream.captured_last, event.captured_after);
  return cudaSuccess;
}

cudaError_t end_capture(CUstream_st& stream, GraphNodes& nodes) {
  const std::shared_ptr<Capturing> capture = stream.capture;
  if (capture == nullptr) {
    return cudaErrorIllegalState;
  }
  if (capture->origin() != &stream) {
    return invalidate(*capture, cudaErrorStreamCaptureUnmatched);
  }
  const auto reached = reached_from(capture->nodes, stream.captured_last);
  bool joined = true;
  for (const auto& one : registry().streams) {
    if (one->capture == capture) {
      joined = joined && std::ranges::all_of(one->captured_last,
                                             [&](std::size_t node) { return reached[node]; });
      one->capture.reset();
      one->captured_last.clear();
    }
  }
  capture->ended = true;
  if (capture->invalidated) {
    return cudaErrorStreamCaptureInvalidated;
  }
  if (!joined) {
    return cudaErrorStreamCaptureUnjoined;
  }
  nodes = std::move(capture->nodes);
  return cudaSuccess;
}

cudaError_t refuse_in_capture(cudaStream_t stream) {
  return invalidate(*stream->capture, cudaErrorStreamCaptureUnsupported);
}

cudaError_t refuse_unsafe_call() {
  for (const auto& stream : registry().streams) {
    if (stream->capture != nullptr && stream->capture->forbids_unsafe_calls()) {
      return refuse_in_capture(stream.get());
    }
  }
  return cudaSuccess;
}

cudaError_t refuse_wait(CUstream_st& stream) {
  return stream.capture != nullptr ? refuse_in_capture(&stream) : cudaSuccess;
}

cudaError_t refuse_wait(const CUevent_st& event) {
  if (event.capture == nullptr) {
    return refuse_unsafe_call();
  }
  return invalidate(*event.capture, cudaErrorCapturedEvent);
}

cudaError_t refuse_device_wait(int device) {
  for (const auto& stream : registry().streams) {
    if (stream->device == device && stream->capture != nullptr) {
      return refuse_in_capture(stream.get());
    }
  }
  return refuse_unsafe_call();
}

Step replay(std::shared_ptr<const GraphNodes> nodes, std::shared_ptr<bool> running) {
  return [replay = std::make_shared<Replay>(std::move(nodes), std::move(running))] {
    return replay->step();
  };
}

}  // namespace tessera::emulation
