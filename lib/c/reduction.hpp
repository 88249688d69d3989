// SPDX-License-Identifier: Apache-2.0
// Reductions as C names them.
#pragma once

#include "tessera/comm/communicator.hpp"

#include "c/guard.hpp"

namespace tessera::c {

inline Reduction reduction_of(tessera_reduction reduction) {
  switch (reduction) {
    case TESSERA_SUM:
      return Reduction::sum;
    case TESSERA_MEAN:
      return Reduction::mean;
    case TESSERA_MIN:
      return Reduction::min;
    case TESSERA_MAX:
      return Reduction::max;
  }
  fail(Code::invalid_argument,
       fmt::format("the reduction {} is unknown", static_cast<int>(reduction)));
}

}  // namespace tessera::c
