// SPDX-License-Identifier: Apache-2.0
// Contributions that do not lie in shared memory, moved through staging in rounds.
#include "comm/shm/staged.hpp"

#include <algorithm>
#include <memory>

#include "tessera/base/shape.hpp"

#include "comm/shm/steps.hpp"

namespace tessera::comm {
StagedRounds StagedRounds::then(const StagedRounds& next) const {
  const auto in_turn = [n = rounds_](const auto& mine, const auto& theirs) {
    return [=](std::int64_t round) { round < n ? mine(round) : theirs(round - n); };
  };
  return StagedRounds(*node_, rounds_ + next.rounds_, in_turn(fill_, next.fill_),
                      in_turn(use_, next.use_));
}

bool StagedRounds::advance() {
  while (at_ < rounds_) {
    if (!filled_) {
      if (!node_->staging_is_free()) return false;
      fill_(at_);
      node_->announce_filled();
      filled_ = true;
    }
    if (!node_->all_filled()) return false;
    use_(at_);
    node_->finish_round();
    filled_ = false;
    ++at_;
  }
  return true;
}

StagedRounds staged_reduce_scatter(const StagedCall& call) {
  SharedNode& node = *call.node;
  const auto width = static_cast<std::int64_t>(size_of(call.dtype));
  const std::int64_t chunk =
      std::max<std::int64_t>(1, node.staging_bytes() / (width * node.size()));
  const auto steps = std::make_shared<std::vector<Step>>(steps_of(call.parts, chunk));
  const auto fill = [&call, &node, steps, width, chunk](std::int64_t round) {
    const Step step = (*steps)[static_cast<std::size_t>(round)];
    const Part& part = call.parts[step.part];
    for (int q = 0; q < node.size(); ++q)
      if (q != node.rank())
        copy_bytes(node.staging(node.rank()) + q * chunk * width,
                   part.send + (part.pieces.offset(q) + step.at) * width,
                   left_in(part.pieces, q, step.at, chunk) * width);
  };
  const auto use = [&call, &node, steps, width, chunk](std::int64_t round) {
    const Step step = (*steps)[static_cast<std::size_t>(round)];
    const Part& part = call.parts[step.part];
    const int me = node.rank();
    std::vector<const void*> sources;
    for (const int rank : call.order->ranks)
      sources.push_back(rank == me ? part.send + (part.pieces.offset(me) + step.at) * width
                                   : node.staging(rank) + me * chunk * width);
    void* const target = part.receive + step.at * width;
    fold({sources,
          call.order->node_ends,
          {&target, 1},
          call.dtype,
          call.dtype,
          call.reduction,
          node.size(),
          left_in(part.pieces, me, step.at, chunk)});
  };
  return StagedRounds(node, static_cast<std::int64_t>(steps->size()), fill, use);
}

StagedRounds staged_all_gather(const StagedCall& call) {
  SharedNode& node = *call.node;
  const auto width = static_cast<std::int64_t>(size_of(call.dtype));
  const std::int64_t chunk = std::max<std::int64_t>(1, node.staging_bytes() / width);
  const auto steps = std::make_shared<std::vector<Step>>(steps_of(call.parts, chunk));
  const auto fill = [&call, &node, steps, width, chunk](std::int64_t round) {
    const Step step = (*steps)[static_cast<std::size_t>(round)];
    const Part& part = call.parts[step.part];
    const std::int64_t bytes = left_in(part.pieces, node.rank(), step.at, chunk) * width;
    copy_bytes(node.staging(node.rank()), part.send + step.at * width, bytes);
    copy_bytes(part.receive + (part.pieces.offset(node.rank()) + step.at) * width,
               part.send + step.at * width, bytes);
  };
  const auto use = [&call, &node, steps, width, chunk](std::int64_t round) {
    const Step step = (*steps)[static_cast<std::size_t>(round)];
    const Part& part = call.parts[step.part];
    for (int k = 1; k < node.size(); ++k) {
      const int q = (node.rank() + k) % node.size();
      copy_bytes(part.receive + (part.pieces.offset(q) + step.at) * width, node.staging(q),
                 left_in(part.pieces, q, step.at, chunk) * width);
    }
  };
  return StagedRounds(node, static_cast<std::int64_t>(steps->size()), fill, use);
}

StagedRounds staged_broadcast(SharedNode& node, std::byte* data, std::int64_t bytes, int root) {
  const std::int64_t chunk = node.staging_bytes();
  const auto length = [=](std::int64_t round) { return std::min(chunk, bytes - round * chunk); };
  const auto fill = [=, &node](std::int64_t round) {
    if (node.rank() == root) copy_bytes(node.staging(root), data + round * chunk, length(round));
  };
  const auto use = [=, &node](std::int64_t round) {
    if (node.rank() != root) copy_bytes(data + round * chunk, node.staging(root), length(round));
  };
  return StagedRounds(node, ceil_divide(bytes, chunk), fill, use);
}

StagedRounds staged_all_to_all(SharedNode& node, const std::byte* send, const Pieces& send_bytes,
                               std::byte* receive, const Pieces& receive_bytes,
                               std::int64_t longest) {
  const std::int64_t chunk = std::max<std::int64_t>(1, node.staging_bytes() / node.size());
  const auto fill = [=, &node, &send_bytes](std::int64_t round) {
    for (int q = 0; q < node.size(); ++q)
      copy_bytes(node.staging(node.rank()) + q * chunk, send + send_bytes.offset(q) + round * chunk,
                 left_in(send_bytes, q, round * chunk, chunk));
  };
  const auto use = [=, &node, &receive_bytes](std::int64_t round) {
    for (int k = 0; k < node.size(); ++k) {
      const int q = (node.rank() + k) % node.size();
      copy_bytes(receive + receive_bytes.offset(q) + round * chunk,
                 node.staging(q) + node.rank() * chunk,
                 left_in(receive_bytes, q, round * chunk, chunk));
    }
  };
  return StagedRounds(node, ceil_divide(longest, chunk), fill, use);
}

}  // namespace tessera::comm
