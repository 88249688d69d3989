// SPDX-License-Identifier: Apache-2.0
// Array descriptors of callers.
#pragma once

#include "tessera/tensor/tensor.hpp"
#include "tessera/tessera.h"

namespace tessera::c {

DType dtype_of_array(const tessera_array& array, const char* name);

/// A contiguous array as a row-major tensor over the caller's memory; column-major dims are turned
/// round. Errors: invalid_argument for what cannot be, naming `name`; not_supported for devices.
Tensor borrow(const tessera_array* array, const char* name);

/// Any strides: the caller's memory if it is contiguous and of the type, else a copy.
Tensor read(const tessera_array* array, DType dtype, const char* name);
/// Any strides; converts. Errors: invalid_argument when the shapes' elements differ in number.
void write(const Tensor& source, const tessera_array* array, const char* name);

}  // namespace tessera::c
