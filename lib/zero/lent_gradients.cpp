// SPDX-License-Identifier: Apache-2.0
// Gradients in a caller's arrays: reduced through staging buffers, and written back.
#include "tessera/kernels/elementwise.hpp"

#include "zero/bucket_queue.hpp"
#include "zero/gradient_store.hpp"
#include "zero/staged_reduction.hpp"
#include "zero/unit_arrays.hpp"

namespace tessera::zero {
namespace {

class LentGradients : public GradientStore, private UnitArrays {
 public:
  LentGradients(const Context& context, SliceNorm& norm, const std::vector<ParamView>& views)
      : context_(context),
        norm_(norm),
        arrays_(context, views, LentArrays::Side::gradient),
        plan_(plan_slices(context.layout, context.options.reduce_bucket_size, true)),
        reduction_(context, plan_, *this),
        queue_(
            "reduction", plan_, context.options.overlap, reduction_.slots(),
            [this](const Bucket& bucket, int slot) { return reduction_.start(bucket, slot); },
            [this](const Bucket& bucket, int slot) { reduction_.complete(bucket, slot); }) {
    if (rounds())
      rounded_ = allocate(bytes_of(largest_bucket(plan_), context.dtype()), context.device(),
                          Purpose::workspace);
  }

  DType written_type() const override { return context_.dtype(); }
  void attach(int) override {}
  void* written(int) const override { return nullptr; }
  void ready(int, MicroBatch) override {}
  void finish(MicroBatch) override { queue_.finish(); }
  void abandon() override { queue_.abandon(); }
  DType held_type() const override { return context_.dtype(); }
  const void* held(const FlatPiece& piece, int) const override { return arrays_.at(piece); }
  void* held_at(int, std::int64_t) const override { return nullptr; }

 private:
  bool rounds() const { return context_.sent_type() != context_.dtype(); }
  void read(int unit, Range range, void* target) const override;
  void write(int unit, Range range, const void* source) override;

  Context context_;
  SliceNorm& norm_;
  LentArrays arrays_;
  std::vector<Bucket> plan_;
  StagedReduction reduction_;
  Buffer rounded_;  // a piece in the arrays' type, where another is sent
  BucketQueue queue_;
};

void LentGradients::read(int unit, Range range, void* target) const {
  if (!rounds()) return arrays_.read(unit, range, target);
  arrays_.read(unit, range, rounded_.data());
  kernels::cast(context_.stream, rounded_.data(), context_.dtype(), target, context_.sent_type(),
                range.count);
}

/// The norm is that of the values that are held.
void LentGradients::write(int unit, Range range, const void* source) {
  if (rounds()) {
    kernels::cast(context_.stream, source, context_.sent_type(), rounded_.data(), context_.dtype(),
                  range.count);
    source = rounded_.data();
  }
  arrays_.write(unit, range, source);
  const Range own = context_.layout.slice(unit, context_.rank());
  if (own.begin <= range.begin && range.begin < own.end())
    norm_.record(unit, range.begin - own.begin, source, context_.dtype(), range.count);
}

}  // namespace

std::unique_ptr<GradientStore> make_lent_gradients(const Context& context, SliceNorm& norm,
                                                   const std::vector<ParamView>& views) {
  return std::make_unique<LentGradients>(context, norm, views);
}

}  // namespace tessera::zero
