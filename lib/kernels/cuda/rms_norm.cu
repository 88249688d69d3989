// SPDX-License-Identifier: Apache-2.0
// Root-mean-square normalisation on a GPU.
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/operations.hpp"

namespace tessera::kernels::cuda {

void rms_norm_forward(const Stream& stream, const RmsNormForward& args) {
  dispatch_type(args.dtype, "rms_norm", [&]<typename T>(T) {
    norm_forward<false>(stream, NormForward<T>{.x = static_cast<const T*>(args.x),
                                               .weight = static_cast<const T*>(args.weight),
                                               .bias = nullptr,
                                               .y = static_cast<T*>(args.y),
                                               .mean = nullptr,
                                               .rstd = args.rstd,
                                               .rows = args.rows,
                                               .columns = args.columns,
                                               .epsilon = args.epsilon});
  });
}

void rms_norm_backward(const Stream& stream, const RmsNormBackward& args) {
  dispatch_type(args.dtype, "rms_norm", [&]<typename T>(T) {
    norm_backward<false>(stream, NormBackward<T>{.dy = static_cast<const T*>(args.dy),
                                                 .x = static_cast<const T*>(args.x),
                                                 .weight = static_cast<const T*>(args.weight),
                                                 .mean = nullptr,
                                                 .rstd = args.rstd,
                                                 .dx = static_cast<T*>(args.dx),
                                                 .accumulate_dx = args.accumulate_dx,
                                                 .dweight = args.dweight,
                                                 .dbias = nullptr,
                                                 .gradient_type = args.gradient_type,
                                                 .accumulate = args.accumulate,
                                                 .rows = args.rows,
                                                 .columns = args.columns});
  });
}

}  // namespace tessera::kernels::cuda
