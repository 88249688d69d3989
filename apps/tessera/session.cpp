// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/session.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <mpi.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/base/timer.hpp"

namespace tessera::app {
namespace {

constexpr double kAgreementSeconds = 3;

int exit_code(const Error& error) {
  return error.is_bad_input() || error.code() == Code::io ? kBadInput : kFailure;
}

void print_error(const std::string& message) {
  fmt::print(stderr, "error: {}\n", message);
}

// True when every rank of the runtime gets here soon: then all of them failed, with the same
// message.
bool everyone_failed(Runtime& runtime) {
  MPI_Request request = MPI_REQUEST_NULL;
  if (MPI_Ibarrier(runtime.control(), &request) != MPI_SUCCESS) return false;
  int done = 0;
  for (const Timer timer; timer.seconds() < kAgreementSeconds;) {
    if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return false;
    if (done) return true;
    usleep(1000);
  }
  return false;
}

int report(Runtime& runtime, const std::string& message, int code) {
  if (everyone_failed(runtime)) {
    if (runtime.rank() == 0) print_error(message);
    return code;
  }
  print_error(fmt::format("rank {}: {}", runtime.rank(), message));
  MPI_Abort(MPI_COMM_WORLD, code);
  return code;
}

// Calls `body` and turns what it throws into (message, exit code) for `handle`.
template <typename Body, typename Handle>
int guarded(Body&& body, Handle&& handle) {
  try {
    return body();
  } catch (const Error& error) {
    return handle(error.what(), exit_code(error));
  } catch (const std::bad_alloc&) {
    return handle("out of memory on the host", kFailure);
  } catch (const std::exception& error) {
    return handle(error.what(), kFailure);
  }
}

}  // namespace

void prepare_environment() {
  // Without this, ranks that wait spin on cores that others need. A value that the user set stays.
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
}

std::string version_text() {
  return fmt::format("tessera {}", TESSERA_VERSION);
}

int launcher_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"})
    if (const char* value = std::getenv(name)) return std::atoi(value);
  return 0;
}

int report_usage(const CLI::App& app, const CLI::Error& error) {
  if (launcher_rank() != 0) return error.get_exit_code() == 0 ? 0 : kBadInput;
  return app.exit(error) == 0 ? 0 : kBadInput;
}

int run(const Command& command) {
  return guarded(command, [](const std::string& message, int code) {
    if (launcher_rank() == 0) print_error(message);
    return code;
  });
}

int check_output(int code) {
  errno = 0;
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (written || code != 0) return code;
  print_error(errno != 0 ? fmt::format("standard output was not written: {}", std::strerror(errno))
                         : "standard output was not written");
  return kFailure;
}

int on_all_ranks(const CommOptions& options, const std::function<void(Runtime&)>& body) {
  Runtime runtime(options);
  const int code = guarded(
      [&] {
        body(runtime);
        return 0;
      },
      [&](const std::string& message, int failure) { return report(runtime, message, failure); });
  runtime.finalize();
  return code;
}

int choose_threads(Runtime& runtime, int requested) {
  const int cores = available_cores();
  const int share = std::max(1, node_cores() / std::max(1, runtime.local_size()));
  // A launcher may have bound this rank to fewer cores than its share of the node.
  const int chosen = requested > 0 ? requested : std::min(share, cores);
  if (cores < std::max(requested, share))
    log_warning_once(fmt::format(
        "bound to {} core(s), where {} thread(s) could run: start with `mpirun --bind-to none`",
        cores, std::max(requested, share)));
  set_threads(chosen);
  return chosen;
}

}  // namespace tessera::app
