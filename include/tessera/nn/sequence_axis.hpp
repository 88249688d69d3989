// SPDX-License-Identifier: Apache-2.0
// Sequences that several ranks share, and who has which tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tessera/base/interval.hpp"

namespace tessera {
class Communicator;
}

namespace tessera::nn {

/// How attention sees tokens of other ranks: ranks exchange tokens for heads, or keys and values
/// travel around a ring.
enum class SequenceAttention : std::uint8_t { automatic, ulysses, ring };
const char* to_string(SequenceAttention attention);
/// "auto", "ulysses", "ring"; throws invalid_config.
SequenceAttention parse_sequence_attention(const std::string& name);

/// What a rank sends for the attention of one layer, as a multiple of the elements that one head
/// has of its tokens; forward and backward.
struct AttentionTraffic {
  double forward = 0, backward = 0;
  double total() const { return forward + backward; }
};
/// For even shares: 2 (s - 1) / s times heads and kv_heads for Ulysses, in each direction; (s - 1)
/// times keys and values for the ring, and backward those and their gradients.
AttentionTraffic attention_traffic(SequenceAttention attention, int ranks, std::int64_t heads,
                                   std::int64_t kv_heads);

/// `asked`, or the way that sends less in a training step; the ring where there are fewer key heads
/// than ranks.
SequenceAttention choose_attention(SequenceAttention asked, int ranks, std::int64_t heads,
                                   std::int64_t kv_heads);

/// The ranks that have the same rows, each some tokens of every row, and the same parameters. Every
/// rank is given whole rows and takes its tokens.
struct SequenceAxis {
  int size = 1;
  int rank = 0;
  SequenceAttention attention = SequenceAttention::automatic;
  /// As TensorAxis::group.
  Communicator* group = nullptr;
};

/// The positions of a row that each rank of the axis has, as even as they can be: one piece after
/// the other; for a ring two pieces, of twice as many as there are ranks, from the beginning and
/// from the end (zig-zag), so that queries of all ranks see equally many keys. Errors:
/// invalid_config when there are fewer positions than pieces, naming the sizes that would work.
std::vector<std::vector<Interval>> token_shares(const SequenceAxis& axis, std::int64_t positions);

/// How many of them this rank has.
std::int64_t token_count(const SequenceAxis& axis, std::int64_t positions);

}  // namespace tessera::nn
