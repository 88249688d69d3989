// SPDX-License-Identifier: Apache-2.0
// Softmax cross-entropy where each rank of a group has the logits of a slice of the vocabulary.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/kernels/vocabulary_slice.hpp"

namespace tessera::kernels {

/// kernels::CrossEntropy in three steps. After the first the group takes the maximum of `largest`
/// over its ranks, after the second the sum of `sums`: 3 rows fp32 in all, never logits.
///   begin:   largest[r] and own_largest[r] = max of the own valid columns
///            sums[0, r] = Σ exp(logit - own_largest[r]) over them
///            sums[1, r] = the target's logit if it is here, else 0
///   rescale: sums[0, r] then counts from largest[r]
///   finish:  losses and dlogits, as CrossEntropy has them; the losses are the same on every rank
/// (Shoeybi et al. 2019, section 3; the exponentials are summed once instead of twice.)
struct CrossEntropySlice {
  const void* logits;           // [rows, columns]
  const std::int32_t* targets;  // [rows], ids of the whole vocabulary; negative: none
  float* losses;                // [rows]
  void* dlogits = nullptr;      // [rows, columns], same type; may be logits
  float scale = 1;
  float* own_largest;  // [rows]
  float* largest;      // [rows]
  float* sums;         // [2, rows]
  std::int64_t rows, columns;
  std::int64_t valid_columns;  // the slice without padding
  VocabularySlice slice;
  DType dtype;
};
/// Targets must be below the vocabulary: invalid_argument names the first that is not; on a GPU its
/// loss is NaN.
void cross_entropy_slice_begin(const Stream& stream, const CrossEntropySlice& args);
void cross_entropy_slice_rescale(const Stream& stream, const CrossEntropySlice& args);
void cross_entropy_slice_finish(const Stream& stream, const CrossEntropySlice& args);

}  // namespace tessera::kernels
