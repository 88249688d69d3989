// SPDX-License-Identifier: Apache-2.0
// Parameters in a caller's arrays: the own parts are updated in place, the others' arrive through
// staging buffers.
#include "zero/bucket_queue.hpp"
#include "zero/parameter_store.hpp"
#include "zero/staged_reduction.hpp"
#include "zero/unit_arrays.hpp"

namespace tessera::zero {
namespace {

class LentParameters : public ParameterStore {
 public:
  LentParameters(const Context& context, const std::vector<ParamView>& views)
      : context_(context),
        arrays_(context, views, LentArrays::Side::data),
        plan_(plan_slices(context.layout, context.options.gather_bucket_size, false)),
        staging_(context, plan_, context.holds_whole_states() ? 0 : kStagingBuffers,
                 context.dtype()),
        queue_(
            "gather", plan_, context.options.overlap, staging_.slots(),
            [this](const Bucket& bucket, int slot) { return start(bucket, slot); },
            [this](const Bucket& bucket, int slot) { complete(bucket, slot); }) {}

  void* held(const FlatPiece& piece, int) const override { return arrays_.at(piece); }
  void* resident(int) const override { return nullptr; }
  const std::vector<Bucket>& update_plan() const override { return plan_; }
  void publish_next() override {
    if (!context_.holds_whole_states()) queue_.launch_next();
  }
  void finish_publishing() override {
    if (!context_.holds_whole_states()) queue_.finish();
  }

 private:
  Work start(const Bucket& bucket, int slot) {
    std::vector<GatherPart> parts;
    void* first = nullptr;
    staging_.for_each_piece(bucket, slot,
                            [&](const BucketPart& part, Range range, int rank, void* piece) {
                              if (rank == 0) first = piece;
                              if (rank != context_.rank()) return;
                              arrays_.read(part.unit, range, piece);
                              parts.push_back({piece, first, part.count, part.count});
                            });
    return context_.group.all_gather(parts, context_.dtype(), context_.stream);
  }
  void complete(const Bucket& bucket, int slot) {
    staging_.for_each_piece(bucket, slot,
                            [&](const BucketPart& part, Range range, int rank, const void* piece) {
                              if (rank != context_.rank()) arrays_.write(part.unit, range, piece);
                            });
  }

  Context context_;
  LentArrays arrays_;
  std::vector<Bucket> plan_;
  Staging staging_;
  BucketQueue queue_;
};

}  // namespace

std::unique_ptr<ParameterStore> make_lent_parameters(const Context& context,
                                                     const std::vector<ParamView>& views) {
  return std::make_unique<LentParameters>(context, views);
}

}  // namespace tessera::zero
