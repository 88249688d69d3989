// SPDX-License-Identifier: Apache-2.0
// The handler of forbidden accesses. The first touch of an allocation by the device opens it, so
// that the price is paid for what is touched and not for what exists; every other access is a
// fault.
#include "emulation/protection.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <signal.h>
#include <ucontext.h>
#include <utility>

#include <fmt/format.h>

#include "emulation/block.hpp"
#include "emulation/emulation.hpp"
#include "emulation/executor.hpp"
#include "emulation/memory.hpp"

namespace tessera::emulation {

namespace {

std::atomic<const std::string*> device_work{nullptr};

struct Access {
  const void* address = nullptr;
  const void* instruction = nullptr;
  bool known_kind = false;
  bool is_write = false;
} forbidden;

struct sigaction former_segv, former_bus;

// Function and line from the debug information, if the tool for it is installed.
std::string place_of(const void* instruction) {
  Dl_info module{};
  if (dladdr(instruction, &module) == 0 || module.dli_fname == nullptr) {
    return fmt::format("instruction {}", instruction);
  }
  const auto offset = reinterpret_cast<std::uintptr_t>(instruction) -
                      reinterpret_cast<std::uintptr_t>(module.dli_fbase);
  const std::string command =
      fmt::format("addr2line -Cs -e '{}' {:#x} 2>/dev/null", module.dli_fname, offset);
  std::array<char, 512> line{};
  if (std::FILE* pipe = popen(command.c_str(), "r"); pipe != nullptr) {
    if (std::fgets(line.data(), static_cast<int>(line.size()), pipe) == nullptr) {
      line[0] = '\0';
    }
    pclose(pipe);
  }
  std::string text = line.data();
  text = text.substr(0, text.find_first_of(" \n"));
  if (text.empty() || text[0] == '?') {
    text = fmt::format("{}+{:#x}", module.dli_fname, offset);
  }
  return text;
}

std::string describe_access() {
  const char* verb = !forbidden.known_kind ? "touches" : forbidden.is_write ? "writes" : "reads";
  return fmt::format("{} memory at {}: {}", verb, place_of(forbidden.instruction),
                     describe_address(forbidden.address));
}

// Where execution goes on after a forbidden access, on a stack of its own: the kernel's may have
// run over.
[[noreturn]] void after_forbidden_access() {
  if (in_kernel()) {
    running_block().fail(FaultKind::memory, describe_access());
  }
  const std::string* work = device_work.load();
  std::fprintf(stderr, "emulated CUDA: %s %s\n",
               work == nullptr ? "the host, not the device," : work->c_str(),
               describe_access().c_str());
  std::abort();
}

alignas(64) std::array<std::byte, std::size_t{128} << 10> report_stack;

#ifdef __x86_64__
void go_on_with_report(ucontext_t& context) {
  auto& registers = context.uc_mcontext.gregs;
  constexpr greg_t kWriteBit = 2;
  forbidden.instruction = reinterpret_cast<const void*>(registers[REG_RIP]);
  forbidden.is_write = (registers[REG_ERR] & kWriteBit) != 0;
  forbidden.known_kind = true;
  registers[REG_RIP] = reinterpret_cast<greg_t>(&after_forbidden_access);
  // A function finds the stack 8 bytes off a multiple of 16.
  registers[REG_RSP] = reinterpret_cast<greg_t>(report_stack.data() + report_stack.size() - 8);
}
#else
[[noreturn]] void go_on_with_report(ucontext_t&) {
  after_forbidden_access();
}
#endif

void on_signal(int signal, siginfo_t* info, void* context) {
  const bool ours = is_emulated_memory(info->si_addr);
  if (ours && device_work.load() != nullptr && open_for_device(info->si_addr)) {
    return;
  }
  if (ours || in_kernel()) {
    forbidden = {.address = info->si_addr};
    go_on_with_report(*static_cast<ucontext_t*>(context));
    return;
  }
  // The access happens again when this returns, and meets the former handler.
  sigaction(signal, signal == SIGSEGV ? &former_segv : &former_bus, nullptr);
}

}  // namespace

DeviceSide::DeviceSide(const std::string& what) : outer_(device_work.exchange(&what)) {}

DeviceSide::~DeviceSide() {
  device_work = outer_;
}

HostSide::HostSide() : outer_(device_work.exchange(nullptr)) {
  close_device_memory();
}

HostSide::~HostSide() {
  device_work = outer_;
}

ClosesMemory::~ClosesMemory() {
  close_device_memory();
}

void watch_accesses() {
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &former_segv);
  sigaction(SIGBUS, &action, &former_bus);
}

void prepare_thread_for_faults() {
  thread_local std::array<std::byte, std::size_t{32} << 10> stack;
  thread_local bool prepared = false;
  if (!std::exchange(prepared, true)) {
    stack_t description{};
    sigaltstack(nullptr, &description);
    if ((description.ss_flags & SS_DISABLE) != 0) {
      description = {.ss_sp = stack.data(), .ss_flags = 0, .ss_size = stack.size()};
      sigaltstack(&description, nullptr);
    }
  }
}

}  // namespace tessera::emulation
