// SPDX-License-Identifier: Apache-2.0
// The public operations on host arrays, run on the device under test: the CPU, or with
// TESSERA_TEST_DEVICE=cuda a GPU, to which arrays are copied and from which results come back.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/device/buffer.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/kernels/activation.hpp"
#include "tessera/kernels/adamw.hpp"
#include "tessera/kernels/attention_merge.hpp"
#include "tessera/kernels/copy_blocks.hpp"
#include "tessera/kernels/cross_entropy.hpp"
#include "tessera/kernels/cross_entropy_slice.hpp"
#include "tessera/kernels/dropout.hpp"
#include "tessera/kernels/element_loss.hpp"
#include "tessera/kernels/elementwise.hpp"
#include "tessera/kernels/embedding.hpp"
#include "tessera/kernels/kv_cache.hpp"
#include "tessera/kernels/layer_norm.hpp"
#include "tessera/kernels/reduce.hpp"
#include "tessera/kernels/rms_norm.hpp"
#include "tessera/kernels/rotary.hpp"
#include "tessera/kernels/sgd.hpp"
#include "tessera/kernels/softmax.hpp"
#include "tessera/kernels/split_master.hpp"
#include "tessera/kernels/standardize.hpp"
#include "tessera/kernels/step_decision.hpp"

#include "support/kernel_testing.hpp"
#include "support/test_device.hpp"

namespace tessera::testing {

/// A queue of the device under test.
inline const Stream& test_stream() {
  // Never destroyed: the driver may end before statics do.
  static const auto* stream =
      new Stream(on_cuda() ? make_stream(Device{DeviceType::cuda, 0}) : Stream());
  return *stream;
}

/// Device copies of host arrays, for one call. Each is exactly as long as its array, and as badly
/// aligned. Does nothing on the CPU.
class Mirror {
 public:
  template <typename T>
  void operator()(T*& array, std::int64_t bytes) {
    if (!on_cuda() || array == nullptr || bytes <= 0) return;
    auto* host = const_cast<std::remove_const_t<T>*>(array);
    Copy& copy = copy_of(host, static_cast<std::size_t>(bytes));
    if (!std::is_const_v<T>) copy.written = true;
    array = static_cast<T*>(copy.device);
  }
  template <typename T>
  void operator()(T*& array, std::int64_t count, DType dtype) {
    operator()(array, count* static_cast<std::int64_t>(size_of(dtype)));
  }

  /// Calls body(stream), then brings back what it may have written.
  template <typename Body>
  auto run(Body&& body) {
    struct Fetch {
      const std::vector<Copy>& copies;
      ~Fetch() {
        for (const Copy& copy : copies)
          if (copy.written) test_stream().copy(copy.host, copy.device, copy.bytes);
        test_stream().synchronize();
      }
    };
    const Fetch fetch{copies_};
    return body(test_stream());
  }

 private:
  struct Copy {
    void* host;
    std::size_t bytes;
    Buffer memory;
    void* device;
    bool written = false;
  };
  /// Two arguments that name one array share the copy: in place stays in place.
  Copy& copy_of(void* host, std::size_t bytes) {
    for (Copy& copy : copies_)
      if (copy.host == host && copy.bytes == bytes) return copy;
    const std::size_t shift = reinterpret_cast<std::uintptr_t>(host) % 16;
    const StreamScope scope(test_stream());
    Buffer memory = allocate(shift + bytes, test_stream().device(), Purpose::workspace);
    void* device = memory.as<std::byte>() + shift;
    test_stream().copy(device, host, bytes);
    return copies_.emplace_back(Copy{host, bytes, std::move(memory), device});
  }

  std::vector<Copy> copies_;
};

namespace on_device {

using namespace kernels;  // NOLINT(google-build-using-namespace): their arguments

inline void activation_forward(ActivationForward args) {
  Mirror mirror;
  mirror(args.x, args.count, args.dtype);
  mirror(args.y, args.count, args.dtype);
  mirror.run([&](const Stream& stream) { kernels::activation_forward(stream, args); });
}

inline void activation_backward(ActivationBackward args) {
  Mirror mirror;
  mirror(args.dy, args.count, args.dtype);
  mirror(args.x, args.count, args.dtype);
  mirror(args.dx, args.count, args.dtype);
  mirror.run([&](const Stream& stream) { kernels::activation_backward(stream, args); });
}

inline void gated_activation_forward(GatedActivationForward args) {
  Mirror mirror;
  mirror(args.gate, args.count, args.dtype);
  mirror(args.up, args.count, args.dtype);
  mirror(args.y, args.count, args.dtype);
  mirror.run([&](const Stream& stream) { kernels::gated_activation_forward(stream, args); });
}

inline void gated_activation_backward(GatedActivationBackward args) {
  Mirror mirror;
  mirror(args.dy, args.count, args.dtype);
  mirror(args.gate, args.count, args.dtype);
  mirror(args.up, args.count, args.dtype);
  mirror(args.dgate, args.count, args.dtype);
  mirror(args.dup, args.count, args.dtype);
  mirror.run([&](const Stream& stream) { kernels::gated_activation_backward(stream, args); });
}

/// The arrays that both update rules have.
template <typename Update>
void mirror_update(Mirror& mirror, Update& args) {
  mirror(args.parameter, args.count, args.low != nullptr ? DType::bf16 : DType::fp32);
  mirror(args.low, args.count, DType::bf16);
  mirror(args.rounded, args.count, DType::fp16);
  mirror(args.gradient, args.count, args.gradient_type);
  mirror(args.decision, sizeof(StepDecision));
}

inline void adamw(AdamW args) {
  Mirror mirror;
  mirror_update(mirror, args);
  mirror(args.exp_avg, args.count, DType::fp32);
  mirror(args.exp_avg_sq, args.count, DType::fp32);
  mirror.run([&](const Stream& stream) { kernels::adamw(stream, args); });
}

inline void sgd(Sgd args) {
  Mirror mirror;
  mirror_update(mirror, args);
  mirror(args.momentum_buffer, args.count, DType::fp32);
  mirror.run([&](const Stream& stream) { kernels::sgd(stream, args); });
}

inline void attention_merge(AttentionMerge args) {
  const std::int64_t rows = args.batch * args.queries * args.heads;
  Mirror mirror;
  mirror(args.part, rows * args.head_dim, args.dtype);
  mirror(args.part_lse, rows, DType::fp32);
  mirror(args.sum, rows * args.head_dim, DType::fp32);
  mirror(args.lse, rows, DType::fp32);
  mirror.run([&](const Stream& stream) { kernels::attention_merge(stream, args); });
}

inline void copy_blocks(CopyBlocks args) {
  const auto extent = [&](const BlockStrides& strides) {
    return (args.blocks - 1) * strides.block + (args.rows - 1) * strides.row + args.count;
  };
  Mirror mirror;
  mirror(args.source, extent(args.source_strides), args.dtype);
  mirror(args.target, extent(args.target_strides), args.dtype);
  mirror.run([&](const Stream& stream) { kernels::copy_blocks(stream, args); });
}

inline void cross_entropy(CrossEntropy args) {
  Mirror mirror;
  mirror(args.logits, args.rows * args.columns, args.dtype);
  mirror(args.targets, args.rows, DType::int32);
  mirror(args.losses, args.rows, DType::fp32);
  mirror(args.dlogits, args.rows * args.columns, args.dtype);
  mirror(args.variables, sizeof(PassVariables));
  mirror.run([&](const Stream& stream) { kernels::cross_entropy(stream, args); });
}

using CrossEntropySliceStep = void (*)(const Stream&, const CrossEntropySlice&);
inline void cross_entropy_slice(CrossEntropySliceStep step, CrossEntropySlice args) {
  Mirror mirror;
  mirror(args.logits, args.rows * args.columns, args.dtype);
  mirror(args.targets, args.rows, DType::int32);
  mirror(args.losses, args.rows, DType::fp32);
  mirror(args.dlogits, args.rows * args.columns, args.dtype);
  mirror(args.own_largest, args.rows, DType::fp32);
  mirror(args.largest, args.rows, DType::fp32);
  mirror(args.sums, 2 * args.rows, DType::fp32);
  mirror.run([&](const Stream& stream) { step(stream, args); });
}

inline void dropout(Dropout args) {
  Mirror mirror;
  mirror(args.x, args.count, args.dtype);
  mirror(args.residual, args.count, args.dtype);
  mirror(args.y, args.count, args.dtype);
  mirror(args.variables, sizeof(PassVariables));
  mirror.run([&](const Stream& stream) { kernels::dropout(stream, args); });
}

inline void element_loss(ElementLoss args) {
  Mirror mirror;
  mirror(args.prediction, args.count, args.dtype);
  mirror(args.target, args.count, DType::fp32);
  mirror(args.dprediction, args.count, args.dtype);
  mirror(args.sums, ceil_divide(args.count, kLossBlock), DType::fp64);
  mirror.run([&](const Stream& stream) { kernels::element_loss(stream, args); });
}

inline void add(const void* a, const void* b, void* y, std::int64_t count, DType dtype) {
  Mirror mirror;
  mirror(a, count, dtype);
  mirror(b, count, dtype);
  mirror(y, count, dtype);
  mirror.run([&](const Stream& stream) { kernels::add(stream, a, b, y, count, dtype); });
}

inline void scale(const void* x, float alpha, void* y, std::int64_t count, DType dtype) {
  Mirror mirror;
  mirror(x, count, dtype);
  mirror(y, count, dtype);
  mirror.run([&](const Stream& stream) { kernels::scale(stream, x, alpha, y, count, dtype); });
}

inline void accumulate(const void* x, DType x_type, float alpha, void* accumulator,
                       DType accumulator_type, std::int64_t count) {
  Mirror mirror;
  mirror(x, count, x_type);
  mirror(accumulator, count, accumulator_type);
  mirror.run([&](const Stream& stream) {
    kernels::accumulate(stream, x, x_type, alpha, accumulator, accumulator_type, count);
  });
}

inline void cast(const void* x, DType x_type, void* y, DType y_type, std::int64_t count) {
  Mirror mirror;
  mirror(x, count, x_type);
  mirror(y, count, y_type);
  mirror.run([&](const Stream& stream) { kernels::cast(stream, x, x_type, y, y_type, count); });
}

inline void column_sum(ColumnSum args) {
  Mirror mirror;
  mirror(args.x, args.rows * args.columns, args.dtype);
  mirror(args.y, args.columns, args.output_type);
  mirror.run([&](const Stream& stream) { kernels::column_sum(stream, args); });
}

inline void embedding_forward(EmbeddingForward args) {
  Mirror mirror;
  mirror(args.table, args.table_rows * args.columns, args.dtype);
  mirror(args.ids, args.rows, DType::int32);
  mirror(args.y, args.rows * args.columns, args.dtype);
  mirror.run([&](const Stream& stream) { kernels::embedding_forward(stream, args); });
}

inline void embedding_backward(EmbeddingBackward args) {
  Mirror mirror;
  mirror(args.dy, args.rows * args.columns, args.dtype);
  mirror(args.ids, args.rows, DType::int32);
  mirror(args.dtable, args.table_rows * args.columns, args.gradient_type);
  mirror.run([&](const Stream& stream) { kernels::embedding_backward(stream, args); });
}

inline void kv_append(KvAppend args) {
  const std::int64_t fresh = (args.rows * args.count - 1) * args.stride + args.width;
  const std::int64_t cached = args.rows * args.capacity * args.width;
  Mirror mirror;
  mirror(args.keys, fresh, args.dtype);
  mirror(args.values, fresh, args.dtype);
  mirror(args.cached_keys, cached, args.dtype);
  mirror(args.cached_values, cached, args.dtype);
  mirror.run([&](const Stream& stream) { kernels::kv_append(stream, args); });
}

inline void position_ids(std::int32_t* ids, std::int64_t rows, std::int64_t positions,
                         std::int64_t first) {
  Mirror mirror;
  mirror(ids, rows * positions, DType::int32);
  mirror.run(
      [&](const Stream& stream) { kernels::position_ids(stream, ids, rows, positions, first); });
}

inline void layer_norm_forward(LayerNormForward args) {
  Mirror mirror;
  mirror(args.x, args.rows * args.columns, args.dtype);
  mirror(args.weight, args.columns, args.dtype);
  mirror(args.bias, args.columns, args.dtype);
  mirror(args.y, args.rows * args.columns, args.dtype);
  mirror(args.mean, args.rows, DType::fp32);
  mirror(args.rstd, args.rows, DType::fp32);
  mirror(args.residual, args.rows * args.columns, args.dtype);
  mirror(args.sum, args.rows * args.columns, args.dtype);
  mirror.run([&](const Stream& stream) { kernels::layer_norm_forward(stream, args); });
}

/// The arrays of both normalisations' backward passes.
template <typename Backward>
void mirror_backward(Mirror& mirror, Backward& args) {
  mirror(args.dy, args.rows * args.columns, args.dtype);
  mirror(args.x, args.rows * args.columns, args.dtype);
  mirror(args.weight, args.columns, args.dtype);
  mirror(args.rstd, args.rows, DType::fp32);
  mirror(args.dx, args.rows * args.columns, args.dtype);
  mirror(args.dweight, args.columns, args.gradient_type);
}

inline void layer_norm_backward(LayerNormBackward args) {
  Mirror mirror;
  mirror_backward(mirror, args);
  mirror(args.mean, args.rows, DType::fp32);
  mirror(args.dbias, args.columns, args.gradient_type);
  mirror.run([&](const Stream& stream) { kernels::layer_norm_backward(stream, args); });
}

inline void rms_norm_forward(RmsNormForward args) {
  Mirror mirror;
  mirror(args.x, args.rows * args.columns, args.dtype);
  mirror(args.weight, args.columns, args.dtype);
  mirror(args.y, args.rows * args.columns, args.dtype);
  mirror(args.rstd, args.rows, DType::fp32);
  mirror.run([&](const Stream& stream) { kernels::rms_norm_forward(stream, args); });
}

inline void rms_norm_backward(RmsNormBackward args) {
  Mirror mirror;
  mirror_backward(mirror, args);
  mirror.run([&](const Stream& stream) { kernels::rms_norm_backward(stream, args); });
}

inline void block_square_sums(const void* x, DType dtype, std::int64_t count, double* sums) {
  Mirror mirror;
  mirror(x, count, dtype);
  mirror(sums, ceil_divide(count, kNormBlock), DType::fp64);
  mirror.run(
      [&](const Stream& stream) { kernels::block_square_sums(stream, x, dtype, count, sums); });
}

inline std::int64_t first_non_finite(const void* x, DType dtype, std::int64_t count) {
  Mirror mirror;
  mirror(x, count, dtype);
  return mirror.run(
      [&](const Stream& stream) { return kernels::first_non_finite(stream, x, dtype, count); });
}

inline void rotary(Rotary args) {
  Mirror mirror;
  mirror(args.x, (args.rows - 1) * args.row_stride + args.heads * args.head_dim, args.dtype);
  mirror(args.positions, args.rows, DType::int32);
  mirror(args.inverse_frequency, args.rotary_dim / 2, DType::fp32);
  mirror.run([&](const Stream& stream) { kernels::rotary(stream, args); });
}

inline void softmax_forward(SoftmaxForward args) {
  Mirror mirror;
  mirror(args.x, args.rows * args.columns, args.dtype);
  mirror(args.y, args.rows * args.columns, args.dtype);
  mirror.run([&](const Stream& stream) { kernels::softmax_forward(stream, args); });
}

inline void softmax_backward(SoftmaxBackward args) {
  Mirror mirror;
  mirror(args.dy, args.rows * args.columns, args.dtype);
  mirror(args.y, args.rows * args.columns, args.dtype);
  mirror(args.dx, args.rows * args.columns, args.dtype);
  mirror.run([&](const Stream& stream) { kernels::softmax_backward(stream, args); });
}

inline void split(const float* master, bf16* high, std::uint16_t* low, std::int64_t count) {
  Mirror mirror;
  mirror(master, count, DType::fp32);
  mirror(high, count, DType::bf16);
  mirror(low, count, DType::bf16);
  mirror.run([&](const Stream& stream) { kernels::split(stream, master, high, low, count); });
}

inline void join(const bf16* high, const std::uint16_t* low, float* master, std::int64_t count) {
  Mirror mirror;
  mirror(high, count, DType::bf16);
  mirror(low, count, DType::bf16);
  mirror(master, count, DType::fp32);
  mirror.run([&](const Stream& stream) { kernels::join(stream, high, low, master, count); });
}

inline void standardize(Standardize args) {
  Mirror mirror;
  mirror(args.x, args.rows * args.columns, DType::fp32);
  mirror(args.y, args.rows * args.columns, DType::fp32);
  mirror(args.mean, args.columns, DType::fp64);
  mirror(args.deviation, args.columns, DType::fp64);
  mirror.run([&](const Stream& stream) { kernels::standardize(stream, args); });
}

inline void block_total(BlockTotal args, std::int64_t blocks) {
  Mirror mirror;
  mirror(args.blocks, blocks, DType::fp64);
  mirror(args.first, args.groups + 1, DType::int64);
  mirror(args.group_sums, args.groups, DType::fp64);
  mirror(args.total, 1, DType::fp64);
  mirror.run([&](const Stream& stream) { kernels::block_total(stream, args); });
}

inline void decide_step(DecideStep args) {
  Mirror mirror;
  mirror(args.squares, args.count, DType::fp64);
  mirror(args.decision, sizeof(StepDecision));
  mirror.run([&](const Stream& stream) { kernels::decide_step(stream, args); });
}

/// The piece that is found in a gradient of pieces of these sizes.
inline std::int32_t find_non_finite_piece(const TypedArray& gradient,
                                          const std::vector<std::int64_t>& sizes,
                                          std::int32_t applied) {
  Mirror mirror;
  StepDecision result{}, *decision = &result;
  result.applied = applied;
  const auto* data = static_cast<const std::byte*>(gradient.data());
  mirror(data, static_cast<std::int64_t>(gradient.size()), gradient.dtype());
  std::vector<GradientPiece> list;
  for (const std::int64_t size : sizes) {
    list.push_back({data, size});
    data += static_cast<std::size_t>(size) * size_of(gradient.dtype());
  }
  const GradientPiece* pieces = list.data();
  mirror(pieces, static_cast<std::int64_t>(list.size() * sizeof(GradientPiece)));
  mirror(decision, sizeof(StepDecision));
  mirror.run([&](const Stream& stream) {
    kernels::find_non_finite_piece(
        stream, {pieces, static_cast<std::int64_t>(list.size()), gradient.dtype(), decision});
  });
  return result.non_finite_piece();
}

}  // namespace on_device
}  // namespace tessera::testing
