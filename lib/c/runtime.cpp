// SPDX-License-Identifier: Apache-2.0
// Runtimes, groups and meshes.
#include "tessera/comm/runtime.hpp"

#include "tessera/base/log.hpp"
#include "tessera/device/cuda.hpp"

#include "c/guard.hpp"
#include "c/handles.hpp"
#include "comm/session.hpp"

namespace tessera::c {

void Session::finish_work() noexcept {
  // A step that fails takes no save with it.
  const auto finish = [](const auto& work) {
    if (guard(work) != TESSERA_OK)
      log_warning(std::string("at the end of MPI: ") + tessera_last_error());
  };
  for (const auto& one : learners) {
    const auto learner = one.lock();
    if (!learner) continue;
    engine::Engine& engine = learner->engine();
    finish([&] {
      while (engine.unfinished_steps() > 0) engine.finish_step();
    });
    finish([&] {
      const auto saved = engine.finish_save();
      if (saved && !saved->error.empty()) log_warning("not saved: " + saved->error);
    });
  }
}

Device Session::gpu() {
  if (!gpu_) gpu_ = choose_cuda_device(runtime.local_rank(), runtime.local_size());
  return *gpu_;
}

void Session::choose_gpu(tessera_device chosen) {
  if (chosen.type == TESSERA_CPU && chosen.index == 0) return;
  TESSERA_CHECK(chosen.type == TESSERA_CUDA_DEVICE, Code::invalid_argument,
                fmt::format("tessera_runtime_options.gpu has type {} and index {}: give "
                            "{{TESSERA_CUDA_DEVICE, index}}, or leave it zero",
                            static_cast<int>(chosen.type), chosen.index));
  const int count = cuda_device_count();
  TESSERA_CHECK(count > 0, Code::not_supported,
                fmt::format("tessera_runtime_options.gpu is {}, but {}", chosen.index,
                            cuda_unavailable_reason()));
  TESSERA_CHECK(chosen.index >= 0 && chosen.index < count, Code::invalid_argument,
                fmt::format("tessera_runtime_options.gpu is {}, but this process sees {} GPUs, "
                            "from 0",
                            chosen.index, count));
  gpu_ = {DeviceType::cuda, chosen.index};
}

namespace {

CommOptions comm_options(const tessera_runtime_options& given) {
  CommOptions options;
  options.transport = text_of(given.transport, "auto");
  if (given.timeout_seconds != 0)
    options.timeout_seconds = given.timeout_seconds < 0 ? 0 : given.timeout_seconds;
  options.checked = given.checked != 0;
  return options;
}

tessera_runtime make_runtime(MPI_Comm communicator, const tessera_runtime_options* options) {
  TESSERA_CHECK(communicator != MPI_COMM_NULL, Code::invalid_argument,
                "the communicator is MPI_COMM_NULL: this rank is not part of it");
  const auto given = options_of(options, "tessera_runtime_options");
  set_log_printing(false);
  auto session = std::make_shared<Session>(communicator, comm_options(given));
  agreeing(session->runtime.world(), [&] { session->choose_gpu(given.gpu); });
  Runtime* const runtime = &session->runtime;
  limit_threads(runtime->local_size());
  return {{session, {session, runtime}}};
}

MeshShape mesh_shape(const tessera_mesh_shape* shape) {
  const auto given = options_of(shape, "tessera_mesh_shape");
  const auto size = [](std::int32_t axis) { return axis == 0 ? 1 : axis; };
  return {size(given.pipeline), given.data, size(given.sequence), size(given.tensor)};
}

}  // namespace
}  // namespace tessera::c

using namespace tessera;
using c::deref;
using c::guard;
using c::opened;
using c::value_of;

tessera_code tessera_runtime_create(MPI_Comm communicator, const tessera_runtime_options* options,
                                    tessera_runtime** runtime) {
  return c::create(runtime, [&] { return c::make_runtime(communicator, options); });
}

tessera_code tessera_runtime_create_f(MPI_Fint communicator, const tessera_runtime_options* options,
                                      tessera_runtime** runtime) {
  return c::create(runtime, [&] {
    comm::Session::instance().ensure_initialized();  // handles of Fortran mean nothing before
    return c::make_runtime(MPI_Comm_f2c(communicator), options);
  });
}

tessera_code tessera_runtime_destroy(tessera_runtime** runtime) {
  return c::destroy(runtime);
}

tessera_code tessera_runtime_gpu(tessera_runtime* runtime, tessera_device* gpu) {
  return guard([&] {
    c::Session& session = *opened(runtime, "runtime").session;
    tessera_device& own = deref(gpu, "gpu") = {TESSERA_CPU, 0};
    if (cuda_device_count() > 0) own = {TESSERA_CUDA_DEVICE, session.gpu().index};
  });
}

tessera_code tessera_runtime_world(tessera_runtime* runtime, tessera_group** world) {
  return c::create(world, [&]() -> tessera_group {
    const tessera_runtime& owner = opened(runtime, "runtime");
    return {{owner.session, c::ranks_of(owner, nullptr)}};
  });
}

tessera_code tessera_group_split(tessera_group* group, int color, int key, tessera_group** part) {
  return guard([&] {
    deref(part, "part") = nullptr;
    const tessera_group& whole = opened(group, "group");
    auto made = whole.value->split(color, key, fmt::format("{}/{}", whole.value->name(), color));
    if (made) *part = new tessera_group{{whole.session, c::keeping(whole.value, std::move(made))}};
  });
}

tessera_code tessera_group_rank(tessera_group* group, int* rank) {
  return guard([&] { deref(rank, "rank") = value_of(group, "group").rank(); });
}

tessera_code tessera_group_size(tessera_group* group, int* size) {
  return guard([&] { deref(size, "size") = value_of(group, "group").size(); });
}

tessera_code tessera_group_open_gpus(tessera_group* group) {
  return guard([&] {
    const tessera_group& ranks = opened(group, "group");
    Device gpu;
    agreeing(*ranks.value, [&] { gpu = ranks.session->gpu(); });
    ranks.value->open_device(gpu);
  });
}

tessera_code tessera_group_destroy(tessera_group** group) {
  return c::destroy(group);
}

tessera_code tessera_mesh_create(tessera_runtime* runtime, const tessera_mesh_shape* shape,
                                 tessera_mesh** mesh) {
  return c::create(mesh, [&]() -> tessera_mesh {
    const auto& session = opened(runtime, "runtime").session;
    auto made = std::make_unique<Mesh>(session->runtime.world(), c::mesh_shape(shape));
    return {{session, c::keeping(session, std::move(made))}};
  });
}

tessera_code tessera_mesh_group(tessera_mesh* mesh, const char* axis, tessera_group** group) {
  return c::create(group, [&]() -> tessera_group {
    const tessera_mesh& grid = opened(mesh, "mesh");
    return {{grid.session, {grid.value, &grid.value->group(&deref(axis, "axis"))}}};
  });
}

tessera_code tessera_mesh_coordinate(tessera_mesh* mesh, const char* axis, int* coordinate,
                                     int* size) {
  return guard([&] {
    const Mesh& grid = value_of(mesh, "mesh");
    const std::string name = &deref(axis, "axis");
    if (coordinate != nullptr) *coordinate = grid.coordinate(name);
    if (size != nullptr) *size = grid.size(name);
  });
}

tessera_code tessera_mesh_destroy(tessera_mesh** mesh) {
  return c::destroy(mesh);
}
