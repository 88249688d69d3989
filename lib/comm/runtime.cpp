// SPDX-License-Identifier: Apache-2.0
// MPI as this library uses it.
#include "tessera/comm/runtime.hpp"

#include <algorithm>
#include <cstring>
#include <exception>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"

#include "comm/base_communicator.hpp"
#include "comm/factory.hpp"
#include "comm/group.hpp"
#include "comm/launcher.hpp"
#include "comm/session.hpp"
#include "comm/watchdog.hpp"

namespace tessera {

using comm::Environment;
using comm::Group;
using comm::Session;
using comm::Watchdog;

struct Runtime::Impl : comm::Closable {
  std::shared_ptr<Environment> environment = std::make_shared<Environment>();
  std::shared_ptr<Group> group;
  std::unique_ptr<comm::BaseCommunicator> world;
  std::vector<std::function<void()>> closers;
  int local_rank = 0;
  int thread_level = MPI_THREAD_SINGLE;
  bool open = true;

  void close();
  void close_inside_finalize() override { close(); }
  /// Tells peers that wait for this rank that it will not come.
  void abandon() noexcept;
};

namespace {

void refuse_a_lonely_start() {
  const int expected = launcher_size();
  if (expected <= 1 || comm::size_of(MPI_COMM_WORLD) > 1) return;
  fail(
      Code::invalid_config,
      fmt::format("this process is alone in MPI_COMM_WORLD, but the launcher started {} ranks. "
                  "The launcher and the MPI library do not speak the same language: use the mpirun "
                  "of the MPI that this program was built with, or with Slurm `srun --mpi=pmix` "
                  "(`srun --mpi=list` shows what there is)",
                  expected));
}

/// Which ranks MPI says share memory: node_of by the first rank of each node.
NodeMap find_real_nodes(MPI_Comm control, int* local_rank, int* local_size) {
  MPI_Comm node = MPI_COMM_NULL;
  const int rank = comm::rank_in(control);
  comm::check_mpi(MPI_Comm_split_type(control, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node),
                  "MPI_Comm_split_type");
  *local_rank = comm::rank_in(node);
  *local_size = comm::size_of(node);
  int leader = rank;
  comm::check_mpi(MPI_Bcast(&leader, 1, MPI_INT, 0, node), "MPI_Bcast");
  MPI_Comm_free(&node);
  std::vector<int> leaders(static_cast<std::size_t>(comm::size_of(control)));
  comm::check_mpi(MPI_Allgather(&leader, 1, MPI_INT, leaders.data(), 1, MPI_INT, control),
                  "MPI_Allgather");
  std::vector<std::vector<int>> lists(leaders.size());
  for (std::size_t r = 0; r < leaders.size(); ++r)
    lists[static_cast<std::size_t>(leaders[r])].push_back(static_cast<int>(r));
  return NodeMap::from_lists(lists, static_cast<int>(leaders.size()));
}

void check_options(const CommOptions& options) {
  const auto& t = options.transport;
  TESSERA_CHECK(t == "auto" || t == "self" || t == "shm" || t == "mpi" || t == "hybrid",
                Code::invalid_config,
                fmt::format("comm.transport is '{}': auto, self, shm, mpi or hybrid", t));
  const auto& d = options.device_transport;
  TESSERA_CHECK(d == "auto" || d == "nccl" || d == "mpi", Code::invalid_config,
                fmt::format("comm.device_transport is '{}': auto, nccl or mpi", d));
  TESSERA_CHECK(options.timeout_seconds >= 0, Code::invalid_config,
                fmt::format("comm.timeout_seconds is {}: a number of seconds, 0 waits for ever",
                            options.timeout_seconds));
}

}  // namespace

Runtime::Runtime(const CommOptions& options) : Runtime(MPI_COMM_NULL, options) {}

Runtime::Runtime(MPI_Comm communicator, const CommOptions& options)
    : impl_(std::make_unique<Impl>()) {
  check_options(options);
  if (const std::string warning = comm::missing_pmi_warning(); !warning.empty())
    log_warning_once(warning);
  Session::instance().ensure_initialized();
  refuse_a_lonely_start();
  if (communicator == MPI_COMM_NULL) communicator = MPI_COMM_WORLD;
  MPI_Query_thread(&impl_->thread_level);
  Environment& environment = *impl_->environment;
  environment.options = options;
  {
    const Watchdog::Section guard("starting the communicators of a Runtime",
                                  options.timeout_seconds);
    comm::OwnedComm control = comm::duplicate(communicator);
    comm::OwnedComm data = comm::duplicate(communicator);
    const int size = comm::size_of(control.get());
    const NodeMap real =
        find_real_nodes(control.get(), &impl_->local_rank, &environment.local_size);
    const NodeMap nodes = options.nodes.empty() ? real : NodeMap::from_lists(options.nodes, size);
    // Not available_cores(): ranks that are bound to a core each have their own.
    environment.oversubscribed = environment.local_size > sysconf(_SC_NPROCESSORS_ONLN);
    impl_->group = std::make_shared<Group>(impl_->environment, std::move(control), std::move(data),
                                           "world", nodes, real);
  }
  set_log_rank(impl_->group->rank(), impl_->group->size());
  Watchdog::set_rank(impl_->group->rank());
  impl_->world = comm::make_communicator(impl_->group, options.transport);
  Session::instance().add(impl_.get());
}

Runtime::~Runtime() {
  if (!impl_->open) return;
  // Closing is collective: a rank that fails alone must not wait for peers that do not come.
  if (!Session::instance().can_close_in_order() || impl_->environment->broken) {
    impl_->abandon();
    Session::instance().remove(impl_.get());
    impl_.release();  // NOLINT: MPI's handles stay open, the process is about to end
    return;
  }
  try {
    finalize();
  } catch (const std::exception& error) {
    log_error(error.what());
  }
}

void Runtime::Impl::close() {
  if (!open) return;
  open = false;
  while (!closers.empty()) {
    const std::function<void()> closer = std::move(closers.back());
    closers.pop_back();
    closer();
  }
  // A barrier with peers that may never come would hang.
  if (environment->broken) return abandon();
  for (const std::function<void()>& close_unwound : environment->unwound) close_unwound();
  // Communicators that still live were made after the ones before them: last first.
  const std::vector<comm::BaseCommunicator*> alive = environment->communicators;
  for (auto it = alive.rbegin(); it != alive.rend(); ++it) (*it)->close();
}

void Runtime::Impl::abandon() noexcept {
  try {
    for (comm::BaseCommunicator* communicator : environment->communicators)
      communicator->abandon("left after an error of its own");
  } catch (const std::exception& error) {
    log_error(error.what());
  }
}

int Runtime::rank() const {
  return impl_->group->rank();
}
int Runtime::size() const {
  return impl_->group->size();
}
int Runtime::local_rank() const {
  return impl_->local_rank;
}
int Runtime::local_size() const {
  return impl_->environment->local_size;
}
Communicator& Runtime::world() {
  return *impl_->world;
}
const CommOptions& Runtime::options() const {
  return impl_->environment->options;
}
int Runtime::thread_level() const {
  return impl_->thread_level;
}
MPI_Comm Runtime::control() const {
  return impl_->group->control();
}

void Runtime::on_finalize(std::function<void()> closer) {
  impl_->closers.push_back(std::move(closer));
}

void Runtime::finalize() {
  if (!impl_->open) return;
  Session::instance().remove(impl_.get());
  impl_->close();
}

}  // namespace tessera
