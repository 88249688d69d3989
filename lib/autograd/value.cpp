// SPDX-License-Identifier: Apache-2.0
// Collection of gradient contributions.
#include "tessera/autograd/value.hpp"

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/kernels/elementwise.hpp"

namespace tessera::autograd {

void GradientSlot::add(const Stream& stream, Tensor contribution) {
  if (empty()) {
    gradient_ = std::move(contribution);
    return;
  }
  TESSERA_CHECK(
      contribution.numel() == gradient_.numel() && contribution.dtype() == gradient_.dtype(),
      Code::internal,
      fmt::format("a gradient of shape {} meets one of shape {}", contribution.shape().to_string(),
                  gradient_.shape().to_string()));
  const ProfileScope profile("add");
  Tensor sum = gradient_.unique() ? gradient_
               : contribution.unique()
                   ? contribution
                   : Tensor(gradient_.shape(), gradient_.dtype(), gradient_.device());
  kernels::add(stream, gradient_.data(), contribution.data(), sum.data(), gradient_.numel(),
               gradient_.dtype());
  gradient_ = std::move(sum);
}

GradientSlot::Target GradientSlot::target(const Stream& stream, const Shape& shape, DType dtype,
                                          Device device) {
  if (empty()) {
    gradient_ = Tensor(shape, dtype, device);
    return {gradient_, false};
  }
  if (!gradient_.unique()) gradient_ = gradient_.clone(stream);
  return {gradient_, true};
}

}  // namespace tessera::autograd
