// SPDX-License-Identifier: Apache-2.0
#include "tessera/nn/sequence_axis.hpp"

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::nn {

const char* to_string(SequenceAttention attention) {
  switch (attention) {
    case SequenceAttention::ulysses:
      return "ulysses";
    case SequenceAttention::ring:
      return "ring";
    default:
      return "auto";
  }
}

SequenceAttention parse_sequence_attention(const std::string& name) {
  for (const auto attention :
       {SequenceAttention::automatic, SequenceAttention::ulysses, SequenceAttention::ring})
    if (name == to_string(attention)) return attention;
  fail(Code::invalid_config,
       fmt::format("sequence_attention '{}' is unknown: auto, ulysses or ring", name));
}

AttentionTraffic attention_traffic(SequenceAttention attention, int ranks, std::int64_t heads,
                                   std::int64_t kv_heads) {
  const double hops = ranks - 1;
  if (attention == SequenceAttention::ring) {
    const double keys_and_values = hops * 2 * static_cast<double>(kv_heads);
    return {keys_and_values, 2 * keys_and_values};
  }
  const double exchanged = hops * 2 * static_cast<double>(heads + kv_heads) / ranks;
  return {exchanged, exchanged};
}

SequenceAttention choose_attention(SequenceAttention asked, int ranks, std::int64_t heads,
                                   std::int64_t kv_heads) {
  using enum SequenceAttention;
  if (asked != automatic) return asked;
  if (kv_heads < ranks) return ring;
  const auto bytes = [&](SequenceAttention attention) {
    return attention_traffic(attention, ranks, heads, kv_heads).total();
  };
  return bytes(ring) < bytes(ulysses) ? ring : ulysses;
}

std::vector<std::vector<Interval>> token_shares(const SequenceAxis& axis, std::int64_t positions) {
  const bool ring = axis.size > 1 && axis.attention == SequenceAttention::ring;
  const int pieces = ring ? 2 * axis.size : axis.size;
  TESSERA_CHECK(pieces <= positions, Code::invalid_config,
                fmt::format("mesh.sequence is {} but a sequence has {} tokens: every rank needs at "
                            "least {}; a sequence axis of 1 to {} works",
                            axis.size, positions, ring ? "two for a ring" : "one",
                            ring ? positions / 2 : positions));
  std::vector<std::vector<Interval>> shares;
  for (int rank = 0; rank < axis.size; ++rank) {
    shares.push_back({balanced_share(positions, pieces, rank)});
    if (ring) shares.back().push_back(balanced_share(positions, pieces, pieces - 1 - rank));
  }
  return shares;
}

std::int64_t token_count(const SequenceAxis& axis, std::int64_t positions) {
  if (axis.size == 1) return positions;
  const auto shares = token_shares(axis, positions);
  std::int64_t count = 0;
  for (const Interval& piece : shares[static_cast<std::size_t>(axis.rank)]) count += piece.size();
  return count;
}

}  // namespace tessera::nn
