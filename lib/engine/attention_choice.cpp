// SPDX-License-Identifier: Apache-2.0
#include "engine/attention_choice.hpp"

#include <string>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::engine {
namespace {

/// Why cuDNN cannot compute it; empty: it can.
std::string objection(const config::RunConfig& config, Device device) {
  if (device.is_cpu()) return "this run computes on the CPU";
  if (kernels::cudnn_version().empty()) return "this build has none";
  if (config.engine.dtype == DType::fp32) return "it takes bf16 and fp16, and this run is fp32";
  return "";
}

}  // namespace

kernels::AttentionKernels choose_attention(const config::RunConfig& config, Device device) {
  using enum kernels::AttentionKernels;
  const std::string& wanted = config.run.attention;
  if (wanted == to_string(own)) return own;
  if (wanted != to_string(cudnn)) return automatic;
  const std::string reason = objection(config, device);
  TESSERA_CHECK(reason.empty(), Code::not_supported,
                fmt::format("run.attention: cudnn asks for cuDNN's attention, but {}; use "
                            "run.attention: auto",
                            reason));
  return cudnn;
}

std::string describe_attention(kernels::AttentionKernels kernels) {
  const std::string version = kernels::cudnn_version();
  if (kernels == kernels::AttentionKernels::own || version.empty()) return "own kernels";
  const bool alone = kernels == kernels::AttentionKernels::cudnn;
  return fmt::format("cuDNN {}{}", version,
                     alone ? "" : ", own kernels where it is not for a call");
}

}  // namespace tessera::engine
