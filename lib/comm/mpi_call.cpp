// SPDX-License-Identifier: Apache-2.0
// MPI's error codes as exceptions, and owners of MPI handles.
#include "comm/mpi_call.hpp"

#include <string>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

#include "comm/limits.hpp"

namespace tessera::comm {

Limits& limits() {
  static Limits instance;
  return instance;
}

void check_mpi(int result, const char* call) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(result, text, &length);
  fail(Code::mpi,
       fmt::format("{} failed: {}", call, std::string(text, static_cast<std::size_t>(length))));
}

// Not by MPI_Comm_dup, which would call the copy functions of the host's attributes.
OwnedComm duplicate(MPI_Comm source) {
  MPI_Group ranks = MPI_GROUP_NULL;
  MPI_Comm handle = MPI_COMM_NULL;
  check_mpi(MPI_Comm_group(source, &ranks), "MPI_Comm_group");
  const int result = MPI_Comm_create(source, ranks, &handle);
  MPI_Group_free(&ranks);
  check_mpi(result, "MPI_Comm_create");
  check_mpi(MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return OwnedComm(handle);
}

OwnedComm split_comm(MPI_Comm source, int color, int key) {
  MPI_Comm handle = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(source, color < 0 ? MPI_UNDEFINED : color, key, &handle),
            "MPI_Comm_split");
  if (handle != MPI_COMM_NULL)
    check_mpi(MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return OwnedComm(handle);
}

int rank_in(MPI_Comm communicator) {
  int rank = 0;
  check_mpi(MPI_Comm_rank(communicator, &rank), "MPI_Comm_rank");
  return rank;
}

int size_of(MPI_Comm communicator) {
  int size = 0;
  check_mpi(MPI_Comm_size(communicator, &size), "MPI_Comm_size");
  return size;
}

}  // namespace tessera::comm
