// SPDX-License-Identifier: Apache-2.0
// Master values and states in and out, for initialisation and checkpoints.
#include <algorithm>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/kernels/elementwise.hpp"
#include "tessera/kernels/split_master.hpp"

#include "zero/optimizer_parts.hpp"

namespace tessera::zero {
namespace {

/// fp32 values between host memory and kernels of a stream: on the CPU the memory itself.
class Exchange {
 public:
  Exchange(const Stream& stream, std::int64_t count)
      : stream_(stream), bytes_(bytes_of(count, DType::fp32)) {
    if (!stream.device().is_cpu()) staging_ = allocate(bytes_, stream.device(), Purpose::workspace);
  }
  /// What kernels read in place of the host's `values`.
  const float* sent(const float* values) {
    if (!staging_) return values;
    stream_.copy(staging_.data(), values, bytes_);
    return staging_.as<float>();
  }
  /// What kernels write in place of the host's `values`, which have them after receive().
  float* target(float* values) { return staging_ ? staging_.as<float>() : values; }
  void receive(float* values) {
    if (staging_) stream_.copy(values, staging_.data(), bytes_);
    stream_.synchronize();
  }
  /// The host's values are free again.
  void finish_sending() { stream_.synchronize(); }

 private:
  const Stream& stream_;
  std::size_t bytes_;
  Buffer staging_;
};

}  // namespace

FlatPiece PartitionedOptimizer::Impl::held_piece(int parameter, Range range) const {
  return {parameter, range.begin, layout.parameter(parameter).offset + range.begin, range.count};
}

Range PartitionedOptimizer::owned(int parameter) const {
  impl_->require_parameter(parameter);
  return impl_->layout.owned(parameter, impl_->group.rank());
}

Range PartitionedOptimizer::held(int parameter) const {
  impl_->require_parameter(parameter);
  if (!impl_->context.holds_whole_states()) return owned(parameter);
  return {0, impl_->layout.parameter(parameter).numel()};
}

void PartitionedOptimizer::load(int parameter, std::int64_t begin, std::int64_t count,
                                const float* values) {
  impl_->require_committed("load");
  impl_->require_parameter(parameter);
  const FlatParameter& flat = impl_->layout.parameter(parameter);
  TESSERA_CHECK(begin >= 0 && count >= 0 && begin + count <= flat.numel(), Code::invalid_argument,
                fmt::format("elements [{}, {}) are outside of \"{}\", which has {}", begin,
                            begin + count, flat.name, flat.numel()));
  const Range range = intersect({begin, count}, held(parameter));
  if (range.count == 0) return;
  const FlatPiece piece = impl_->held_piece(parameter, range);
  void* target = impl_->parameters->held(piece, flat.unit);
  const Stream& stream = impl_->context.stream;
  Exchange exchange(stream, range.count);
  const float* source = exchange.sent(values + (range.begin - begin));
  if (std::uint16_t* low = impl_->states->low(flat.unit, piece.unit_begin)) {
    kernels::split(stream, source, static_cast<bf16*>(target), low, range.count);
  } else {
    if (float* master = impl_->states->master(flat.unit, piece.unit_begin))
      stream.copy(master, source, bytes_of(range.count, DType::fp32));
    kernels::cast(stream, source, DType::fp32, target, dtype(), range.count);
  }
  exchange.finish_sending();
}

void PartitionedOptimizer::finish_load() {
  impl_->require_committed("finish_load");
  const Traffic::Pause pause(impl_->group.traffic());
  impl_->parameters->release_all();
  impl_->parameters->finish_publishing();
}

void PartitionedOptimizer::master(int parameter, std::int64_t begin, std::int64_t count,
                                  float* values) const {
  impl_->require_committed("master");
  const Range held = this->held(parameter);
  const FlatParameter& flat = impl_->layout.parameter(parameter);
  TESSERA_CHECK(count >= 0 && begin >= held.begin && begin + count <= held.end(),
                Code::invalid_argument,
                fmt::format("this rank holds elements [{}, {}) of \"{}\", not [{}, {})", held.begin,
                            held.end(), flat.name, begin, begin + count));
  if (count == 0) return;
  const FlatPiece piece = impl_->held_piece(parameter, {begin, count});
  const void* source = impl_->parameters->held(piece, flat.unit);
  const Stream& stream = impl_->context.stream;
  Exchange exchange(stream, count);
  float* target = exchange.target(values);
  if (const std::uint16_t* low = impl_->states->low(flat.unit, piece.unit_begin))
    kernels::join(stream, static_cast<const bf16*>(source), low, target, count);
  else if (const float* master = impl_->states->master(flat.unit, piece.unit_begin))
    stream.copy(target, master, bytes_of(count, DType::fp32));
  else
    kernels::cast(stream, source, dtype(), target, DType::fp32, count);
  exchange.receive(values);
}

const std::vector<std::string>& PartitionedOptimizer::state_names() const {
  return impl_->rule->state_names();
}

float* PartitionedOptimizer::state(int parameter, const std::string& name) {
  impl_->require_committed("state");
  const std::vector<std::string>& names = state_names();
  const auto found = std::ranges::find(names, name);
  TESSERA_CHECK(found != names.end(), Code::invalid_argument,
                fmt::format("{} has no state \"{}\"", impl_->rule->name(), name));
  const Range held = this->held(parameter);
  if (held.count == 0) return nullptr;
  const FlatPiece piece = impl_->held_piece(parameter, held);
  return impl_->states->state(static_cast<std::size_t>(found - names.begin()),
                              impl_->layout.parameter(parameter).unit, piece.unit_begin);
}

const float* PartitionedOptimizer::state(int parameter, const std::string& name) const {
  return const_cast<PartitionedOptimizer*>(this)->state(parameter, name);
}

void PartitionedOptimizer::load_state(int parameter, const std::string& name, Range range,
                                      const float* values) {
  float* target = state(parameter, name) + (range.begin - held(parameter).begin);
  impl_->context.stream.copy(target, values, bytes_of(range.count, DType::fp32));
  impl_->context.stream.synchronize();
}

void PartitionedOptimizer::copy_state(int parameter, const std::string& name, Range range,
                                      float* values) const {
  const float* source = state(parameter, name) + (range.begin - held(parameter).begin);
  impl_->context.stream.copy(values, source, bytes_of(range.count, DType::fp32));
  impl_->context.stream.synchronize();
}

}  // namespace tessera::zero
