// SPDX-License-Identifier: Apache-2.0
// Attention: argument checks, device dispatch, whose kernels compute it on a GPU.
#include "tessera/kernels/attention.hpp"

#include <atomic>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/kernels/gemm.hpp"

#include "kernels/cpu/attention.hpp"
#include "kernels/cuda/operations.hpp"

namespace tessera::kernels {
namespace {

/// Only of the CPU: the host does not see what a GPU's memory holds.
void check_lengths(const AttentionForward& args) {
  for (std::int64_t b = 0; b < args.batch; ++b)
    TESSERA_CHECK(args.lengths[b] >= 0 && args.lengths[b] <= args.keys, Code::invalid_argument,
                  fmt::format("attention: row {} has length {}, which is not in 0..{}", b,
                              args.lengths[b], args.keys));
}

void check(const Stream& stream, const AttentionForward& args) {
  TESSERA_CHECK(args.kv_heads > 0 && args.heads % args.kv_heads == 0, Code::invalid_argument,
                fmt::format("attention: {} heads cannot share {} key and value heads", args.heads,
                            args.kv_heads));
  TESSERA_CHECK(args.head_dim > 0 && args.head_dim <= 256, Code::not_supported,
                fmt::format("attention: head dimension {} is not in 1..256", args.head_dim));
  TESSERA_CHECK(args.keys > 0, Code::invalid_argument, "attention: there are no keys");
  TESSERA_CHECK(!args.causal || args.queries <= args.keys, Code::invalid_argument,
                fmt::format("causal attention: {} queries but only {} keys; the first queries "
                            "would see nothing",
                            args.queries, args.keys));
  TESSERA_CHECK(args.dropout >= 0 && args.dropout < 1, Code::invalid_argument,
                fmt::format("attention: dropout {} is not in [0, 1)", args.dropout));
  if (args.lengths == nullptr) return;
  TESSERA_CHECK(args.queries == args.keys, Code::invalid_argument,
                fmt::format("attention: rows with lengths need as many keys as queries, not {} and "
                            "{}",
                            args.keys, args.queries));
  if (stream.device().is_cpu()) check_lengths(args);
}

// Read by every call, set rarely.
std::atomic<AttentionKernels>& chosen() {
  static std::atomic<AttentionKernels> kernels{AttentionKernels::automatic};
  return kernels;
}

}  // namespace

void attention_forward(const Stream& stream, const AttentionForward& args) {
  check(stream, args);
  if (args.batch == 0 || args.queries == 0) return;
  if (stream.device().is_cpu())
    cpu::attention_forward(args);
  else if (!cuda::cudnn_attention_forward(stream, args))
    cuda::attention_forward(stream, args);
  add_flops(4 * args.batch * args.heads * args.queries * args.keys * args.head_dim);
}

void attention_backward(const Stream& stream, const AttentionBackward& args) {
  const AttentionForward& forward = args.forward;
  check(stream, forward);
  TESSERA_CHECK(forward.lse != nullptr, Code::invalid_argument,
                "attention_backward needs the lse of the forward pass");
  if (forward.batch == 0) return;
  if (stream.device().is_cpu())
    cpu::attention_backward(args);
  else if (!cuda::cudnn_attention_backward(stream, args))
    cuda::attention_backward(stream, args);
  add_flops(8 * forward.batch * forward.heads * forward.queries * forward.keys * forward.head_dim);
}

const char* to_string(AttentionKernels kernels) {
  switch (kernels) {
    case AttentionKernels::cudnn:
      return "cudnn";
    case AttentionKernels::own:
      return "own";
    default:
      return "auto";
  }
}

void set_attention_kernels(AttentionKernels kernels) {
  chosen().store(kernels);
}

AttentionKernels attention_kernels() {
  return chosen().load(std::memory_order_relaxed);
}

std::string cudnn_version() {
  return cuda::cudnn_version();
}

}  // namespace tessera::kernels
