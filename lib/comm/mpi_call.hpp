// SPDX-License-Identifier: Apache-2.0
// MPI's error codes as exceptions, and owners of MPI handles.
#pragma once

#include <utility>

#include <mpi.h>

namespace tessera::comm {

/// Throws Error(mpi) with MPI's own text unless `result` is MPI_SUCCESS. `call` names the call.
void check_mpi(int result, const char* call);

/// Owns a communicator of ours. Freeing is collective, so it happens in close(), never by itself.
class OwnedComm {
 public:
  OwnedComm() = default;
  explicit OwnedComm(MPI_Comm handle) : handle_(handle) {}
  OwnedComm(OwnedComm&& other) noexcept : handle_(std::exchange(other.handle_, MPI_COMM_NULL)) {}
  OwnedComm& operator=(OwnedComm&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  MPI_Comm get() const { return handle_; }
  /// Collective.
  void close() {
    if (handle_ != MPI_COMM_NULL) MPI_Comm_free(&handle_);
  }

 private:
  MPI_Comm handle_ = MPI_COMM_NULL;
};

/// The same ranks, without attributes, with errors returned to us instead of ending the job.
/// Collective.
OwnedComm duplicate(MPI_Comm source);
/// MPI_Comm_split with errors returned; empty for MPI_UNDEFINED. Collective.
OwnedComm split_comm(MPI_Comm source, int color, int key);

int rank_in(MPI_Comm communicator);
int size_of(MPI_Comm communicator);

}  // namespace tessera::comm
