// SPDX-License-Identifier: Apache-2.0
// The border: exceptions become codes, handles and option structs are checked on the way in.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/tessera.h"

/// Keeps the message of the exception that is being handled for tessera_last_error(); returns its
/// code. Exported, as nothing else that is no part of the interface, for lib/fortran.
extern "C" TESSERA_API tessera_code tessera_keep_exception() noexcept;

namespace tessera::c {

/// What body() throws becomes a code. All that lib/fortran may use of this file.
template <typename Body>
tessera_code as_code(Body&& body) noexcept {
  try {
    body();
    return TESSERA_OK;
  } catch (...) {
    return tessera_keep_exception();
  }
}

/// While one lives, OpenMP regions of this thread have no more threads than limit_threads() said.
/// The host's own keep theirs, but for those in functions that we call.
class LimitedThreads {
 public:
  LimitedThreads() noexcept;
  ~LimitedThreads();
  LimitedThreads(const LimitedThreads&) = delete;
  LimitedThreads& operator=(const LimitedThreads&) = delete;

 private:
  int before_;
  bool limited_;
};
/// For all calls from now on: where OMP_NUM_THREADS leaves it open, the node's cores divided among
/// its ranks. More would spin in each other's way.
void limit_threads(int ranks_of_node);

/// Every function of the interface is one of these.
template <typename Body>
tessera_code guard(Body&& body) noexcept {
  const LimitedThreads limited;
  return as_code(body);
}

/// What a pointer points to.
template <typename T>
T& deref(T* pointer, const char* name) {
  TESSERA_CHECK(pointer != nullptr, Code::invalid_argument, fmt::format("`{}` is NULL", name));
  return *pointer;
}

inline std::string text_of(const char* text, const char* fallback = "") {
  return text != nullptr ? text : fallback;
}

/// Makes a handle from what `make` returns.
template <typename Handle, typename Make>
tessera_code create(Handle** handle, Make&& make) noexcept {
  return guard([&] {
    deref(handle, "the place of the new handle") = nullptr;
    *handle = new Handle{make()};
  });
}

template <typename Handle>
tessera_code destroy(Handle** handle) noexcept {
  return guard([&] {
    if (handle != nullptr) delete std::exchange(*handle, nullptr);
  });
}

/// The size that the caller compiled with. Errors: invalid_argument if it was forgotten.
template <typename Struct>
std::size_t size_of_struct(const Struct& given, const char* name) {
  TESSERA_CHECK(given.struct_size >= sizeof(std::size_t) && given.struct_size <= 4096,
                Code::invalid_argument,
                fmt::format("{}.struct_size is {}; begin with `{} options = {{sizeof options}};`",
                            name, given.struct_size, name));
  return given.struct_size;
}

/// A caller's options as this library knows them: older ones are shorter and the rest is zero.
/// Errors: not_supported where a newer caller set something that is unknown here.
template <typename Struct>
Struct options_of(const Struct* given, const char* name) {
  Struct options{};
  if (given == nullptr) return options;
  const std::size_t size = size_of_struct(*given, name);
  std::memcpy(&options, given, std::min(size, sizeof options));
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (std::size_t i = sizeof options; i < size; ++i)
    TESSERA_CHECK(
        bytes[i] == 0, Code::not_supported,
        fmt::format("{} sets an option that this version of Tessera does not know", name));
  return options;
}

/// Fills a caller's output struct as far as the caller knows it; NULL: not wanted.
template <typename Struct>
void give(Struct* target, Struct value, const char* name) {
  if (target == nullptr) return;
  value.struct_size = size_of_struct(*target, name);
  std::memcpy(target, &value, std::min(value.struct_size, sizeof value));
}

}  // namespace tessera::c
