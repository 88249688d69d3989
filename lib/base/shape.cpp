// SPDX-License-Identifier: Apache-2.0
#include "tessera/base/shape.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tessera/base/error.hpp"

namespace tessera {

std::int64_t checked_multiply(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  TESSERA_CHECK(!__builtin_mul_overflow(a, b, &result), Code::invalid_argument,
                fmt::format("{} x {} does not fit 64 bits", a, b));
  return result;
}

std::int64_t checked_add(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  TESSERA_CHECK(!__builtin_add_overflow(a, b, &result), Code::invalid_argument,
                fmt::format("{} + {} does not fit 64 bits", a, b));
  return result;
}

Shape::Shape(std::vector<std::int64_t> sizes) : sizes_(std::move(sizes)) {
  for (const std::int64_t size : sizes_) {
    TESSERA_CHECK(size >= 0, Code::invalid_argument,
                  fmt::format("shape {} has a negative size", to_string()));
    numel_ = checked_multiply(numel_, size);
  }
}

std::int64_t Shape::operator[](int i) const {
  const int index = i < 0 ? i + rank() : i;
  TESSERA_CHECK(index >= 0 && index < rank(), Code::invalid_argument,
                fmt::format("dimension {} of shape {}", i, to_string()));
  return sizes_[static_cast<std::size_t>(index)];
}

std::string Shape::to_string() const {
  return fmt::format("[{}]", fmt::join(sizes_, ", "));
}

}  // namespace tessera
