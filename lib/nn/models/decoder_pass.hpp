// SPDX-License-Identifier: Apache-2.0
// What the blocks of one pass through a decoder share.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tessera/autograd/sequence_shards.hpp"
#include "tessera/nn/models/decoder.hpp"

namespace tessera::nn {

/// Copied into closures of the tape.
struct Decoder::Pass {
  bool dropout = false;
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::int64_t first_row = 0;
  std::int64_t positions = 0;                    // of one whole row in this pass
  const autograd::PassMemory* memory = nullptr;  // instead of step and first_row
  // Where ranks share the rows: the tokens of each.
  std::shared_ptr<const autograd::SequenceShards> shards{};
  // Where this rank has some elements of a residual stream: which ones.
  std::shared_ptr<const std::vector<Interval>> runs{};
  Shape all_tokens{0};       // with token shards: of the residual stream of the tensor group
  Tensor places{};           // [rows, own tokens] int32: where in its sequence a token is
  KvCache* cache = nullptr;  // earlier positions; only on tapes that are off
};

}  // namespace tessera::nn
