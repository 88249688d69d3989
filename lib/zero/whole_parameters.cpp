// SPDX-License-Identifier: Apache-2.0
// Parameters of stages 0–2: whole on every rank, gathered in place after the update.
#include <utility>

#include "zero/bucket_queue.hpp"
#include "zero/parameter_store.hpp"

namespace tessera::zero {
namespace {

class WholeParameters : public ParameterStore {
 public:
  explicit WholeParameters(const Context& context)
      : context_(context),
        queue_(
            "gather", plan_slices(context.layout, context.options.gather_bucket_size, false),
            context.options.overlap, 0, [this](const Bucket& bucket, int) { return start(bucket); },
            [](const Bucket&, int) {}) {
    if (context.layout.padded() > 0)
      data_ = context.allocate_shared(bytes_of(context.layout.padded(), context.dtype()),
                                      Purpose::parameters);
  }

  void* held(const FlatPiece& piece, int unit) const override {
    return element(resident(unit), piece.unit_begin, context_.dtype());
  }
  void* resident(int unit) const override {
    return element(data_.data(), context_.layout.unit(unit).start, context_.dtype());
  }
  const std::vector<Bucket>& update_plan() const override { return queue_.plan(); }
  void publish_next() override {
    if (!context_.holds_whole_states()) queue_.launch_next();
  }
  void finish_publishing() override {
    if (!context_.holds_whole_states()) queue_.finish();
  }

 private:
  Work start(const Bucket& bucket) {
    std::vector<GatherPart> parts;
    for (const BucketPart& part : bucket.parts) {
      const std::int64_t slice = context_.layout.slice_elements(part.unit);
      void* first = element(resident(part.unit), part.begin, context_.dtype());
      const void* own = element(first, context_.rank() * slice, context_.dtype());
      parts.push_back({own, first, slice, part.count});
    }
    return context_.group.all_gather(parts, context_.dtype(), context_.stream);
  }

  Context context_;
  BucketQueue queue_;
  Buffer data_;
};

}  // namespace

std::unique_ptr<ParameterStore> make_whole_parameters(const Context& context) {
  return std::make_unique<WholeParameters>(context);
}

}  // namespace tessera::zero
