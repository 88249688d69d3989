// SPDX-License-Identifier: Apache-2.0
// What stands in for cuDNN's attention in builds without it.
#include "tessera/base/error.hpp"

#include "kernels/cuda/operations.hpp"

namespace tessera::kernels::cuda {
namespace {

bool refuse() {
  TESSERA_CHECK(attention_kernels() != AttentionKernels::cudnn, Code::not_supported,
                "cuDNN's attention was asked for, and this build has none: let the kernels be "
                "chosen (run.attention: auto), or configure with -DTESSERA_ENABLE_CUDNN=on where "
                "cuDNN is installed");
  return false;
}

}  // namespace

std::string cudnn_version() {
  return "";
}
bool cudnn_attention_forward(const Stream&, const AttentionForward&) {
  return refuse();
}
bool cudnn_attention_backward(const Stream&, const AttentionBackward&) {
  return refuse();
}

}  // namespace tessera::kernels::cuda
