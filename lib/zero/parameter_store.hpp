// SPDX-License-Identifier: Apache-2.0
// Where parameters lie, and how the ones that others updated get here.
#pragma once

#include <memory>
#include <vector>

#include "tessera/zero/param_view.hpp"

#include "zero/bucket_plan.hpp"
#include "zero/context.hpp"

namespace tessera::zero {

class ParameterStore {
 public:
  virtual ~ParameterStore() = default;
  /// Run-dtype elements of a piece that this rank holds (updates, saves).
  virtual void* held(const FlatPiece& piece, int unit) const = 0;

  /// The whole unit while it is resident, else nullptr.
  virtual void* resident(int unit) const = 0;
  virtual void gather(int) {}
  virtual bool prefetch(int) { return false; }
  /// Prefetched and not yet gathered.
  virtual bool under_way(int) const { return false; }
  virtual void release(int) {}
  virtual void release_all() {}

  /// Buckets of slices, in the order in which the update goes through them.
  virtual const std::vector<Bucket>& update_plan() const = 0;
  /// Sends the own slices of the next bucket of the plan to the ranks that hold them whole.
  virtual void publish_next() {}
  virtual void finish_publishing() {}
};

/// Stages 0–2. Collective, as are the others.
std::unique_ptr<ParameterStore> make_whole_parameters(const Context& context);
/// Stage 3.
std::unique_ptr<ParameterStore> make_sliced_parameters(const Context& context);
/// In a caller's arrays, whole in every stage.
std::unique_ptr<ParameterStore> make_lent_parameters(const Context& context,
                                                     const std::vector<ParamView>& views);

}  // namespace tessera::zero
