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

class WholeGradients : public GradientStore, private UnitArrays {
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
  void* held_at(int unit, std::int64_t unit_begin) const override {
    return held_element(context_.layout.unit(unit).start + unit_begin);
  }

 private:
  bool reduces_now() const { return !accumulates_ || micro_batch_.last(); }
  /// What backward writes is rounded on its way out.
  bool staged() const { return written_type_ != context_.sent_type(); }
  void* held_element(std::int64_t index) const {
    const Buffer& buffer = reduced_ ? reduced_ : written_;
    return element(buffer.data(), index, held_type());
  }
  void hold(const void* reduced, std::int64_t index, std::int64_t count) {
    const bool adds = reduced_ && !micro_batch_.first();
    hold_reduced(context_, reduced, count, {held_element(index), held_type(), adds});
  }
  void read(int unit, Range range, void* target) const override {
    kernels::cast(context_.stream, element(written(unit), range.begin, written_type_),
                  written_type_, target, context_.sent_type(), range.count);
  }
  void write(int unit, Range range, const void* source) override {
    hold(source, context_.layout.unit(unit).start + range.begin, range.count);
  }
  std::vector<Bucket> plan() const;
  void plan_queue();
  Work start_in_place(const Bucket& bucket);
  void complete_in_place(const Bucket& bucket);

  Context context_;
  SliceNorm& norm_;
  bool accumulates_;
  DType written_type_;
  Buffer written_;  // all units, padded
  Buffer reduced_;  // stage 0 that reduces every micro-batch: sums of what was reduced
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
  plan_queue();
}

std::vector<Bucket> WholeGradients::plan() const {
  const std::int64_t capacity = context_.options.reduce_bucket_size;
  const bool ranges = context_.holds_whole_states() && !staged();
  return ranges ? plan_ranges(context_.layout, capacity)
                : plan_slices(context_.layout, capacity, true);
}

void WholeGradients::plan_queue() {
  const bool overlap = context_.options.overlap;
  if (!staged()) {
    queue_.emplace(
        "reduction", plan(), overlap, 0,
        [this](const Bucket& bucket, int) { return start_in_place(bucket); },
        [this](const Bucket& bucket, int) { complete_in_place(bucket); });
    return;
  }
  staged_reduction_.emplace(context_, plan(), static_cast<UnitArrays&>(*this));
  queue_.emplace(
      "reduction", plan(), overlap, staged_reduction_->slots(),
      [this](const Bucket& bucket, int slot) { return staged_reduction_->start(bucket, slot); },
      [this](const Bucket& bucket, int slot) { staged_reduction_->complete(bucket, slot); });
}

Work WholeGradients::start_in_place(const Bucket& bucket) {
  const Options& options = context_.options;
  if (context_.holds_whole_states())
    return context_.group.all_reduce(element(written_.data(), bucket.start, written_type_),
                                     bucket.elements, written_type_, options.reduction,
                                     context_.stream);
  std::vector<ScatterPart> parts;
  for (const BucketPart& part : bucket.parts) {
    const std::int64_t slice = context_.layout.slice_elements(part.unit);
    void* first = element(written(part.unit), part.begin, written_type_);
    parts.push_back(
        {first, slice, element(first, context_.rank() * slice, written_type_), part.count});
  }
  return context_.group.reduce_scatter(parts, written_type_, options.reduction, context_.stream);
}

void WholeGradients::complete_in_place(const Bucket& bucket) {
  if (reduced_)
    hold(element(written_.data(), bucket.start, written_type_), bucket.start, bucket.elements);
}

void WholeGradients::finish(MicroBatch micro_batch) {
  micro_batch_ = micro_batch;
  if (!reduces_now()) return;
  queue_->finish();
  if (!micro_batch.last()) return;
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
