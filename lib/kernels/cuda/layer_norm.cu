// SPDX-License-Identifier: Apache-2.0
// Layer normalisation on a GPU.
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/operations.hpp"

namespace tessera::kernels::cuda {

void layer_norm_forward(const Stream& stream, const LayerNormForward& args) {
  dispatch_type(args.dtype, "layer_norm", [&]<typename T>(T) {
    norm_forward<true>(stream, NormForward<T>{.x = static_cast<const T*>(args.x),
                                              .weight = static_cast<const T*>(args.weight),
                                              .bias = static_cast<const T*>(args.bias),
                                              .y = static_cast<T*>(args.y),
                                              .mean = args.mean,
                                              .rstd = args.rstd,
                                              .rows = args.rows,
                                              .columns = args.columns,
                                              .epsilon = args.epsilon,
                                              .residual = static_cast<const T*>(args.residual),
                                              .sum = static_cast<T*>(args.sum)});
  });
}

void layer_norm_backward(const Stream& stream, const LayerNormBackward& args) {
  dispatch_type(args.dtype, "layer_norm", [&]<typename T>(T) {
    norm_backward<true>(stream, NormBackward<T>{.dy = static_cast<const T*>(args.dy),
                                                .x = static_cast<const T*>(args.x),
                                                .weight = static_cast<const T*>(args.weight),
                                                .mean = args.mean,
                                                .rstd = args.rstd,
                                                .dx = static_cast<T*>(args.dx),
                                                .accumulate_dx = args.accumulate_dx,
                                                .dweight = args.dweight,
                                                .dbias = args.dbias,
                                                .gradient_type = args.gradient_type,
                                                .accumulate = args.accumulate,
                                                .rows = args.rows,
                                                .columns = args.columns});
  });
}

}  // namespace tessera::kernels::cuda
