// SPDX-License-Identifier: Apache-2.0
#include "c/array.hpp"

#include <algorithm>
#include <vector>

#include "tessera/device/cuda.hpp"
#include "tessera/kernels/copy_blocks.hpp"

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

tessera_device described_device(const tessera_array& array, const Session& session) {
  if (array.device.type != TESSERA_DEVICE_OF_ADDRESS) return array.device;
  if (!session.uses_gpu()) return {TESSERA_CPU, 0};
  const Device found = device_of_address(array.data);
  return {found.is_cpu() ? TESSERA_CPU : TESSERA_CUDA_DEVICE, found.index};
}

Device device_of(const tessera_array& array, const char* name, Session& session) {
  const auto [type, index] = described_device(array, session);
  if (type == TESSERA_CPU) return {};
  TESSERA_CHECK(type == TESSERA_CUDA_DEVICE, Code::invalid_argument,
                fmt::format("`{}` lies on a device of type {}, which is neither TESSERA_CPU, "
                            "TESSERA_CUDA_DEVICE nor TESSERA_DEVICE_OF_ADDRESS",
                            name, static_cast<int>(type)));
  TESSERA_CHECK(cuda_device_count() > 0, Code::not_supported,
                fmt::format("`{}` lies on cuda:{}, but {}; give an array of the host", name, index,
                            cuda_unavailable_reason()));
  const Device own = session.gpu();
  TESSERA_CHECK(index == own.index, Code::invalid_argument,
                fmt::format("`{}` lies on cuda:{}, but this rank's GPU is {}: a rank uses one, "
                            "which tessera_runtime_options.gpu can choose",
                            name, index, own.to_string()));
  return own;
}

Tensor over_memory(const tessera_array& array, const Layout& layout, const char* name,
                   Session& session) {
  const Device device = device_of(array, name, session);
  Shape shape(layout.dims);
  TESSERA_CHECK(array.data != nullptr || shape.numel() == 0, Code::invalid_argument,
                fmt::format("`{}` has shape {} but its data is NULL", name, shape.to_string()));
  return Tensor::borrow(array.data, std::move(shape), dtype_of_array(array, name), device);
}

Stream stream_of(const Tensor& tensor) {
  return current_stream(tensor.device());
}

struct Extent {
  std::int64_t size = 1, stride = 0;
};

/// Without dimensions of one; two that lie as one are one.
std::vector<Extent> extents_of(const Layout& layout) {
  std::vector<Extent> extents;
  for (std::size_t d = 0; d < layout.dims.size(); ++d) {
    const Extent next{layout.dims[d], layout.strides[d]};
    if (next.size == 1) continue;
    if (!extents.empty() && extents.back().stride == next.stride * next.size)
      extents.back() = {extents.back().size * next.size, next.stride};
    else
      extents.push_back(next);
  }
  return extents;
}

Extent take_fastest(std::vector<Extent>& extents) {
  if (extents.empty()) return {};
  const Extent fastest = extents.back();
  extents.pop_back();
  return fastest;
}

/// Calls visit(offset in the array, number) for every index of the extents, row-major.
template <typename Visit>
void for_each_index(const std::vector<Extent>& extents, Visit&& visit) {
  std::int64_t count = 1;
  for (const Extent& extent : extents) count *= extent.size;
  std::vector<std::int64_t> index(extents.size(), 0);
  std::int64_t offset = 0;
  for (std::int64_t n = 0; n < count; ++n) {
    visit(offset, n);
    for (std::size_t d = index.size(); d-- > 0;) {
      offset += extents[d].stride;
      if (++index[d] < extents[d].size) break;
      offset -= extents[d].size * extents[d].stride;
      index[d] = 0;
    }
  }
}

enum class Way { gather, scatter };

/// Between the caller's places and a dense array: the fastest dimensions in a call, the others one
/// after the other.
void copy_elements(const Layout& layout, const Tensor& strided, const Tensor& dense, Way way) {
  if (dense.numel() == 0) return;
  std::vector<Extent> extents = extents_of(layout);
  const bool has_runs = !extents.empty() && extents.back().stride == 1;
  const Extent run = has_runs ? take_fastest(extents) : Extent{};
  const Extent rows = take_fastest(extents), blocks = take_fastest(extents);
  const std::int64_t block = rows.size * run.size, piece = blocks.size * block;
  const auto size = static_cast<std::int64_t>(size_of(dense.dtype()));
  const kernels::BlockStrides apart{blocks.stride, rows.stride}, together{block, run.size};
  for_each_index(extents, [&](std::int64_t offset, std::int64_t n) {
    std::byte* const there = strided.as<std::byte>() + offset * size;
    std::byte* const here = dense.as<std::byte>() + n * piece * size;
    const bool gathers = way == Way::gather;
    kernels::copy_blocks(stream_of(dense), {.source = gathers ? there : here,
                                            .target = gathers ? here : there,
                                            .blocks = blocks.size,
                                            .rows = rows.size,
                                            .count = run.size,
                                            .source_strides = gathers ? apart : together,
                                            .target_strides = gathers ? together : apart,
                                            .dtype = dense.dtype()});
  });
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

Tensor borrow(const tessera_array* array, const char* name, Session& session) {
  const tessera_array& given = deref(array, name);
  const Layout layout = layout_of(given, name);
  TESSERA_CHECK(
      layout.contiguous, Code::invalid_argument,
      fmt::format("`{}` has strides with gaps or another order; it has to be contiguous", name));
  return over_memory(given, layout, name, session);
}

Tensor read(const tessera_array* array, DType dtype, const char* name, Session& session,
            Device wanted) {
  const tessera_array& given = deref(array, name);
  const Layout layout = layout_of(given, name);
  Tensor values = over_memory(given, layout, name, session);
  TESSERA_CHECK(values.dtype() == dtype || (is_floating(values.dtype()) && is_floating(dtype)),
                Code::invalid_argument,
                fmt::format("`{}` is {}; {} is needed", name, to_string(values.dtype()),
                            is_floating(dtype) ? "a floating-point type" : to_string(dtype)));
  const Stream stream = stream_of(values);
  if (!layout.contiguous) {
    const Tensor dense(values.shape(), values.dtype(), values.device(), Purpose::workspace);
    copy_elements(layout, values, dense, Way::gather);
    values = dense;
  }
  values = values.to(dtype, stream);
  return wanted.is_cpu() ? values.on_host(stream) : values;
}

void write(const Tensor& source, const tessera_array* array, const char* name, Session& session) {
  const tessera_array& given = deref(array, name);
  const Layout layout = layout_of(given, name);
  const Tensor there = over_memory(given, layout, name, session);
  TESSERA_CHECK(there.numel() == source.numel(), Code::invalid_argument,
                fmt::format("`{}` has shape {}, but there are {} values of shape {}", name,
                            there.shape().to_string(), source.numel(), source.shape().to_string()));
  TESSERA_CHECK(
      is_floating(there.dtype()), Code::invalid_argument,
      fmt::format("`{}` is {}; a floating-point type is needed", name, to_string(there.dtype())));
  const Stream stream = stream_of(there);
  Tensor values = source.to(there.dtype(), stream_of(source));
  values = there.device().is_cpu() ? values.on_host(stream_of(values)) : values.on(stream);
  copy_elements(layout, there, values, Way::scatter);
  stream.synchronize();
}

}  // namespace tessera::c
