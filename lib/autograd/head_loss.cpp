// SPDX-License-Identifier: Apache-2.0
// Output projection, cross-entropy and their gradients, one chunk of rows after the other.
#include "tessera/autograd/head_loss.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/autograd/reduce_gradient.hpp"
#include "tessera/autograd/token_shards.hpp"
#include "tessera/base/error.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/kernels/cross_entropy.hpp"
#include "tessera/kernels/cross_entropy_slice.hpp"
#include "tessera/kernels/elementwise.hpp"
#include "tessera/kernels/gemm.hpp"

#include "autograd/token_exchange.hpp"
#include "autograd/weight_gradient.hpp"

namespace tessera::autograd {
namespace {

/// Rows of logits are padded to this many elements: odd vocabularies slow matrix products down.
constexpr std::int64_t kLogitsAlignment = 64;

struct Head {
  Tensor hidden;   // [..., width]; of own tokens until all are gathered
  Tensor targets;  // [...] int32
  Weight* weight;  // [vocabulary, width]
  VocabularyPart part;
  float gradient_scale;
  const PassMemory* memory;
  std::int64_t rows, width;
  std::int64_t vocabulary;  // that the weight has
  std::int64_t columns, chunk;
  Stream stream;

  DType dtype() const { return hidden.dtype(); }
  std::byte* hidden_rows(const Tensor& tensor, std::int64_t row) const {
    return tensor.as<std::byte>() + static_cast<std::size_t>(row * width) * size_of(dtype());
  }

  void project(std::int64_t begin, std::int64_t count, const Tensor& logits) const;
  void losses_and_gradients(std::int64_t begin, std::int64_t count, const Tensor& logits,
                            float* losses, bool gradients) const;
  void losses_over_group(std::int64_t begin, std::int64_t count, const Tensor& logits,
                         float* losses, bool gradients) const;
  void backward_hidden(std::int64_t begin, std::int64_t count, const Tensor& dlogits,
                       const GradientSlot::Target& dhidden) const;
  void backward_weight(std::int64_t begin, std::int64_t count, const Tensor& dlogits,
                       const GradientTarget& dweight) const;
  Buffer loss_buffer() const {
    return allocate(static_cast<std::size_t>(rows) * sizeof(float), hidden.device(),
                    Purpose::workspace);
  }
  /// With the hidden states of all tokens.
  Head gathered() const {
    Head whole = *this;
    whole.hidden = gather_shards(stream, hidden, Shape{rows, width}, *part.group);
    return whole;
  }
  Loss::State evaluate() const;
  Loss::State train(GradientSlot* slot) const;
  void train(GradientSlot* slot, float* losses) const;
};

void Head::project(std::int64_t begin, std::int64_t count, const Tensor& logits) const {
  const ProfileScope profile("gemm head forward");
  kernels::gemm(stream, {.a = hidden_rows(hidden, begin),
                         .b = attached_value(*weight),
                         .c = logits.data(),
                         .m = count,
                         .n = vocabulary,
                         .k = width,
                         .transpose_b = true,
                         .ldc = columns,
                         .input_type = dtype(),
                         .output_type = dtype()});
}

void Head::losses_and_gradients(std::int64_t begin, std::int64_t count, const Tensor& logits,
                                float* losses, bool gradients) const {
  const ProfileScope profile("cross entropy");
  if (part.group != nullptr) return losses_over_group(begin, count, logits, losses, gradients);
  kernels::cross_entropy(stream, {.logits = logits.data(),
                                  .targets = targets.as<std::int32_t>() + begin,
                                  .losses = losses + begin,
                                  .dlogits = gradients ? logits.data() : nullptr,
                                  .scale = gradient_scale,
                                  .variables = memory != nullptr ? memory->variables : nullptr,
                                  .rows = count,
                                  .columns = columns,
                                  .valid_columns = vocabulary,
                                  .dtype = dtype()});
}

void Head::losses_over_group(std::int64_t begin, std::int64_t count, const Tensor& logits,
                             float* losses, bool gradients) const {
  const Tensor numbers(Shape{4, count}, DType::fp32, hidden.device(), Purpose::workspace);
  const kernels::CrossEntropySlice slice{.logits = logits.data(),
                                         .targets = targets.as<std::int32_t>() + begin,
                                         .losses = losses + begin,
                                         .dlogits = gradients ? logits.data() : nullptr,
                                         .scale = gradient_scale,
                                         .own_largest = numbers.as<float>(),
                                         .largest = numbers.as<float>() + count,
                                         .sums = numbers.as<float>() + 2 * count,
                                         .rows = count,
                                         .columns = columns,
                                         .valid_columns = vocabulary,
                                         .slice = part.slice,
                                         .dtype = dtype()};
  kernels::cross_entropy_slice_begin(stream, slice);
  part.group->all_reduce(slice.largest, count, DType::fp32, Reduction::max, stream).wait();
  kernels::cross_entropy_slice_rescale(stream, slice);
  part.group->all_reduce(slice.sums, 2 * count, DType::fp32, Reduction::sum, stream).wait();
  kernels::cross_entropy_slice_finish(stream, slice);
}

void Head::backward_hidden(std::int64_t begin, std::int64_t count, const Tensor& dlogits,
                           const GradientSlot::Target& dhidden) const {
  const ProfileScope profile("gemm head backward input");
  kernels::gemm(stream, {.a = dlogits.data(),
                         .b = attached_value(*weight),
                         .c = hidden_rows(dhidden.tensor, begin),
                         .m = count,
                         .n = width,
                         .k = vocabulary,
                         .lda = columns,
                         .beta = dhidden.accumulate ? 1.0f : 0.0f,
                         .input_type = dtype(),
                         .output_type = dtype()});
}

void Head::backward_weight(std::int64_t begin, std::int64_t count, const Tensor& dlogits,
                           const GradientTarget& dweight) const {
  const ProfileScope profile("gemm head backward weight");
  kernels::gemm(stream, {.a = dlogits.data(),
                         .b = hidden_rows(hidden, begin),
                         .c = dweight.data,
                         .m = vocabulary,
                         .n = width,
                         .k = count,
                         .transpose_a = true,
                         .lda = columns,
                         .beta = dweight.accumulate ? 1.0f : 0.0f,
                         .input_type = dtype(),
                         .output_type = dweight.dtype});
}

Loss::State copy_to_host(const Stream& stream, const void* losses, std::int64_t rows,
                         DType dtype = DType::fp32) {
  Buffer host =
      allocate_pinned(static_cast<std::size_t>(rows) * size_of(dtype), Purpose::workspace);
  if (rows > 0) stream.copy(host.data(), losses, host.bytes());
  return {std::move(host), rows, stream.record(), true, dtype, 0};
}

Loss::State read_later(const Stream& stream, Buffer losses, std::int64_t rows,
                       DType dtype = DType::fp32) {
  if (stream.device().is_cpu()) return {std::move(losses), rows, {}, true, dtype, 0};
  return copy_to_host(stream, losses.data(), rows, dtype);
}

template <typename T>
double sum_of(const Buffer& losses, std::int64_t rows) {
  double sum = 0;
  for (std::int64_t row = 0; row < rows; ++row) sum += static_cast<double>(losses.as<T>()[row]);
  return sum;
}

Loss::State Head::evaluate() const {
  Buffer losses = loss_buffer();
  const Tensor logits(Shape{chunk, columns}, dtype(), hidden.device(), Purpose::workspace);
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t count = std::min(chunk, rows - begin);
    project(begin, count, logits);
    losses_and_gradients(begin, count, logits, losses.as<float>(), false);
  }
  return read_later(stream, std::move(losses), rows);
}

/// The weight's gradient while chunks are added: in fp32 scratch where the gradient itself is
/// narrower and there is more than one chunk, so that it is rounded once.
class WeightAccumulator {
 public:
  WeightAccumulator(const Stream& stream, Weight& weight, bool many_chunks)
      : stream_(stream), final_(gradient_target(weight)), numel_(weight.gradient.numel()) {
    target_ = final_;
    if (!many_chunks || final_.dtype == DType::fp32) return;
    scratch_ =
        Tensor(weight.gradient.shape(), DType::fp32, weight.gradient.device(), Purpose::workspace);
    if (final_.accumulate)
      kernels::cast(stream_, final_.data, final_.dtype, scratch_.data(), DType::fp32, numel_);
    target_.data = scratch_.data();
    target_.dtype = DType::fp32;
  }
  const GradientTarget& target() const { return target_; }
  void chunk_done() { target_.accumulate = true; }
  void finish() {
    const ProfileScope profile("head gradient rounding");
    if (scratch_)
      kernels::cast(stream_, scratch_.data(), DType::fp32, final_.data, final_.dtype, numel_);
  }

 private:
  Stream stream_;
  GradientTarget final_, target_;
  std::int64_t numel_;
  Tensor scratch_;
};

Loss::State Head::train(GradientSlot* slot) const {
  if (memory != nullptr) {
    train(slot, memory->losses);
    return {};
  }
  Buffer losses = loss_buffer();
  train(slot, losses.as<float>());
  return read_later(stream, std::move(losses), rows);
}

void Head::train(GradientSlot* slot, float* losses) const {
  const Tensor logits(Shape{chunk, columns}, dtype(), hidden.device(), Purpose::workspace);
  std::optional<WeightAccumulator> dweight;
  if (weight->trainable && rows > 0) dweight.emplace(stream, *weight, chunk < rows);
  GradientSlot::Target dhidden{};
  if (slot != nullptr) dhidden = slot->target(stream, hidden.shape(), dtype(), hidden.device());
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t count = std::min(chunk, rows - begin);
    project(begin, count, logits);
    losses_and_gradients(begin, count, logits, losses, true);
    if (slot != nullptr) backward_hidden(begin, count, logits, dhidden);
    if (!dweight) continue;
    backward_weight(begin, count, logits, dweight->target());
    dweight->chunk_done();
  }
  if (dweight) dweight->finish();
}

/// Of a head whose ranks each have their own tokens.
Loss::State train_shards(const Head& head, GradientSlot* slot) {
  GradientSlot whole;
  Loss::State state = head.gathered().train(slot != nullptr ? &whole : nullptr);
  if (slot != nullptr)
    slot->add(head.stream, sum_to_shards(head.stream, whole.take(), *head.part.group));
  return state;
}

Head make_head(const Tape& tape, const Tensor& hidden, Weight& weight, const Tensor& targets,
               float gradient_scale, const PassMemory* memory, const VocabularyPart& part) {
  attached_value(weight);
  const Shape& table = weight.value.shape();
  const std::int64_t tokens =
      part.token_shards ? token_shard(*part.group, targets.numel()).size() : targets.numel();
  TESSERA_CHECK(
      table.rank() == 2 && hidden.shape().rank() > 0 && hidden.shape()[-1] == table[1] &&
          targets.dtype() == DType::int32 && tokens * table[1] == hidden.numel(),
      Code::invalid_argument,
      fmt::format("a head of shape {} with hidden states {} and targets {}", table.to_string(),
                  hidden.shape().to_string(), targets.shape().to_string()));
  Head head{hidden, targets,         &weight,  part,     gradient_scale,
            memory, targets.numel(), table[1], table[0], round_up(table[0], kLogitsAlignment),
            0,      tape.stream()};
  // The ranks of a group walk in step: by the widest part.
  const std::int64_t widest =
      part.group == nullptr
          ? head.columns
          : round_up(ceil_divide(part.slice.vocabulary, part.group->size()), kLogitsAlignment);
  const auto row_bytes =
      std::max<std::int64_t>(1, widest * static_cast<std::int64_t>(size_of(hidden.dtype())));
  const std::int64_t most = std::max(kHeadMinimumRows, kHeadChunkBytes / row_bytes);
  // Chunks of equal size: a short last one would run its matrix products badly.
  const std::int64_t chunks = std::max<std::int64_t>(1, ceil_divide(head.rows, most));
  head.chunk = std::max<std::int64_t>(1, ceil_divide(head.rows, chunks));
  return head;
}

}  // namespace

double Loss::sum() const {
  TESSERA_CHECK(known(), Code::internal,
                "the loss was asked for before the backward pass computed it");
  state_->arrived.synchronize();
  const Buffer& losses = state_->losses;
  return state_->sum + (state_->dtype == DType::fp64 ? sum_of<double>(losses, state_->rows)
                                                     : sum_of<float>(losses, state_->rows));
}

Loss read_losses(const Stream& stream, const float* losses, std::int64_t rows) {
  return Loss(std::make_shared<Loss::State>(copy_to_host(stream, losses, rows)));
}

Loss read_losses(const Stream& stream, Buffer losses, std::int64_t rows, DType dtype) {
  return Loss(std::make_shared<Loss::State>(read_later(stream, std::move(losses), rows, dtype)));
}

Loss head_loss(Tape& tape, const Value& hidden, Weight& weight, const Tensor& targets,
               float gradient_scale, const PassMemory* memory, const VocabularyPart& part) {
  if (part.group != nullptr && !part.token_shards) reduce_gradient(tape, hidden, *part.group);
  const Head head = make_head(tape, hidden.data(), weight, targets, gradient_scale, memory, part);
  auto state = std::make_shared<Loss::State>();
  if (!tape.recording()) {
    *state = part.token_shards ? head.gathered().evaluate() : head.evaluate();
    return Loss(state);
  }
  tape.record({.name = "head_loss",
               .output = nullptr,
               .backward_input =
                   [head, state, slot = hidden.slot()](Tensor&) {
                     *state = head.part.token_shards ? train_shards(head, slot.get())
                                                     : head.train(slot.get());
                   },
               .backward_weight = {}});
  return Loss(state);
}

}  // namespace tessera::autograd
