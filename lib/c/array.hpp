// SPDX-License-Identifier: Apache-2.0
// Array descriptors of callers.
#pragma once

#include "tessera/tensor/tensor.hpp"
#include "tessera/tessera.h"

#include "c/handles.hpp"

namespace tessera::c {

// On a GPU the work of these is that of its current stream; what a caller does on other streams is
// done before.

DType dtype_of_array(const tessera_array& array, const char* name);

/// A contiguous array as a row-major tensor over the caller's memory; column-major dims are turned
/// round. Errors: invalid_argument for what cannot be, naming `name`, and for GPUs other than the
/// session's; not_supported where there is none.
Tensor borrow(const tessera_array* array, const char* name, Session& session);

/// Any strides: the caller's memory if it is contiguous and of the type, else a copy. For work on
/// `wanted`, to which arrays of a GPU are brought; those of the host stay.
Tensor read(const tessera_array* array, DType dtype, const char* name, Session& session,
            Device wanted);
/// Any strides, between any devices; converts, and waits. Errors: invalid_argument when the shapes'
/// elements differ in number.
void write(const Tensor& source, const tessera_array* array, const char* name, Session& session);

}  // namespace tessera::c
