// SPDX-License-Identifier: Apache-2.0
// Gradients of stages 2 and 3: a unit is whole only from its backward until its bucket is reduced.
#include <algorithm>
#include <cstddef>
#include <exception>
#include <optional>
#include <utility>

#include "tessera/kernels/elementwise.hpp"

#include "zero/bucket_queue.hpp"
#include "zero/gradient_store.hpp"
#include "zero/staged_reduction.hpp"

namespace tessera::zero {
namespace {

/// Units whose gradients are final and still whole, beyond which the next unit waits for memory.
constexpr int kUnitsInFlight = 2;

class ShardedGradients : public GradientStore, private UnitArrays {
 public:
  ShardedGradients(const Context& context, SliceNorm& norm);
  ~ShardedGradients() override {
    if (std::uncaught_exceptions() > 0 && !queue_->idle()) leak(std::move(slices_));
  }

  DType written_type() const override { return context_.dtype(); }
  void attach(int unit) override;
  void* written(int unit) const override { return at(unit).buffer.data(); }
  void ready(int unit, MicroBatch micro_batch) override {
    at(unit).micro_batch = micro_batch;
    if (at(unit).buffer) ++in_flight_;
    queue_->ready(unit);
  }
  void finish(MicroBatch) override { queue_->finish(); }
  void abandon() override;
  DType held_type() const override { return held_type_; }
  const void* held(const FlatPiece& piece, int unit) const override {
    const std::int64_t begin =
        piece.unit_begin - context_.layout.slice(unit, context_.rank()).begin;
    return slice_at(unit, begin);
  }
  void* held_at(int unit, std::int64_t unit_begin) const override {
    return slice_at(unit, unit_begin - context_.layout.slice(unit, context_.rank()).begin);
  }

 private:
  struct WholeUnit {
    Buffer buffer;
    std::int64_t unreduced = 0;  // elements of the own slice whose bucket is not complete
    MicroBatch micro_batch{0, 1};
  };
  const WholeUnit& at(int unit) const { return units_[static_cast<std::size_t>(unit)]; }
  WholeUnit& at(int unit) { return units_[static_cast<std::size_t>(unit)]; }
  void* slice_at(int unit, std::int64_t begin) const {
    return element(slices_.data(), context_.layout.slice_start(unit) + begin, held_type_);
  }
  bool sums_micro_batches() const { return context_.options.accumulation_steps > 1; }
  /// What backward writes is rounded on its way out.
  bool staged() const { return context_.dtype() != context_.sent_type(); }
  void read(int unit, Range range, void* target) const override;
  void write(int unit, Range range, const void* source) override;
  void plan_queue();
  Buffer take_buffer(std::size_t bytes);
  bool take_spare(std::size_t bytes, Buffer& buffer);
  void give_back(WholeUnit& unit);
  Work start_in_place(const Bucket& bucket);
  void add_in_place(const Bucket& bucket);
  void complete(const Bucket& bucket);
  void hold(int unit, Range in_slice, const void* reduced);

  Context context_;
  SliceNorm& norm_;
  DType held_type_;
  Buffer slices_;
  std::vector<WholeUnit> units_;
  std::vector<Buffer> spare_;
  int in_flight_ = 0;  // units that are ready and not yet reduced
  std::optional<StagedReduction> staged_reduction_;
  std::optional<BucketQueue> queue_;
};

ShardedGradients::ShardedGradients(const Context& context, SliceNorm& norm)
    : context_(context), norm_(norm), units_(static_cast<std::size_t>(context.units())) {
  held_type_ = sums_micro_batches() ? context.options.accumulation_dtype : context.dtype();
  slices_ = allocate(bytes_of(context.layout.padded() / context.ranks(), held_type_),
                     context.device(), Purpose::gradients);
  plan_queue();
}

void ShardedGradients::plan_queue() {
  const Options& options = context_.options;
  const bool apart = options.units_apart;
  const QueueOrder order = apart ? QueueOrder::units : QueueOrder::plan;
  std::vector<Bucket> plan = plan_slices(context_.layout, options.reduce_bucket_size, true, apart);
  if (!staged()) {
    queue_.emplace(
        "reduction", std::move(plan), options.overlap, 0,
        [this](const Bucket& bucket, int) { return start_in_place(bucket); },
        [this](const Bucket& bucket, int) {
          add_in_place(bucket);
          complete(bucket);
        },
        order);
    return;
  }
  staged_reduction_.emplace(context_, plan, static_cast<UnitArrays&>(*this));
  queue_.emplace(
      "reduction", std::move(plan), options.overlap, staged_reduction_->slots(),
      [this](const Bucket& bucket, int slot) { return staged_reduction_->start(bucket, slot); },
      [this](const Bucket& bucket, int slot) {
        staged_reduction_->complete(bucket, slot);
        complete(bucket);
      },
      order);
}

void ShardedGradients::attach(int unit) {
  const FlatUnit& flat = context_.layout.unit(unit);
  if (flat.padded == 0) return;
  const DType dtype = context_.dtype();
  WholeUnit& whole = at(unit);
  // Of the micro-batch before, where units go on apart.
  while (whole.buffer) queue_->complete_oldest();
  whole.buffer = take_buffer(bytes_of(flat.padded, dtype));
  whole.unreduced = context_.layout.slice_elements(unit);
  context_.stream.fill_zero(element(whole.buffer.data(), flat.elements, dtype),
                            bytes_of(flat.padded - flat.elements, dtype));
}

/// Allocation is collective, so the decision to allocate may depend on the order of calls only,
/// never on which reduction happens to be done.
Buffer ShardedGradients::take_buffer(std::size_t bytes) {
  Buffer buffer;
  while (!take_spare(bytes, buffer)) {
    if (in_flight_ < kUnitsInFlight || queue_->idle())
      return context_.allocate_shared(bytes, Purpose::buckets);
    queue_->complete_oldest();
  }
  return buffer;
}

bool ShardedGradients::take_spare(std::size_t bytes, Buffer& buffer) {
  auto best = spare_.end();
  for (auto at = spare_.begin(); at != spare_.end(); ++at)
    if (at->bytes() >= bytes && (best == spare_.end() || at->bytes() < best->bytes())) best = at;
  if (best == spare_.end()) return false;
  buffer = std::move(*best);
  spare_.erase(best);
  return true;
}

void ShardedGradients::give_back(WholeUnit& unit) {
  spare_.push_back(std::move(unit.buffer));
  unit = {};
}

void ShardedGradients::read(int unit, Range range, void* target) const {
  kernels::cast(context_.stream, element(written(unit), range.begin, written_type()),
                written_type(), target, context_.sent_type(), range.count);
}

void ShardedGradients::write(int unit, Range range, const void* source) {
  const std::int64_t own = context_.layout.slice(unit, context_.rank()).begin;
  hold(unit, {range.begin - own, range.count}, source);
}

void ShardedGradients::hold(int unit, Range in_slice, const void* reduced) {
  hold_reduced(context_, reduced, in_slice.count,
               {slice_at(unit, in_slice.begin), held_type_, !at(unit).micro_batch.first()});
}

Work ShardedGradients::start_in_place(const Bucket& bucket) {
  const DType dtype = context_.dtype();
  std::vector<ScatterPart> parts;
  for (const BucketPart& part : bucket.parts) {
    const std::int64_t slice = context_.layout.slice_elements(part.unit);
    void* first = element(written(part.unit), part.begin, dtype);
    void* receive = sums_micro_batches() ? element(first, context_.rank() * slice, dtype)
                                         : slice_at(part.unit, part.begin);
    parts.push_back({first, slice, receive, part.count});
  }
  return context_.group.reduce_scatter(parts, dtype, context_.options.reduction, context_.stream);
}

void ShardedGradients::complete(const Bucket& bucket) {
  for (const BucketPart& part : bucket.parts) {
    if (at(part.unit).micro_batch.last())
      norm_.record(part.unit, part.begin, slice_at(part.unit, part.begin), held_type_, part.count);
    WholeUnit& unit = at(part.unit);
    unit.unreduced -= part.count;
    if (unit.unreduced > 0) continue;
    give_back(unit);
    --in_flight_;
  }
}

/// A single micro-batch was received where it is held.
void ShardedGradients::add_in_place(const Bucket& bucket) {
  if (!sums_micro_batches()) return;
  for (const BucketPart& part : bucket.parts) {
    const std::int64_t slice = context_.layout.slice_elements(part.unit);
    const void* own =
        element(written(part.unit), context_.rank() * slice + part.begin, written_type());
    hold(part.unit, {part.begin, part.count}, own);
  }
}

void ShardedGradients::abandon() {
  queue_->abandon();
  for (WholeUnit& unit : units_)
    if (unit.buffer) give_back(unit);
  in_flight_ = 0;
}

}  // namespace

std::unique_ptr<GradientStore> make_sharded_gradients(const Context& context, SliceNorm& norm) {
  return std::make_unique<ShardedGradients>(context, norm);
}

}  // namespace tessera::zero
