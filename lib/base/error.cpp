// SPDX-License-Identifier: Apache-2.0
#include "tessera/base/error.hpp"

namespace tessera {

const char* to_string(Code code) {
  switch (code) {
    case Code::invalid_argument:
      return "invalid argument";
    case Code::invalid_config:
      return "invalid configuration";
    case Code::not_supported:
      return "not supported";
    case Code::out_of_memory:
      return "out of memory";
    case Code::io:
      return "input/output error";
    case Code::not_saved:
      return "not saved";
    case Code::mpi:
      return "MPI error";
    case Code::cuda:
      return "CUDA error";
    case Code::nccl:
      return "NCCL error";
    case Code::timeout:
      return "timeout";
    case Code::peer_failed:
      return "another rank failed";
    case Code::not_a_number:
      return "not a number";
    case Code::internal:
      return "internal error";
  }
  return "unknown error";
}

void fail(Code code, const std::string& message) {
  throw Error(code, message);
}

}  // namespace tessera
