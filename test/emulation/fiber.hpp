// SPDX-License-Identifier: Apache-2.0
// Contexts of execution that switch by hand, and their stacks.
#pragma once

#include <cstddef>
#include <vector>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace tessera::emulation {

#ifdef __x86_64__
struct Context {
  void* stack_pointer = nullptr;
};
#else
struct Context {
  ucontext_t state;
};
#endif

struct Stack {
  std::byte* lowest = nullptr;
  std::byte* top = nullptr;
};

/// Saves where the caller is in `from` and goes on where `to` was saved.
void switch_context(Context& from, const Context& to);

/// Makes `context` begin with entry() on `stack`; entry must never return.
void prepare_context(Context& context, const Stack& stack, void (*entry)());

/// Stacks of one size with a guard page below, kept for reuse; the last one given back comes first,
/// because it is still in the cache.
class StackPool {
 public:
  StackPool() = default;
  StackPool(const StackPool&) = delete;
  StackPool& operator=(const StackPool&) = delete;
  ~StackPool();

  Stack take();
  void give_back(Stack stack) { free_.push_back(stack); }

 private:
  std::vector<std::byte*> mapped_;
  std::vector<Stack> free_;
};

}  // namespace tessera::emulation
