// SPDX-License-Identifier: Apache-2.0
// MPI as this library uses it: started if nobody did, never changed for anybody else, closed in
// order.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <mpi.h>

#include "tessera/comm/communicator.hpp"

namespace tessera {

struct CommOptions {
  std::string transport = "auto";  ///< auto|self|shm|mpi|hybrid; auto: shm on one node, else hybrid
  std::vector<std::vector<int>> nodes;  ///< empty: as MPI_Comm_split_type finds them
  bool checked = false;  ///< compare operation, count and dtype over ranks before every collective
  double timeout_seconds = 600;  ///< 0: wait for ever
  /// auto|nccl|mpi, for buffers of GPUs; auto: NCCL if the build has it and each rank has its own
  /// GPU; mpi: through page-locked host memory
  std::string device_transport = "auto";
};

/// Owns our duplicates of the user's communicator. Several may live in one process, at once or one
/// after the other.
///
/// Collective: construction, finalize and destruction, over `communicator`.
/// MPI: initialised with MPI_THREAD_MULTIPLE if nobody did, and then finalised when the process
/// ends
///   normally (MPI cannot start twice, and another Runtime may follow). Less than MULTIPLE is
///   accepted: all MPI calls come from the calling thread. The user's communicator and its error
///   handler stay as they are. If the user calls MPI_Finalize first, everything is closed inside
///   it.
/// Failures: a rank that times out, or whose Runtime is destroyed by an exception that the others
/// do
///   not have, tells the others; their waits end with an Error and nothing collective is tried any
///   more. A process that ends with a non-zero code then leaves without MPI_Finalize, so that the
///   launcher ends the job.
/// Errors: invalid_config when this process is alone although the launcher's environment says that
///   there are more ranks (a wrong PMI), for impossible options and for a transport that cannot
///   serve the ranks; timeouts end in an Error on every waiting rank.
class Runtime {
 public:
  explicit Runtime(MPI_Comm communicator, const CommOptions& options = {});
  /// MPI_COMM_WORLD, MPI initialised if necessary.
  explicit Runtime(const CommOptions& options = {});
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  int rank() const;
  int size() const;
  /// Rank among, and number of, the ranks that MPI says share this node's memory (not the fold's
  /// node map).
  int local_rank() const;
  int local_size() const;
  /// All ranks.
  Communicator& world();
  const CommOptions& options() const;
  /// MPI's thread level as provided.
  int thread_level() const;
  /// Our control duplicate, for parallel files and the like.
  MPI_Comm control() const;

  /// `closer` runs before what was registered earlier is closed (LIFO), while MPI still works.
  void on_finalize(std::function<void()> closer);
  /// Closes everything now; later calls do nothing. Collective.
  void finalize();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// True inside mpirun or srun: the environment names a rank count greater than one. Returns that
/// count, else 1.
int launcher_size();

}  // namespace tessera
