// SPDX-License-Identifier: Apache-2.0
// Where gradients are written, how they are reduced, and where the reduced ones wait for the
// update.
#pragma once

#include <memory>
#include <vector>

#include "tessera/zero/param_view.hpp"

#include "zero/context.hpp"
#include "zero/slice_norm.hpp"

namespace tessera::zero {

/// Place of a micro-batch in its step.
struct MicroBatch {
  int index;
  int count;
  bool first() const { return index == 0; }
  bool last() const { return index + 1 == count; }
};

class GradientStore {
 public:
  virtual ~GradientStore() = default;
  /// Of what backward writes.
  virtual DType written_type() const = 0;
  /// True: backward adds to what earlier micro-batches left.
  virtual bool accumulates_locally() const { return false; }
  virtual void attach(int unit) = 0;
  /// The unit's flat gradient while attached, else nullptr.
  virtual void* written(int unit) const = 0;
  virtual void ready(int unit, MicroBatch micro_batch) = 0;
  /// Finishes the reductions of the micro-batch; after the last one held() is final and the own
  /// slices' norm recorded.
  virtual void finish(MicroBatch micro_batch) = 0;
  virtual void abandon() = 0;
  /// Reduced gradient of a piece that this rank holds, of held_type().
  virtual DType held_type() const = 0;
  virtual const void* held(const FlatPiece& piece, int unit) const = 0;
  /// The same from an element of the unit on; nullptr: not of stores that can do this.
  virtual void* held_at(int unit, std::int64_t unit_begin) const = 0;
};

/// Whole on every rank (stages 0 and 1). Collective, as are the others.
std::unique_ptr<GradientStore> make_whole_gradients(const Context& context, SliceNorm& norm);
/// Whole while a unit's backward goes on, then a slice (stages 2 and 3).
std::unique_ptr<GradientStore> make_sharded_gradients(const Context& context, SliceNorm& norm);
/// In a caller's arrays.
std::unique_ptr<GradientStore> make_lent_gradients(const Context& context, SliceNorm& norm,
                                                   const std::vector<ParamView>& views);

}  // namespace tessera::zero
