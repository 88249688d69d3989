// SPDX-License-Identifier: Apache-2.0
// What is behind the opaque handles: shared owners, so that they may be destroyed in any order.
#pragma once

#include <memory>

#include "tessera/comm/communicator.hpp"
#include "tessera/comm/mesh.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/tessera.h"

struct tessera_runtime {
  std::shared_ptr<tessera::Runtime> value;
};

/// Keeps the runtime, the parent group or the mesh alive that it came from.
struct tessera_group {
  std::shared_ptr<tessera::Communicator> value;
};

struct tessera_mesh {
  std::shared_ptr<tessera::Mesh> value;
};

namespace tessera::c {

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
inline std::shared_ptr<Communicator> ranks_of(tessera_runtime& runtime, tessera_group* group) {
  if (group != nullptr) return group->value;
  return {runtime.value, &runtime.value->world()};
}

}  // namespace tessera::c
