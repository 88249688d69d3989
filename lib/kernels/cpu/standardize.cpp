// SPDX-License-Identifier: Apache-2.0
// Scaling of columns on the CPU.
#include "tessera/kernels/standardize.hpp"

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"

namespace tessera::kernels {

void standardize(const Stream& stream, const Standardize& args) {
  if (!stream.device().is_cpu()) return cuda::standardize(stream, args);
  parallel_rows(args.rows, args.columns, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row)
      for (std::int64_t c = 0; c < args.columns; ++c) {
        const std::int64_t i = row * args.columns + c;
        const auto x = static_cast<double>(args.x[i]);
        args.y[i] = static_cast<float>(args.inverse ? x * args.deviation[c] + args.mean[c]
                                                    : (x - args.mean[c]) / args.deviation[c]);
      }
  });
}

}  // namespace tessera::kernels
