// SPDX-License-Identifier: Apache-2.0
// Signals that arrive during a product: their handlers run on the stacks of threads, never in the
// heap, where the stack pointer of a matrix kernel may be.
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>
#include <omp.h>

#include "tessera/kernels/gemm.hpp"

#include "support/kernel_testing.hpp"

namespace tessera::kernels {
namespace {

using namespace tessera::testing;

thread_local std::uintptr_t stack_of_thread = 0;
std::atomic<int> handled{0}, outside_of_stack{0};

std::uintptr_t here() {
  return reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
}

void on_signal(int) {
  ++handled;
  if (stack_of_thread == 0) return;
  const auto distance = static_cast<std::intptr_t>(here() - stack_of_thread);
  if (std::abs(distance) > (256 << 10)) ++outside_of_stack;
}

// Sends SIGUSR2 to every other thread of this process while it lives.
class Bombardment {
 public:
  Bombardment() {
    std::signal(SIGUSR2, on_signal);
    sender_ = std::thread([this] {
      const auto self = syscall(SYS_gettid);
      while (!done_)
        for (const auto& task : std::filesystem::directory_iterator("/proc/self/task"))
          if (const long id = std::stol(task.path().filename()); id != self)
            syscall(SYS_tgkill, getpid(), id, SIGUSR2);
    });
  }
  ~Bombardment() {
    done_ = true;
    sender_.join();
    std::signal(SIGUSR2, SIG_IGN);
  }

 private:
  std::atomic<bool> done_{false};
  std::thread sender_;
};

constexpr std::int64_t kRows = 256, kOut = 257, kPadded = 272, kIn = 32;

// The gradients of the weights and the inputs of a small linear layer. Rows that are not packed
// keep oneDNN from the one of its implementations that always had a stack.
std::vector<Gemm> products(const TypedArray& output_grad, const TypedArray& other, TypedArray& c) {
  const auto product = [&](std::int64_t m, std::int64_t k, bool transpose_a) {
    return Gemm{.a = output_grad.data(),
                .b = other.data(),
                .c = c.data(),
                .m = m,
                .n = kIn,
                .k = k,
                .transpose_a = transpose_a,
                .lda = kPadded,
                .ldb = kIn,
                .ldc = kIn,
                .beta = transpose_a ? 1.0F : 0.0F};
  };
  return {product(kOut, kRows, true), product(kRows, kOut, false)};
}

TEST(GemmSignalsTest, HandlersRunOnTheStacksOfThreads) {
#pragma omp parallel
  stack_of_thread = here();
  const auto output_grad = random_array(DType::fp32, kRows * kPadded, 1);
  const auto other = random_array(DType::fp32, kOut * kIn, 2);
  auto c = random_array(DType::fp32, kOut * kIn, 3);
  const Stream stream;
  {
    const Bombardment bombardment;
    for (int i = 0; i < 2000 && outside_of_stack == 0; ++i)
      for (const Gemm& product : products(output_grad, other, c)) gemm(stream, product);
  }
  EXPECT_GT(handled, 0);
  EXPECT_EQ(outside_of_stack, 0);
}

}  // namespace
}  // namespace tessera::kernels
