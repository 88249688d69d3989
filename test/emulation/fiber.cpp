// SPDX-License-Identifier: Apache-2.0
// The context switch and the pool of stacks.
#include "emulation/fiber.hpp"

#include <cstdint>
#include <new>
#include <sys/mman.h>

namespace tessera::emulation {

namespace {

constexpr std::size_t kStackBytes = std::size_t{256} << 10;
constexpr std::size_t kPageBytes = 4096;

}  // namespace

#ifdef __x86_64__

// Only what the calling convention preserves is saved; the floating-point control words never
// change. ucontext would make a system call for the signal mask at every switch, which is 40 times
// slower.
asm(R"(
    .text
    .p2align 4
    .local tessera_emulation_switch
    .type tessera_emulation_switch, @function
tessera_emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size tessera_emulation_switch, . - tessera_emulation_switch
)");
extern "C" void tessera_emulation_switch(void** from, void* to);

void switch_context(Context& from, const Context& to) {
  tessera_emulation_switch(&from.stack_pointer, to.stack_pointer);
}

void prepare_context(Context& context, const Stack& stack, void (*entry)()) {
  constexpr int kSavedRegisters = 6;
  auto* top = reinterpret_cast<std::uintptr_t*>(stack.top);
  // A function finds the stack 8 bytes off a multiple of 16; the 0 there ends stack traces.
  *--top = 0;
  *--top = reinterpret_cast<std::uintptr_t>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) {
    *--top = 0;
  }
  context.stack_pointer = top;
}

#else

void switch_context(Context& from, const Context& to) {
  swapcontext(&from.state, &to.state);
}

void prepare_context(Context& context, const Stack& stack, void (*entry)()) {
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = stack.lowest;
  context.state.uc_stack.ss_size = static_cast<std::size_t>(stack.top - stack.lowest);
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
}

#endif

StackPool::~StackPool() {
  for (std::byte* pages : mapped_) {
    munmap(pages, kStackBytes + kPageBytes);
  }
}

Stack StackPool::take() {
  if (!free_.empty()) {
    Stack stack = free_.back();
    free_.pop_back();
    return stack;
  }
  void* pages = mmap(nullptr, kStackBytes + kPageBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) {
    throw std::bad_alloc();
  }
  mprotect(pages, kPageBytes, PROT_NONE);
  auto* lowest = static_cast<std::byte*>(pages) + kPageBytes;
  // Tops at the same distance from a page would all fall into the same few sets of the cache.
  const std::size_t stagger = (mapped_.size() % 61) * 64;
  mapped_.push_back(static_cast<std::byte*>(pages));
  return {.lowest = lowest, .top = lowest + kStackBytes - stagger};
}

}  // namespace tessera::emulation
