// SPDX-License-Identifier: Apache-2.0
// Graphs of operations for cuDNN: tensors of four dimensions, and what computes one from others.
#pragma once

#include <array>
#include <cstdint>
#include <cudnn.h>
#include <vector>

#include "kernels/cuda/cudnn_descriptor.hpp"

namespace tessera::kernels::cuda::cudnn {

/// [batch, heads, rows, columns], or their strides in elements
using Extents = std::array<std::int64_t, 4>;

/// Strides of a packed array.
Extents packed(const Extents& sizes);

/// A value of a graph: memory that the caller names at each execution by its number, or else
/// virtual, which is never stored.
struct Value {
  std::int64_t number;
  Extents sizes, strides;
  cudnnDataType_t type;
};

/// How much of a product each entry of the batch has, int32 [batch, 1, 1, 1]; nullptr: all of it.
struct ProductPart {
  const Value* rows = nullptr;
  const Value* columns = nullptr;
  const Value* inner = nullptr;
};

/// Builds a graph, operation by operation. Everything is computed in fp32 but for comparisons and
/// positions. Throws what Descriptor does.
class GraphBuilder {
 public:
  /// Memory at multiples of 16 bytes.
  Value array(std::int64_t number, const Extents& sizes, const Extents& strides,
              cudnnDataType_t type);
  /// One number on the host, read when the graph is executed.
  Value scalar(std::int64_t number, cudnnDataType_t type);

  /// Rows and columns change places: a product's operand is read along its other side.
  static Value transposed(Value value);

  Value matmul(const Value& a, const Value& b, const ProductPart& part = {});
  void matmul(const Value& a, const Value& b, const Value& result, const ProductPart& part = {});
  /// Element by element; a side of 1 is repeated.
  Value pointwise(cudnnPointwiseMode_t mode, const Value& x, cudnnDataType_t type);
  Value pointwise(cudnnPointwiseMode_t mode, const Value& x, const Value& b, cudnnDataType_t type);
  void pointwise(cudnnPointwiseMode_t mode, const Value& x, const Value& b, const Value& result);
  /// x where `condition` is true, else b
  Value select(const Value& x, const Value& b, const Value& condition);
  /// The number of each element's row (axis 2) or column (axis 3)
  Value positions(const Value& like, std::int64_t axis);
  /// Over every dimension in which `result` has fewer.
  void reduce(cudnnReduceTensorOp_t operation, const Value& x, const Value& result);
  /// Over columns.
  Value reduce_rows(cudnnReduceTensorOp_t operation, const Value& x);
  /// The same elements as another array.
  Value reshape(const Value& x, const Extents& sizes, const Extents& strides, cudnnDataType_t type);

  /// A value that is never stored.
  Value intermediate(const Extents& sizes, cudnnDataType_t type);
  Value intermediate(const Extents& sizes, const Extents& strides, cudnnDataType_t type);

  /// The finalized graph, for the device of `handle` (nullptr: plans name theirs); the builder is
  /// done with.
  Descriptor finish(cudnnHandle_t handle) &&;

 private:
  struct Pointwise {
    cudnnPointwiseMode_t mode;
    cudnnDataType_t precision;
    std::int64_t axis = -1;
  };
  void add_pointwise(const Pointwise& kind, const Value& x, const Value* b, const Value* condition,
                     const Value& result);
  Descriptor& add_operation(cudnnBackendDescriptorType_t type);
  Descriptor describe(const Value& value) const;

  std::vector<std::int64_t> by_value_, stored_;
  std::int64_t next_ = 1000;  // numbers of virtual values
  std::vector<Descriptor> operations_;
};

}  // namespace tessera::kernels::cuda::cudnn
