// SPDX-License-Identifier: Apache-2.0
// Table look-up.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/kernels/vocabulary_slice.hpp"

namespace tessera::kernels {

/// y[r, :] = table[ids[r], :], or += when `accumulate`. ids must lie in the vocabulary:
/// invalid_argument names the first that does not. On a GPU ids are not looked at before the
/// launch: rows of such ids become NaN in y, and add to nothing in the gradient. Ids that another
/// slice holds give zeros.
struct EmbeddingForward {
  const void* table;        // [table_rows, columns]
  const std::int32_t* ids;  // [rows]
  void* y;                  // [rows, columns]
  bool accumulate = false;
  std::int64_t rows, columns, table_rows;
  DType dtype;
  VocabularySlice slice = {};
};
void embedding_forward(const Stream& stream, const EmbeddingForward& args);

/// dtable[ids[r], :] += dy[r, :], summed in fp32 in ascending r for each table row: the same bits
/// for any thread count. Without `accumulate` all other rows become zero. Ids that another slice
/// holds add to nothing.
struct EmbeddingBackward {
  const void* dy;           // [rows, columns]
  const std::int32_t* ids;  // [rows]
  void* dtable;             // [table_rows, columns]
  DType gradient_type;      // fp32 or dtype
  bool accumulate;
  std::int64_t rows, columns, table_rows;
  DType dtype;
  VocabularySlice slice = {};
};
void embedding_backward(const Stream& stream, const EmbeddingBackward& args);

/// ids[r, i] = first + i: the places of `rows` sequences' tokens.
void position_ids(const Stream& stream, std::int32_t* ids, std::int64_t rows,
                  std::int64_t positions, std::int64_t first);

}  // namespace tessera::kernels
