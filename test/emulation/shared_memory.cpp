// SPDX-License-Identifier: Apache-2.0
// Static shared memory is the thread-local storage of the kernels' library; dynamic shared memory
// ends at a page that cannot be touched.
#include "emulation/shared_memory.hpp"

#include <cstdint>
#include <cstring>
#include <link.h>
#include <map>
#include <new>
#include <sys/mman.h>

#include "emulation/emulation.hpp"
#include "emulation/race.hpp"

namespace tessera::emulation {

namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kDynamicLimit = std::size_t{256} << 10;
constexpr std::size_t kDynamicAlignment = 16;

struct StaticPart {
  std::ptrdiff_t offset = 0;  // from the thread pointer: the same for all threads
  std::size_t bytes = 0;
};

struct Search {
  std::uintptr_t address;
  StaticPart found;
};

std::ptrdiff_t from_thread_pointer(const void* data) {
  return static_cast<const char*>(data) - static_cast<const char*>(__builtin_thread_pointer());
}

int inspect_module(dl_phdr_info* module, std::size_t, void* argument) {
  auto& search = *static_cast<Search*>(argument);
  bool inside = false;
  std::size_t bytes = 0;
  for (int i = 0; i < module->dlpi_phnum; ++i) {
    const auto& part = module->dlpi_phdr[i];
    const std::uintptr_t begin = module->dlpi_addr + part.p_vaddr;
    inside |=
        part.p_type == PT_LOAD && search.address >= begin && search.address < begin + part.p_memsz;
    bytes = part.p_type == PT_TLS ? part.p_memsz : bytes;
  }
  if (!inside) {
    return 0;
  }
  if (module->dlpi_name[0] == '\0') {
    report_fault(FaultKind::misuse,
                 "a kernel lies in the program itself, whose thread-local storage is not only "
                 "shared memory: put the kernels into a shared library of their own");
  } else if (bytes > 0 && module->dlpi_tls_data != nullptr) {
    search.found = {.offset = from_thread_pointer(module->dlpi_tls_data), .bytes = bytes};
  }
  return 1;
}

const StaticPart& static_part(const void* module) {
  static std::map<const void*, StaticPart> known;
  auto [place, is_new] = known.try_emplace(module);
  if (is_new) {
    Search search{.address = reinterpret_cast<std::uintptr_t>(module), .found = {}};
    dl_iterate_phdr(inspect_module, &search);
    place->second = search.found;
  }
  return place->second;
}

std::byte* map_dynamic_part() {
  void* pages = mmap(nullptr, kDynamicLimit + 2 * kPageBytes, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) {
    throw std::bad_alloc();
  }
  auto* begin = static_cast<std::byte*>(pages) + kPageBytes;
  mprotect(begin, kDynamicLimit, PROT_READ | PROT_WRITE);
  return begin + kDynamicLimit;
}

std::byte* dynamic_end() {
  thread_local std::byte* const end = map_dynamic_part();  // kept: threads of streams are few
  return end;
}

thread_local std::byte* dynamic_begin = nullptr;

}  // namespace

void poison_shared_memory(const void* module, std::size_t dynamic_bytes) {
  const race::Unwatched unwatched;
  const StaticPart& part = static_part(module);
  std::memset(static_cast<char*>(__builtin_thread_pointer()) + part.offset, 0xFF, part.bytes);
  const std::size_t bytes =
      (dynamic_bytes + kDynamicAlignment - 1) / kDynamicAlignment * kDynamicAlignment;
  dynamic_begin = dynamic_end() - bytes;
  std::memset(dynamic_begin, 0xFF, bytes);
}

void* dynamic_shared_memory() {
  return dynamic_begin;
}

}  // namespace tessera::emulation
