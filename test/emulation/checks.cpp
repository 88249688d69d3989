// SPDX-License-Identifier: Apache-2.0
// Kernels are compiled with -fsanitize=bounds,alignment. Its checks call these functions, which the
// compiler's own library would define if programs were linked with it.
#include <cstdint>
#include <string>

#include <fmt/format.h>

#include "emulation/block.hpp"
#include "emulation/emulation.hpp"
#include "emulation/executor.hpp"
#include "emulation/memory.hpp"

namespace {

// As the compiler lays them out.
struct Place {
  const char* file;
  std::uint32_t line;
  std::uint32_t column;
};
struct Type {
  std::uint16_t kind;
  std::uint16_t details;
  char name[1];
};
struct IndexCheck {
  Place place;
  const Type* array;
  const Type* index;
};
struct PointerCheck {
  Place place;
  const Type* type;
  unsigned char log_alignment;
  unsigned char access;
};

void report(const Place& place, const std::string& what) {
  using namespace tessera::emulation;
  std::string file = place.file;
  file = file.substr(file.rfind('/') + 1);
  const std::string message = fmt::format("{} at {}:{}", what, file, place.line);
  if (in_kernel()) {
    running_block().fail(FaultKind::memory, message);
  }
  report_fault(FaultKind::memory, message);
}

}  // namespace

extern "C" {

void __ubsan_handle_out_of_bounds(IndexCheck* check, std::uintptr_t index) {
  report(check->place, fmt::format("index {} is outside of {}", static_cast<std::int64_t>(index),
                                   check->array->name));
}

void __ubsan_handle_type_mismatch_v1(PointerCheck* check, std::uintptr_t pointer) {
  const std::uintptr_t alignment = std::uintptr_t{1} << check->log_alignment;
  report(check->place, pointer == 0
                           ? fmt::format("a null pointer to {}", check->type->name)
                           : fmt::format("a pointer to {} is not a multiple of {}: {}",
                                         check->type->name, alignment,
                                         tessera::emulation::describe_address(
                                             reinterpret_cast<const void*>(pointer))));  // NOLINT
}

// Called instead where the build wants checks to end the program.
void __ubsan_handle_out_of_bounds_abort(IndexCheck* check, std::uintptr_t index) {
  __ubsan_handle_out_of_bounds(check, index);
}

void __ubsan_handle_type_mismatch_v1_abort(PointerCheck* check, std::uintptr_t pointer) {
  __ubsan_handle_type_mismatch_v1(check, pointer);
}

}  // extern "C"
