// SPDX-License-Identifier: Apache-2.0
// run.attention: what it chooses, and what it refuses before a run begins.
#include "engine/attention_choice.hpp"

#include <string>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

namespace tessera::engine {
namespace {

using kernels::AttentionKernels;

config::RunConfig run_with(const std::string& attention, DType dtype = DType::bf16) {
  config::RunConfig config;
  config.run.attention = attention;
  config.engine.dtype = dtype;
  return config;
}

std::string refusal(const config::RunConfig& config, Device device) {
  try {
    choose_attention(config, device);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::not_supported);
    return error.what();
  }
  return "";
}

const Device kGpu{DeviceType::cuda, 0};

TEST(AttentionChoice, IsTheRunFiles) {
  EXPECT_EQ(choose_attention(run_with("auto"), {}), AttentionKernels::automatic);
  EXPECT_EQ(choose_attention(run_with("own"), kGpu), AttentionKernels::own);
  if (!kernels::cudnn_version().empty()) {
    EXPECT_EQ(choose_attention(run_with("cudnn"), kGpu), AttentionKernels::cudnn);
  }
}

TEST(AttentionChoice, OfCudnnNeedsAGpuABuildAndAType) {
  EXPECT_NE(refusal(run_with("cudnn"), {}).find("on the CPU"), std::string::npos);
  const bool has = !kernels::cudnn_version().empty();
  EXPECT_EQ(refusal(run_with("cudnn"), kGpu).find("this build has none") == std::string::npos, has);
  EXPECT_NE(refusal(run_with("cudnn", DType::fp32), kGpu), "");
}

TEST(AttentionChoice, IsDescribed) {
  EXPECT_EQ(describe_attention(AttentionKernels::own), "own kernels");
  const std::string version = kernels::cudnn_version();
  EXPECT_EQ(describe_attention(AttentionKernels::cudnn),
            version.empty() ? "own kernels" : "cuDNN " + version);
  EXPECT_NE(describe_attention(AttentionKernels::automatic).find("own kernels"), std::string::npos);
}

}  // namespace
}  // namespace tessera::engine
