// SPDX-License-Identifier: Apache-2.0
// Dropout and residual sums on the tape.
#include "tessera/autograd/dropout.hpp"

#include <utility>

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/kernels/dropout.hpp"
#include "tessera/kernels/elementwise.hpp"

#include "autograd/residual_sum.hpp"

namespace tessera::autograd {
namespace {

/// The kernel's calls, run by run.
void drop(const Stream& stream, kernels::Dropout call, const DropoutSite& site) {
  if (!site.runs) return kernels::dropout(stream, call);
  const std::size_t element = size_of(call.dtype);
  for (const Interval& run : *site.runs) {
    call.count = run.size();
    call.offset = site.offset + run.begin;
    kernels::dropout(stream, call);
    const std::size_t bytes = static_cast<std::size_t>(run.size()) * element;
    call.x = static_cast<const std::byte*>(call.x) + bytes;
    call.y = static_cast<std::byte*>(call.y) + bytes;
    if (call.residual) call.residual = static_cast<const std::byte*>(call.residual) + bytes;
  }
}

void run(const Stream& stream, const void* x, const Tensor* residual, const Tensor& y,
         const DropoutSite& site) {
  const ProfileScope profile("dropout, residual");
  if (site.probability > 0) {
    drop(stream,
         {.x = x,
          .residual = residual ? residual->data() : nullptr,
          .y = y.data(),
          .count = y.numel(),
          .offset = site.offset,
          .probability = site.probability,
          .seed = site.seed,
          .stream = site.stream,
          .dtype = y.dtype(),
          .variables = site.variables,
          .row_elements = site.row_elements},
         site);
  } else if (residual != nullptr) {
    kernels::add(stream, residual->data(), x, y.data(), y.numel(), y.dtype());
  }
}

/// Gradient of x from the gradient of dropout(x), which stays as it is if others hold it.
Tensor masked(const Stream& stream, Tensor dy, const DropoutSite& site) {
  if (site.probability <= 0) return dy;
  const void* data = dy.data();
  Tensor dx = in_place_or_new(std::move(dy));
  run(stream, data, nullptr, dx, site);
  return dx;
}

}  // namespace

Value dropout(Tape& tape, Value x, const DropoutSite& site) {
  if (site.probability <= 0) return x;
  const auto slot = x.slot();
  Tensor data = x.take_data();
  x = Value();
  const void* elements = data.data();
  Tensor out = in_place_or_new(std::move(data));
  run(tape.stream(), elements, nullptr, out, site);
  Value y = tape.result(std::move(out), slot != nullptr);
  if (!y.requires_gradient()) return y;
  tape.record({.name = "dropout",
               .output = y.slot(),
               .backward_input =
                   [slot, site, stream = tape.stream()](Tensor& dy) {
                     slot->add(stream, masked(stream, std::move(dy), site));
                   },
               .backward_weight = {}});
  return y;
}

Tensor in_place_or_new(Tensor&& x) {
  return x.unique() ? std::move(x) : Tensor(x.shape(), x.dtype(), x.device());
}

void check_branch(const Value& residual, const Value& x) {
  TESSERA_CHECK(residual.shape() == x.shape(), Code::invalid_argument,
                fmt::format("a residual of shape {} and a branch of shape {}",
                            residual.shape().to_string(), x.shape().to_string()));
}

Value record_dropout_add(Tape& tape, const Value& residual,
                         const std::shared_ptr<GradientSlot>& slot, Tensor sum,
                         const DropoutSite& site) {
  Value y = tape.result(std::move(sum), slot != nullptr || residual.requires_gradient());
  if (!y.requires_gradient()) return y;
  tape.record(
      {.name = "dropout_add",
       .output = y.slot(),
       .backward_input =
           [slot, residual_slot = residual.slot(), site, stream = tape.stream()](Tensor& dy) {
             if (residual_slot) residual_slot->add(stream, dy);
             if (slot) slot->add(stream, masked(stream, std::move(dy), site));
           },
       .backward_weight = {}});
  return y;
}

Value dropout_add(Tape& tape, const Value& residual, Value x, const DropoutSite& site) {
  check_branch(residual, x);
  const auto slot = x.slot();
  Tensor data = x.take_data();
  x = Value();
  const void* elements = data.data();
  Tensor out = in_place_or_new(std::move(data));
  run(tape.stream(), elements, &residual.data(), out, site);
  return record_dropout_add(tape, residual, slot, std::move(out), site);
}

}  // namespace tessera::autograd
