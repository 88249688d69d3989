// SPDX-License-Identifier: Apache-2.0
// Parameters of stage 3: slices between uses, whole units from gather to release.
#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tessera/base/log.hpp"
#include "tessera/base/timeline.hpp"
#include "tessera/comm/work.hpp"

#include "zero/parameter_store.hpp"

namespace tessera::zero {
namespace {

class SlicedParameters : public ParameterStore {
 public:
  explicit SlicedParameters(const Context& context)
      : context_(context),
        plan_(plan_slices(context.layout, context.options.gather_bucket_size, false)),
        units_(static_cast<std::size_t>(context.units())) {
    if (context.layout.padded() > 0)
      slices_ = context.allocate_shared(
          bytes_of(context.layout.padded() / context.ranks(), context.dtype()),
          Purpose::parameters);
  }
  ~SlicedParameters() override {
    for (Unit& unit : units_) close(unit);
  }

  void* held(const FlatPiece& piece, int unit) const override {
    const std::int64_t begin =
        piece.unit_begin - context_.layout.slice(unit, context_.rank()).begin;
    return element(slices_.data(), context_.layout.slice_start(unit) + begin, context_.dtype());
  }
  void* resident(int unit) const override {
    const Unit& at = units_[static_cast<std::size_t>(unit)];
    return at.in_use ? at.whole.data() : nullptr;
  }
  bool under_way(int unit) const override {
    const Unit& at = units_[static_cast<std::size_t>(unit)];
    return at.whole && !at.in_use;
  }
  void gather(int unit) override;
  bool prefetch(int unit) override;
  void release(int unit) override;
  void release_all() override {
    for (int u = 0; u < context_.units(); ++u) release(u);
  }
  const std::vector<Bucket>& update_plan() const override { return plan_; }

 private:
  struct Unit {
    Buffer whole;
    Work work;
    bool in_use = false;  // gathered, not only prefetched
  };
  void start(Unit& unit, int index);
  static void close(Unit& unit);

  Context context_;
  std::vector<Bucket> plan_;
  Buffer slices_;
  std::vector<Unit> units_;
  std::int64_t ahead_ = 0;  // elements of units that are prefetched and not yet in use
};

void SlicedParameters::start(Unit& unit, int index) {
  const DType dtype = context_.dtype();
  const std::int64_t slice = context_.layout.slice_elements(index);
  unit.whole =
      allocate(bytes_of(slice * context_.ranks(), dtype), context_.device(), Purpose::gathered);
  const GatherPart part{element(slices_.data(), context_.layout.slice_start(index), dtype),
                        unit.whole.data(), slice, slice};
  unit.work = context_.group.all_gather(std::span(&part, 1), dtype, context_.stream);
  if (!context_.options.overlap) unit.work.wait();
}

/// A gather under way still writes.
void SlicedParameters::close(Unit& unit) {
  if (unit.in_use || !unit.whole) return;
  try {
    if (std::uncaught_exceptions() == 0) return unit.work.wait();
  } catch (const std::exception& error) {
    log_error(std::string("while closing an optimizer with gathers under way: ") + error.what());
  }
  leak(std::move(unit.whole));
}

void SlicedParameters::gather(int unit) {
  Unit& at = units_[static_cast<std::size_t>(unit)];
  const std::int64_t padded = context_.layout.unit(unit).padded;
  if (padded == 0 || at.in_use) return;
  const ScopedSpan span(SpanKind::communication, "gather",
                        [&] { return SpanDetails{.label = context_.layout.unit(unit).name}; });
  if (at.whole)
    ahead_ -= padded;
  else
    start(at, unit);
  at.work.wait();
  at.in_use = true;
}

bool SlicedParameters::prefetch(int unit) {
  Unit& at = units_[static_cast<std::size_t>(unit)];
  const std::int64_t padded = context_.layout.unit(unit).padded;
  if (padded == 0 || at.whole || ahead_ + padded > context_.options.prefetch_elements) return false;
  start(at, unit);
  ahead_ += padded;
  return true;
}

void SlicedParameters::release(int unit) {
  Unit& at = units_[static_cast<std::size_t>(unit)];
  if (!at.whole) return;
  at.work.wait();
  if (!at.in_use) ahead_ -= context_.layout.unit(unit).padded;
  at = {};
}

}  // namespace

std::unique_ptr<ParameterStore> make_sliced_parameters(const Context& context) {
  return std::make_unique<SlicedParameters>(context);
}

}  // namespace tessera::zero
