// SPDX-License-Identifier: Apache-2.0
// What is behind the opaque handles: shared owners, so that they may be destroyed in any order.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tessera/comm/communicator.hpp"
#include "tessera/comm/mesh.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/engine/learner.hpp"
#include "tessera/engine/lent_optimizer.hpp"
#include "tessera/tessera.h"

#include "c/callbacks.hpp"
#include "c/guard.hpp"

namespace tessera::c {

/// A runtime, and whether it is open: not any more once the host has finalised MPI.
struct Session {
  Session(MPI_Comm communicator, const CommOptions& options) : runtime(communicator, options) {
    runtime.on_finalize([this] {
      finish_work();
      open = false;
    });
  }

  /// This rank's GPU. Errors: not_supported where there is none.
  Device gpu();
  /// Whether somebody has asked for it.
  bool uses_gpu() const { return gpu_.has_value(); }
  /// The host's choice; {TESSERA_CPU, 0}: none. Errors: for a GPU that is not there.
  void choose_gpu(tessera_device chosen);

  void add(const std::shared_ptr<engine::Learner>& learner) {
    std::erase_if(learners, [](const auto& one) { return one.expired(); });
    learners.push_back(learner);
  }

  bool open = true;
  /// In the order in which they were made, the same on every rank. Before the runtime, whose end
  /// looks at it.
  std::vector<std::weak_ptr<engine::Learner>> learners;
  Runtime runtime;

 private:
  std::optional<Device> gpu_;

  /// Steps and saves that are under way use memory and groups that go with MPI. Collective.
  void finish_work() noexcept;
};

/// What the handles have in common: an owner of the session, and a value that needs it.
template <typename Value>
struct Handle {
  std::shared_ptr<Session> session;
  std::shared_ptr<Value> value;
};

}  // namespace tessera::c

struct tessera_runtime : tessera::c::Handle<tessera::Runtime> {};
/// Its value keeps the parent group or the mesh alive that it came from.
struct tessera_group : tessera::c::Handle<tessera::Communicator> {};
struct tessera_mesh : tessera::c::Handle<tessera::Mesh> {};

struct tessera_optimizer : tessera::c::Handle<tessera::engine::LentOptimizer> {
  std::string client_state;
};

struct tessera_network : tessera::c::Handle<tessera::engine::Learner> {
  tessera::c::CallbackMemory callback_memory{};
  std::string client_state;
  tessera::engine::StepOutcome last_step{};
  std::string failed_save{};  ///< why an asynchronous save left no file, until the caller knows
};

namespace tessera::c {

/// A handle that may be used. Errors: invalid_argument for NULL and after the end of MPI.
template <typename Handle>
Handle& opened(Handle* handle, const char* name) {
  Handle& given = deref(handle, name);
  TESSERA_CHECK(given.session->open, Code::invalid_argument,
                fmt::format("MPI is finalised, so `{}` can only be destroyed", name));
  return given;
}

template <typename Handle>
auto& value_of(Handle* handle, const char* name) {
  return *opened(handle, name).value;
}

/// A shared owner of something that needs `parent` as long as it lives, and goes before it.
template <typename Child, typename Parent>
std::shared_ptr<Child> keeping(std::shared_ptr<Parent> parent, std::unique_ptr<Child> child) {
  struct Pair {
    std::shared_ptr<Parent> parent;
    std::unique_ptr<Child> child;
  };
  auto pair = std::make_shared<Pair>(Pair{std::move(parent), std::move(child)});
  Child* const place = pair->child.get();
  return {std::move(pair), place};
}

/// The ranks that an object is made over: those of `group`, or all.
inline std::shared_ptr<Communicator> ranks_of(const tessera_runtime& runtime,
                                              tessera_group* group) {
  if (group != nullptr) return opened(group, "group").value;
  return {runtime.session, &runtime.session->runtime.world()};
}

}  // namespace tessera::c
