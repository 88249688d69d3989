// SPDX-License-Identifier: Apache-2.0
// Self-attention on the tape; reads and writes the fused projection in place.
#include "tessera/autograd/attention.hpp"

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"

#include "autograd/attention_arguments.hpp"

namespace tessera::autograd {
namespace {

kernels::AttentionForward arguments(const Tensor& qkv, const Tensor& y, const Tensor& lse,
                                    const SelfAttention& options) {
  const std::int64_t positions = qkv.size(1), columns = qkv.size(2), width = y.size(2);
  const std::int64_t kv_width = (columns - width) / 2;
  kernels::AttentionForward args = arguments_of(options);
  args.q = at(qkv, 0);
  args.k = at(qkv, width);
  args.v = at(qkv, width + kv_width);
  args.y = y.data();
  args.lse = lse.as<float>();
  args.batch = qkv.size(0);
  args.queries = args.keys = positions;
  args.head_dim = width / options.heads;
  args.q_row_stride = args.k_row_stride = args.v_row_stride = columns;
  args.y_row_stride = width;
  args.q_batch_stride = args.k_batch_stride = args.v_batch_stride = positions * columns;
  args.y_batch_stride = positions * width;
  args.causal = options.causal;
  args.lengths = options.lengths ? options.lengths.as<std::int32_t>() : nullptr;
  args.dtype = qkv.dtype();
  return args;
}

void check_lengths(const Tensor& lengths, const Tensor& qkv) {
  TESSERA_CHECK(lengths.dtype() == DType::int32 && lengths.shape() == Shape{qkv.size(0)} &&
                    lengths.device() == qkv.device(),
                Code::invalid_argument,
                fmt::format("self-attention of {} needs one int32 length for each row, on the same "
                            "device, not {} of {}",
                            qkv.shape().to_string(), lengths.shape().to_string(),
                            to_string(lengths.dtype())));
}

Tensor backward(const Stream& stream, const Tensor& dy, const Tensor& qkv, const Tensor& y,
                const Tensor& lse, const SelfAttention& options) {
  const ProfileScope profile("attention backward");
  const std::int64_t width = y.size(2), kv_width = (qkv.size(2) - width) / 2;
  Tensor dqkv(qkv.shape(), qkv.dtype(), qkv.device());
  kernels::attention_backward(stream, {.forward = arguments(qkv, y, lse, options),
                                       .dy = dy.data(),
                                       .dq = at(dqkv, 0),
                                       .dk = at(dqkv, width),
                                       .dv = at(dqkv, width + kv_width)});
  return dqkv;
}

}  // namespace

Value self_attention(Tape& tape, const Value& qkv, const SelfAttention& options) {
  const Shape& shape = qkv.shape();
  const std::int64_t head_dim = head_dim_of(shape, options);
  TESSERA_CHECK(head_dim > 0, Code::invalid_argument,
                fmt::format("self-attention with {} heads, {} of keys and values, cannot take {}",
                            options.heads, options.key_heads(), shape.to_string()));
  if (options.lengths) check_lengths(options.lengths, qkv.data());
  const Device device = qkv.data().device();
  Tensor y(Shape{shape[0], shape[1], options.heads * head_dim}, qkv.data().dtype(), device);
  const bool record = tape.recording() && qkv.requires_gradient();
  const Tensor lse =
      record ? Tensor(Shape{shape[0], options.heads, shape[1]}, DType::fp32, device) : Tensor();
  {
    const ProfileScope profile("attention forward");
    kernels::attention_forward(tape.stream(), arguments(qkv.data(), y, lse, options));
  }
  Value result = tape.result(y, qkv.requires_gradient());
  if (!record) return result;
  tape.record(
      {.name = "self_attention",
       .output = result.slot(),
       .backward_input =
           [options, data = qkv.data(), y, lse, slot = qkv.slot(), stream = tape.stream()](
               Tensor& dy) { slot->add(stream, backward(stream, dy, data, y, lse, options)); },
       .backward_weight = {}});
  return result;
}

}  // namespace tessera::autograd
