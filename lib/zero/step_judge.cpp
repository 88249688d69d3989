// SPDX-License-Identifier: Apache-2.0
// Norms of all ranks, and what follows from them.
#include "zero/step_judge.hpp"

#include <exception>
#include <span>
#include <string>

#include "tessera/base/log.hpp"

namespace tessera::zero {

using kernels::StepDecision;

PendingDecision::PendingDecision(const Stream& stream, const StepDecision* decision)
    : stream_(stream),
      memory_(immediate() ? allocate(sizeof(StepDecision), Device{}, Purpose::workspace)
                          : allocate_pinned(sizeof(StepDecision), Purpose::workspace)) {
  stream_.copy(memory_.data(), decision, sizeof(StepDecision));
  arrived_ = stream_.record();
}

/// The memory must not be used again while the copy is under way.
PendingDecision::~PendingDecision() {
  if (!memory_) return;
  try {
    if (std::uncaught_exceptions() == 0) arrived_.synchronize();
    if (arrived_.reached()) return;
  } catch (const std::exception& error) {
    log_error(std::string("while dropping a step under way: ") + error.what());
  }
  leak(std::move(memory_));
}

const StepDecision& PendingDecision::get() {
  arrived_.synchronize();
  arrived_ = {};
  return *memory_.as<const StepDecision>();
}

StepJudge::StepJudge(const Context& context, const SliceNorm& norm, const GradientStore& gradients)
    : context_(context), norm_(norm), gradient_type_(gradients.held_type()) {
  list_pieces(gradients);
  squares_ = allocate(bytes_of(context.everyone().size(), DType::fp64), context.device(),
                      Purpose::workspace);
  decision_ = allocate(sizeof(StepDecision), context.device(), Purpose::workspace);
  context.stream.fill_zero(decision_.data(), decision_.bytes());
}

void StepJudge::list_pieces(const GradientStore& gradients) {
  std::vector<kernels::GradientPiece> pieces;
  for (int u = 0; u < context_.units(); ++u)
    for (const FlatPiece& piece :
         context_.layout.pieces(u, context_.layout.slice(u, context_.rank()))) {
      const void* gradient = gradients.held(piece, u);
      if (gradient == nullptr) continue;
      pieces.push_back({gradient, piece.count});
      parameters_.push_back(piece.parameter);
    }
  const std::size_t bytes = pieces.size() * sizeof(kernels::GradientPiece);
  pieces_ = allocate(bytes, context_.device(), Purpose::workspace);
  if (pieces_) context_.stream.copy(pieces_.data(), pieces.data(), bytes);
}

void StepJudge::exchange_squares() {
  Communicator& group = context_.everyone();
  if (group.size() == 1) return;
  auto* squares = squares_.as<double>();
  if (context_.device().is_cpu()) {
    // A sum in which each place has one value that is not zero is a gather.
    for (int rank = 0; rank < group.size(); ++rank)
      if (rank != group.rank()) squares[rank] = 0;
    const auto count = static_cast<std::size_t>(group.size());
    return group.all_reduce_scalars(std::span(squares, count), Reduction::sum);
  }
  const std::int64_t others = group.size() - 1;
  group.traffic().add("scalars", others * static_cast<std::int64_t>(sizeof(double)), others);
  const Traffic::Pause pause(group.traffic());
  group.all_gather(squares + group.rank(), squares, 1, DType::fp64, context_.stream).wait();
}

PendingDecision StepJudge::judge(double loss_scale) {
  const Stream& stream = context_.stream;
  auto* decision = decision_.as<StepDecision>();
  norm_.total(squares_.as<double>() + context_.everyone().rank());
  exchange_squares();
  kernels::decide_step(stream, {.squares = squares_.as<double>(),
                                .count = context_.everyone().size(),
                                .loss_scale = loss_scale,
                                .largest_norm = context_.options.gradient_clipping,
                                .decision = decision});
  kernels::find_non_finite_piece(stream, {.pieces = pieces_.as<kernels::GradientPiece>(),
                                          .count = static_cast<std::int64_t>(parameters_.size()),
                                          .dtype = gradient_type_,
                                          .decision = decision});
  return {stream, decision};
}

int StepJudge::non_finite_parameter(const StepDecision& decision) const {
  const std::int32_t piece = decision.non_finite_piece();
  return piece < 0 ? -1 : parameters_[static_cast<std::size_t>(piece)];
}

}  // namespace tessera::zero
