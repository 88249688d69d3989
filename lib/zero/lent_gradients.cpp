// SPDX-License-Identifier: Apache-2.0
// Gradients in a caller's arrays: reduced through staging buffers, and written back.
#include "zero/bucket_queue.hpp"
#include "zero/gradient_store.hpp"
#include "zero/staged_reduction.hpp"
#include "zero/unit_arrays.hpp"

namespace tessera::zero {
namespace {

class LentGradients : public GradientStore {
 public:
  LentGradients(const Context& context, SliceNorm& norm, const std::vector<ParamView>& views)
      : context_(context),
        arrays_(context, views, LentArrays::Side::gradient),
        plan_(plan_slices(context.layout, context.options.reduce_bucket_size, true)),
        reduction_(context, plan_, arrays_, norm),
        queue_(
            plan_, context.options.overlap, reduction_.slots(),
            [this](const Bucket& bucket, int slot) { return reduction_.start(bucket, slot); },
            [this](const Bucket& bucket, int slot) { reduction_.complete(bucket, slot); }) {}

  DType written_type() const override { return context_.dtype(); }
  void attach(int) override {}
  void* written(int) const override { return nullptr; }
  void ready(int, MicroBatch) override {}
  void finish(MicroBatch) override { queue_.finish(); }
  void abandon() override { queue_.abandon(); }
  DType held_type() const override { return context_.dtype(); }
  const void* held(const FlatPiece& piece, int) const override { return arrays_.at(piece); }

 private:
  Context context_;
  LentArrays arrays_;
  std::vector<Bucket> plan_;
  StagedReduction reduction_;
  BucketQueue queue_;
};

}  // namespace

std::unique_ptr<GradientStore> make_lent_gradients(const Context& context, SliceNorm& norm,
                                                   const std::vector<ParamView>& views) {
  return std::make_unique<LentGradients>(context, norm, views);
}

}  // namespace tessera::zero
