// SPDX-License-Identifier: Apache-2.0
// Units seen as flat arrays wherever their elements really lie, and staging buffers that carry
// buckets of them.
#pragma once

#include <cstdint>
#include <vector>

#include "tessera/device/buffer.hpp"
#include "tessera/zero/param_view.hpp"

#include "zero/bucket_plan.hpp"
#include "zero/context.hpp"

namespace tessera::zero {

/// Copies ranges of a unit out of and into the arrays behind it, in the type that is sent.
class UnitArrays {
 public:
  virtual ~UnitArrays() = default;
  virtual void read(int unit, Range range, void* target) const = 0;
  virtual void write(int unit, Range range, const void* source) = 0;
};

/// A caller's parameters, or their gradients, in the run's dtype.
class LentArrays : public UnitArrays {
 public:
  enum class Side { data, gradient };
  LentArrays(const Context& context, const std::vector<ParamView>& views, Side side)
      : context_(context), views_(views), side_(side) {}
  void read(int unit, Range range, void* target) const override;
  void write(int unit, Range range, const void* source) override;
  /// First element of a piece; nullptr for the gradient of a frozen parameter.
  void* at(const FlatPiece& piece) const;

 private:
  Context context_;
  const std::vector<ParamView>& views_;
  Side side_;
};

/// Buffers that peers can read, in which buckets of plan_slices lie piece by piece: for each part
/// the ranks' pieces one after the other.
class Staging {
 public:
  /// Makes `slots` buffers (fewer if the plan has fewer buckets) of elements of `type`. Collective.
  Staging(const Context& context, const std::vector<Bucket>& plan, int slots, DType type);
  int slots() const { return static_cast<int>(buffers_.size()); }
  void* data(int slot) const;
  /// Calls visit(unit, range in the unit, rank, staged piece) for every piece of the bucket.
  template <typename Visit>
  void for_each_piece(const Bucket& bucket, int slot, Visit&& visit) const {
    std::int64_t offset = 0;
    for (const BucketPart& part : bucket.parts) {
      for (int rank = 0; rank < context_.ranks(); ++rank, offset += part.count) {
        const std::int64_t slice = context_.layout.slice(part.unit, rank).begin;
        visit(part, Range{slice + part.begin, part.count}, rank,
              element(data(slot), offset, type_));
      }
    }
  }

 private:
  Context context_;
  DType type_;
  std::vector<Buffer> buffers_;
};

}  // namespace tessera::zero
