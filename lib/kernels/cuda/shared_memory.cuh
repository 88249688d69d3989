// SPDX-License-Identifier: Apache-2.0
// Dynamic shared memory under one name for all kernels, whatever its type.
#pragma once

/// Declares `T* name`, the block's dynamic shared memory, aligned to 16 bytes. The emulation brings
/// a macro of its own.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(T, name)                                                  \
  extern __shared__ __align__(16) unsigned char tessera_dynamic_shared_memory[]; \
  T* const name = reinterpret_cast<T*>(tessera_dynamic_shared_memory)
#endif
