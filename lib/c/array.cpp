// SPDX-License-Identifier: Apache-2.0
#include "c/array.hpp"

#include <algorithm>
#include <vector>

#include "c/guard.hpp"

namespace tessera::c {
namespace {

/// Row-major: the slowest dimension first.
struct Layout {
  std::vector<std::int64_t> dims, strides;
  bool contiguous = true;
};

std::vector<std::int64_t> contiguous_strides(const std::vector<std::int64_t>& dims) {
  std::vector<std::int64_t> strides(dims.size(), 1);
  for (std::size_t i = dims.size(); i-- > 1;)
    strides[i - 1] = checked_multiply(strides[i], std::max<std::int64_t>(dims[i], 1));
  return strides;
}

/// Whether elements lie as in a contiguous array; the stride of a dimension of one does not matter.
bool same_places(const Layout& layout, const std::vector<std::int64_t>& strides) {
  for (std::size_t i = 0; i < strides.size(); ++i)
    if (layout.dims[i] > 1 && layout.strides[i] != strides[i]) return false;
  return true;
}

Layout layout_of(const tessera_array& array, const char* name) {
  TESSERA_CHECK(array.rank >= 0 && array.rank <= TESSERA_MAX_RANK, Code::invalid_argument,
                fmt::format("`{}` has rank {}; 0 to {} are possible", name, array.rank,
                            int{TESSERA_MAX_RANK}));
  TESSERA_CHECK(array.order == TESSERA_ROW_MAJOR || array.order == TESSERA_COLUMN_MAJOR,
                Code::invalid_argument,
                fmt::format("`{}` has order {}, which is neither TESSERA_ROW_MAJOR nor "
                            "TESSERA_COLUMN_MAJOR",
                            name, static_cast<int>(array.order)));
  TESSERA_CHECK(
      array.device.type == TESSERA_CPU, Code::not_supported,
      fmt::format("`{}` lies on a device, which is not available yet: copy it to the host", name));
  Layout layout{{array.dims, array.dims + array.rank}, {array.strides, array.strides + array.rank}};
  if (array.order == TESSERA_COLUMN_MAJOR) {
    std::reverse(layout.dims.begin(), layout.dims.end());
    std::reverse(layout.strides.begin(), layout.strides.end());
  }
  const bool given = std::any_of(layout.strides.begin(), layout.strides.end(),
                                 [](std::int64_t stride) { return stride != 0; });
  const auto plain = contiguous_strides(layout.dims);
  layout.contiguous = !given || same_places(layout, plain);
  if (!given) layout.strides = plain;
  return layout;
}

Tensor over_memory(const tessera_array& array, const Layout& layout, const char* name) {
  Shape shape(layout.dims);
  TESSERA_CHECK(array.data != nullptr || shape.numel() == 0, Code::invalid_argument,
                fmt::format("`{}` has shape {} but its data is NULL", name, shape.to_string()));
  return Tensor::borrow(array.data, std::move(shape), dtype_of_array(array, name));
}

/// Calls visit(offset in the array, number of the element) for every element, row-major.
template <typename Visit>
void for_each_element(const Layout& layout, Visit&& visit) {
  const std::int64_t numel = Shape(layout.dims).numel();
  std::vector<std::int64_t> index(layout.dims.size(), 0);
  std::int64_t offset = 0;
  for (std::int64_t n = 0; n < numel; ++n) {
    visit(offset, n);
    for (std::size_t d = index.size(); d-- > 0;) {
      offset += layout.strides[d];
      if (++index[d] < layout.dims[d]) break;
      offset -= layout.dims[d] * layout.strides[d];
      index[d] = 0;
    }
  }
}

void copy_elements(const Layout& layout, std::size_t size, std::byte* strided, std::byte* dense,
                   bool gather) {
  for_each_element(layout, [&](std::int64_t offset, std::int64_t n) {
    std::byte* const there = strided + offset * static_cast<std::int64_t>(size);
    std::byte* const here = dense + static_cast<std::size_t>(n) * size;
    std::copy_n(gather ? there : here, size, gather ? here : there);
  });
}

Tensor converted(const Tensor& tensor, DType dtype) {
  if (tensor.dtype() == dtype) return tensor;
  return tensor.to(dtype);
}

}  // namespace

DType dtype_of_array(const tessera_array& array, const char* name) {
  switch (array.dtype) {
    case TESSERA_FP32:
      return DType::fp32;
    case TESSERA_BF16:
      return DType::bf16;
    case TESSERA_FP16:
      return DType::fp16;
    case TESSERA_FP64:
      return DType::fp64;
    case TESSERA_INT32:
      return DType::int32;
    case TESSERA_INT64:
      return DType::int64;
    case TESSERA_UINT8:
      return DType::uint8;
  }
  fail(Code::invalid_argument,
       fmt::format("`{}` has the unknown dtype {}", name, static_cast<int>(array.dtype)));
}

Tensor borrow(const tessera_array* array, const char* name) {
  const tessera_array& given = deref(array, name);
  const Layout layout = layout_of(given, name);
  TESSERA_CHECK(
      layout.contiguous, Code::invalid_argument,
      fmt::format("`{}` has strides with gaps or another order; it has to be contiguous", name));
  return over_memory(given, layout, name);
}

Tensor read(const tessera_array* array, DType dtype, const char* name) {
  const tessera_array& given = deref(array, name);
  const Layout layout = layout_of(given, name);
  Tensor there = over_memory(given, layout, name);
  TESSERA_CHECK(there.dtype() == dtype || (is_floating(there.dtype()) && is_floating(dtype)),
                Code::invalid_argument,
                fmt::format("`{}` is {}; {} is needed", name, to_string(there.dtype()),
                            is_floating(dtype) ? "a floating-point type" : to_string(dtype)));
  if (layout.contiguous) return converted(there, dtype);
  const Tensor dense(there.shape(), there.dtype(), {}, Purpose::workspace);
  copy_elements(layout, size_of(there.dtype()), there.as<std::byte>(), dense.as<std::byte>(), true);
  return converted(dense, dtype);
}

void write(const Tensor& source, const tessera_array* array, const char* name) {
  const tessera_array& given = deref(array, name);
  const Layout layout = layout_of(given, name);
  const Tensor there = over_memory(given, layout, name);
  TESSERA_CHECK(there.numel() == source.numel(), Code::invalid_argument,
                fmt::format("`{}` has shape {}, but there are {} values of shape {}", name,
                            there.shape().to_string(), source.numel(), source.shape().to_string()));
  TESSERA_CHECK(
      is_floating(there.dtype()), Code::invalid_argument,
      fmt::format("`{}` is {}; a floating-point type is needed", name, to_string(there.dtype())));
  const Tensor values = converted(source, there.dtype());
  copy_elements(layout, size_of(there.dtype()), there.as<std::byte>(), values.as<std::byte>(),
                false);
}

}  // namespace tessera::c
