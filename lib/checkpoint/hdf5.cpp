// SPDX-License-Identifier: Apache-2.0
// Handles, types and attributes over HDF5's C interface.
#include "checkpoint/hdf5.hpp"

#include <cstdlib>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::checkpoint::hdf5 {
namespace {

constexpr const char* kChecksum = "checksum";

/// The innermost entry of HDF5's error stack says what really happened.
std::string reason() {
  std::string text;
  const auto take_first = [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
    if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, &text);
  return text.empty() ? "unknown reason" : text;
}

Handle scalar_space() {
  return {H5Screate(H5S_SCALAR), H5Sclose, "create a scalar space"};
}

Handle text_type() {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "copy a type");
  check(H5Tset_size(type.id(), H5T_VARIABLE), "make a text type");
  check(H5Tset_cset(type.id(), H5T_CSET_UTF8), "make a text type");
  return type;
}

Handle open_or_create(hid_t object, const char* name, hid_t type) {
  const std::string what = fmt::format("write attribute {}", name);
  if (H5Aexists(object, name) > 0) return {H5Aopen(object, name, H5P_DEFAULT), H5Aclose, what};
  const Handle space = scalar_space();
  return {H5Acreate2(object, name, type, space.id(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose, what};
}

Handle open_scalar(hid_t object, const char* name) {
  const std::string what = fmt::format("read attribute {}", name);
  Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose, what);
  const Handle space(H5Aget_space(attribute.id()), H5Sclose, what);
  TESSERA_CHECK(H5Sget_simple_extent_npoints(space.id()) == 1, Code::io,
                fmt::format("cannot {}: it is not a single value", what));
  return attribute;
}

/// A 16-bit float with `mantissa` bits below `exponent` bits.
Handle narrow_float(std::size_t exponent, std::size_t mantissa, std::size_t bias) {
  Handle type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose, "copy a type");
  check(H5Tset_fields(type.id(), 15, mantissa, exponent, 0, mantissa), "make a 16-bit type");
  check(H5Tset_precision(type.id(), 16), "make a 16-bit type");
  check(H5Tset_size(type.id(), 2), "make a 16-bit type");
  check(H5Tset_ebias(type.id(), bias), "make a 16-bit type");
  return type;
}

}  // namespace

Quiet::Quiet() {
  H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}
Quiet::~Quiet() {
  H5Eset_auto2(H5E_DEFAULT, function_, data_);
}

Handle::Handle(hid_t id, Close closer, const std::string& what) : id_(id), close_(closer) {
  TESSERA_CHECK(id >= 0, Code::io, fmt::format("cannot {}: {}", what, reason()));
}
Handle::~Handle() {
  if (id_ >= 0) close_(id_);
}
void Handle::close(const std::string& what) {
  if (id_ >= 0) check(close_(std::exchange(id_, -1)), what);
}

void check(herr_t status, const std::string& what) {
  TESSERA_CHECK(status >= 0, Code::io, fmt::format("cannot {}: {}", what, reason()));
}

Handle file_type(DType dtype) {
  const auto copy = [](hid_t type) { return Handle(H5Tcopy(type), H5Tclose, "copy a type"); };
  switch (dtype) {
    case DType::fp32:
      return copy(H5T_IEEE_F32LE);
    case DType::fp64:
      return copy(H5T_IEEE_F64LE);
    case DType::bf16:
      return narrow_float(8, 7, 127);
    case DType::fp16:
      return narrow_float(5, 10, 15);
    case DType::int32:
      return copy(H5T_STD_I32LE);
    case DType::int64:
      return copy(H5T_STD_I64LE);
    case DType::uint8:
      return copy(H5T_STD_U8LE);
  }
  fail(Code::internal, "a DType without a type in files");
}

DType dtype_of_type(hid_t type, const std::string& what) {
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16, DType::fp64, DType::int32,
                            DType::int64, DType::uint8})
    if (H5Tequal(type, file_type(dtype).id()) > 0) return dtype;
  fail(Code::io, fmt::format("{} has a type that is not one of this format", what));
}

void write_text_attribute(hid_t object, const char* name, const std::string& value) {
  const Handle type = text_type();
  const Handle attribute = open_or_create(object, name, type.id());
  const char* text = value.c_str();
  check(H5Awrite(attribute.id(), type.id(), static_cast<const void*>(&text)),
        fmt::format("write attribute {}", name));
}

std::string read_text_attribute(hid_t object, const char* name) {
  const Handle attribute = open_scalar(object, name);
  const std::string what = fmt::format("read attribute {}", name);
  const Handle stored(H5Aget_type(attribute.id()), H5Tclose, what);
  TESSERA_CHECK(H5Tget_class(stored.id()) == H5T_STRING && H5Tis_variable_str(stored.id()) > 0,
                Code::io, fmt::format("cannot {}: it is not a text", what));
  const Handle type = text_type();
  char* text = nullptr;
  check(H5Aread(attribute.id(), type.id(), static_cast<void*>(&text)), what);
  const std::string value = text != nullptr ? text : "";
  H5free_memory(text);
  return value;
}

void write_integer_attribute(hid_t object, const char* name, std::int64_t value) {
  const Handle attribute = open_or_create(object, name, H5T_STD_I64LE);
  check(H5Awrite(attribute.id(), H5T_NATIVE_INT64, &value),
        fmt::format("write attribute {}", name));
}

std::int64_t read_integer_attribute(hid_t object, const char* name) {
  const Handle attribute = open_scalar(object, name);
  std::int64_t value = 0;
  check(H5Aread(attribute.id(), H5T_NATIVE_INT64, &value), fmt::format("read attribute {}", name));
  return value;
}

void write_checksum_attribute(hid_t object, std::uint64_t value) {
  const Handle attribute = open_or_create(object, kChecksum, H5T_STD_U64LE);
  check(H5Awrite(attribute.id(), H5T_NATIVE_UINT64, &value), "write a checksum");
}

std::uint64_t read_checksum_attribute(hid_t object) {
  const Handle attribute = open_scalar(object, kChecksum);
  std::uint64_t value = 0;
  check(H5Aread(attribute.id(), H5T_NATIVE_UINT64, &value), "read a checksum");
  return value;
}

}  // namespace tessera::checkpoint::hdf5
