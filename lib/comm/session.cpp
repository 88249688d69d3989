// SPDX-License-Identifier: Apache-2.0
// MPI's life in this process: started by us if nobody did, ended by us only then.
#include "comm/session.hpp"

#include <cstdlib>
#include <exception>

#include <mpi.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"

#include "comm/mpi_call.hpp"
#include "comm/watchdog.hpp"

namespace tessera::comm {
namespace {

/// Peers that have not left yet get this long before we end without them.
constexpr double kFinalizeSeconds = 60;

int on_self_deleted(MPI_Comm, int, void*, void*) {
  Session::instance().close_all();
  return MPI_SUCCESS;
}

#ifdef __GLIBC__
void on_process_exit(int status, void*) {
  Session::instance().end_process(status);
}
#else
void on_process_exit() {
  Session::instance().end_process(0);
}
#endif

}  // namespace

Session& Session::instance() {
  static auto* session = new Session;
  return *session;
}

void Session::ensure_initialized() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  TESSERA_CHECK(!finalized, Code::invalid_argument,
                "MPI is finalised already: make the Runtime before MPI_Finalize");
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (initialized) return;
  int level = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level), "MPI_Init_thread");
  owned_ = true;
#ifdef __GLIBC__
  on_exit(on_process_exit, nullptr);
#else
  std::atexit(on_process_exit);
#endif
}

void Session::add(Closable* object) {
  open_.push_back(object);
  if (hooked_) return;
  // MPI_Finalize deletes the attributes of MPI_COMM_SELF first, while everything still works.
  int key = 0;
  check_mpi(MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, on_self_deleted, &key, nullptr),
            "MPI_Comm_create_keyval");
  check_mpi(MPI_Comm_set_attr(MPI_COMM_SELF, key, nullptr), "MPI_Comm_set_attr");
  check_mpi(MPI_Comm_free_keyval(&key), "MPI_Comm_free_keyval");
  hooked_ = true;
}

bool Session::can_close_in_order() const {
  return std::uncaught_exceptions() == 0 || agreed_error_;
}

void Session::close_all() {
  while (!open_.empty()) {
    Closable* last = open_.back();
    open_.pop_back();
    try {
      last->close_inside_finalize();
    } catch (const std::exception& error) {
      log_error(error.what());
    }
  }
}

void Session::end_process(int status) {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!owned_ || finalized) return;
  // Without MPI_Finalize the launcher sees an abnormal end and stops the peers, which is right when
  // they cannot know of our failure.
  if (breakdown_ || (status != 0 && !agreed_error_)) return;
  const Watchdog::Section guard("MPI_Finalize", kFinalizeSeconds);
  MPI_Finalize();
}

}  // namespace tessera::comm
