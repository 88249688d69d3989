// SPDX-License-Identifier: Apache-2.0
// Gradients of stages 0 and 1: whole on every rank, reduced in place where they already are what is
// sent.
#include <optional>

#include "tessera/kernels/elementwise.hpp"

#include "zero/bucket_queue.hpp"
#include "zero/gradient_store.hpp"
#include "zero/staged_reduction.hpp"
#include "zero/unit_arrays.hpp"

namespace tessera::zero {
namespace {

class WholeGradients : public GradientStore {
 public:
  WholeGradients(const Context& context, SliceNorm& norm);

  DType written_type() const override { return written_type_; }
  bool accumulates_locally() const override { return accumulates_; }
  void attach(int) override {}
  void* written(int unit) const override {
    return element(written_.data(), context_.layout.unit(unit).start, written_type_);
  }
  void ready(int unit, MicroBatch micro_batch) override {
    micro_batch_ = micro_batch;
    if (reduces_now()) queue_->ready(unit);
  }
  void finish(MicroBatch micro_batch) override;
  void abandon() override { queue_->abandon(); }
  DType held_type() const override {
    return reduced_ ? context_.options.accumulation_dtype : written_type_;
  }
  const void* held(const FlatPiece& piece, int unit) const override {
    return held_at(unit, piece.unit_begin);
  }

 private:
  bool reduces_now() const { return !accumulates_ || micro_batch_.last(); }
  /// fp32 sums become run-dtype buckets on their way out.
  bool staged() const { return written_type_ != context_.dtype(); }
  const void* held_at(int unit, std::int64_t unit_begin) const {
    const Buffer& buffer = reduced_ ? reduced_ : written_;
    return element(buffer.data(), context_.layout.unit(unit).start + unit_begin, held_type());
  }
  Work start_in_place(const Bucket& bucket);
  void complete_in_place(const Bucket& bucket);

  Context context_;
  SliceNorm& norm_;
  bool accumulates_;
  DType written_type_;
  Buffer written_;  // all units, padded
  Buffer reduced_;  // stage 0 that reduces every micro-batch: sums of what was reduced
  std::optional<FlatArrays> arrays_;
  std::optional<StagedReduction> staged_reduction_;
  std::optional<BucketQueue> queue_;
  MicroBatch micro_batch_{0, 1};
};

WholeGradients::WholeGradients(const Context& context, SliceNorm& norm)
    : context_(context), norm_(norm) {
  const Options& options = context.options;
  const bool several = options.accumulation_steps > 1;
  accumulates_ = several && !options.reduce_every_micro_batch;
  written_type_ = accumulates_ ? options.accumulation_dtype : options.dtype;
  const bool sums_reduced = several && !accumulates_;
  const std::int64_t elements = context.layout.padded();
  if (elements > 0)
    written_ = context.allocate_shared(bytes_of(elements, written_type_),
                                       sums_reduced ? Purpose::buckets : Purpose::gradients);
  if (sums_reduced)
    reduced_ = allocate(bytes_of(elements, options.accumulation_dtype), context.device(),
                        Purpose::gradients);
  const bool ranges = context.holds_whole_states() && !staged();
  std::vector<Bucket> plan = ranges ? plan_ranges(context.layout, options.reduce_bucket_size)
                                    : plan_slices(context.layout, options.reduce_bucket_size, true);
  if (staged()) {
    arrays_.emplace(context, written_.data(), written_type_);
    staged_reduction_.emplace(context, plan, *arrays_, norm);
    queue_.emplace(
        std::move(plan), options.overlap, staged_reduction_->slots(),
        [this](const Bucket& bucket, int slot) { return staged_reduction_->start(bucket, slot); },
        [this](const Bucket& bucket, int slot) { staged_reduction_->complete(bucket, slot); });
  } else {
    queue_.emplace(
        std::move(plan), options.overlap, 0,
        [this](const Bucket& bucket, int) { return start_in_place(bucket); },
        [this](const Bucket& bucket, int) { complete_in_place(bucket); });
  }
}

Work WholeGradients::start_in_place(const Bucket& bucket) {
  const Options& options = context_.options;
  if (context_.holds_whole_states())
    return context_.group.all_reduce(element(written_.data(), bucket.start, options.dtype),
                                     bucket.elements, options.dtype, options.reduction,
                                     context_.stream);
  std::vector<ScatterPart> parts;
  for (const BucketPart& part : bucket.parts) {
    const std::int64_t slice = context_.layout.slice_elements(part.unit);
    void* first = element(written(part.unit), part.begin, options.dtype);
    parts.push_back(
        {first, slice, element(first, context_.rank() * slice, options.dtype), part.count});
  }
  return context_.group.reduce_scatter(parts, options.dtype, options.reduction, context_.stream);
}

void WholeGradients::complete_in_place(const Bucket& bucket) {
  if (!reduced_) return;
  const void* source = element(written_.data(), bucket.start, context_.dtype());
  void* sum = element(reduced_.data(), bucket.start, held_type());
  if (micro_batch_.first())
    kernels::cast(context_.stream, source, context_.dtype(), sum, held_type(), bucket.elements);
  else
    kernels::accumulate(context_.stream, source, context_.dtype(), 1, sum, held_type(),
                        bucket.elements);
}

void WholeGradients::finish(MicroBatch micro_batch) {
  micro_batch_ = micro_batch;
  if (!reduces_now()) return;
  queue_->finish();
  // Staged buckets recorded their norms on the way.
  if (!micro_batch.last() || staged()) return;
  for (int u = 0; u < context_.units(); ++u) {
    const Range slice = context_.layout.slice(u, context_.rank());
    norm_.record(u, 0, held_at(u, slice.begin), held_type(), slice.count);
  }
}

}  // namespace

std::unique_ptr<GradientStore> make_whole_gradients(const Context& context, SliceNorm& norm) {
  return std::make_unique<WholeGradients>(context, norm);
}

}  // namespace tessera::zero
