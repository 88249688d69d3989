// SPDX-License-Identifier: Apache-2.0
// HDF5's C interface with owned handles and errors as exceptions.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include <hdf5.h>

#include "tessera/base/dtype.hpp"

namespace tessera::checkpoint::hdf5 {

/// While one lives HDF5 prints nothing; the application's own setting comes back after it.
class Quiet {
 public:
  Quiet();
  ~Quiet();
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

/// Owns an identifier of any kind.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);

  Handle() = default;
  /// Takes over `id`; throws io with HDF5's own reason if it is negative. `what` says what was
  /// tried: "create dataset x in y".
  Handle(hid_t id, Close closer, const std::string& what);
  Handle(Handle&& other) noexcept
      : id_(std::exchange(other.id_, -1)), close_(std::exchange(other.close_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle();

  hid_t id() const { return id_; }
  /// Closes now and reports a failure, which a destructor cannot.
  void close(const std::string& what);

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
};

/// Throws io with HDF5's own reason if `status` is negative.
void check(herr_t status, const std::string& what);

/// The type in a file for a DType, little endian.
Handle file_type(DType dtype);
/// The DType of a type in a file. Errors: io with `what`.
DType dtype_of_type(hid_t type, const std::string& what);

void write_text_attribute(hid_t object, const char* name, const std::string& value);
std::string read_text_attribute(hid_t object, const char* name);
/// Creates the attribute if it is not there.
void write_integer_attribute(hid_t object, const char* name, std::int64_t value);
std::int64_t read_integer_attribute(hid_t object, const char* name);
/// Unsigned, for checksums.
void write_checksum_attribute(hid_t object, std::uint64_t value);
std::uint64_t read_checksum_attribute(hid_t object);

}  // namespace tessera::checkpoint::hdf5
