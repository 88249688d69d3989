// SPDX-License-Identifier: Apache-2.0
// Activations and gradients on their way between the ranks of a pipeline.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "tessera/comm/communicator.hpp"
#include "tessera/nn/pipeline_axis.hpp"
#include "tessera/tensor/tensor.hpp"

namespace tessera::parallel {

/// What is the same for all activations of one shape: the stage that takes them, and the shape of
/// the micro-batch's ids.
using Boundary = std::pair<int, std::vector<std::int64_t>>;

/// One message is under way to each peer: the next one waits for it, on a GPU the stream does. The
/// shape of a boundary's activations travels once, before the first of them; a gradient has that of
/// its activation.
class StageLink {
 public:
  /// `axis` outlives it and has its group.
  StageLink(const nn::PipelineAxis& axis, const Stream& stream)
      : axis_(axis), line_(*axis.group), stream_(stream) {}
  /// Waits for what is under way, except while an exception unwinds.
  ~StageLink();
  StageLink(const StageLink&) = delete;
  StageLink& operator=(const StageLink&) = delete;

  void send_activation(Tensor activation, int peer, const Boundary& boundary);
  Tensor receive_activation(int peer, const Boundary& boundary);
  void send(Tensor tensor, int peer);
  Tensor receive(int peer, const Shape& shape, DType dtype);
  /// Messages from a peer that are received next, in their order: where they have a stream of their
  /// own (GPUs) they may arrive while this one computes. Of no effect elsewhere. False: the shape
  /// is not known yet, and no later message may be expected.
  bool expect_activation(int peer, const Boundary& boundary);
  void expect(int peer, const Shape& shape, DType dtype);
  /// Waits for what is under way.
  void finish();

 private:
  struct Flight {
    Work work;
    Tensor tensor;
  };
  struct Form {
    Shape shape;
    DType dtype;
  };
  Form receive_form(int peer);
  void send_form(const Tensor& tensor, int peer);

  const nn::PipelineAxis& axis_;
  Communicator& line_;
  Stream stream_;
  std::map<int, Flight> flights_;               // by peer, to whom it goes
  std::map<int, std::deque<Flight>> expected_;  // by peer, from whom they come
  std::map<Boundary, Form> forms_;              // of what arrives
  std::map<Boundary, bool> announced_;          // of what leaves
};

}  // namespace tessera::parallel
