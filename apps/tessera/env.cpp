// SPDX-License-Identifier: Apache-2.0
// tessera env: what this machine and build offer, and what is missing.
#include <array>
#include <dnnl_version.h>
#include <iostream>
#include <sys/statvfs.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/checkpoint/library_version.hpp"
#include "tessera/comm/device_transport.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/device/memory.hpp"
#include "tessera/kernels/attention.hpp"

#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

using Json = nlohmann::ordered_json;

std::string thread_level_name(int level) {
  switch (level) {
    case MPI_THREAD_MULTIPLE:
      return "multiple";
    case MPI_THREAD_SERIALIZED:
      return "serialized";
    case MPI_THREAD_FUNNELED:
      return "funneled";
    default:
      return "single";
  }
}

std::string mpi_library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string version(text.data(), static_cast<std::size_t>(length));
  return version.substr(0, version.find(','));
}

std::string shared_memory_text() {
  struct statvfs info {};
  if (statvfs("/dev/shm", &info) != 0) return "no /dev/shm: ranks of a node talk through MPI";
  return format_bytes(static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize)) +
         " free in /dev/shm";
}

std::string cuda_text() {
  if (cuda_build_version().empty()) return "not in this build";
  const std::string driver = cuda_driver_version();
  return fmt::format("built with {}, driver {}", cuda_build_version(),
                     driver.empty() ? "none" : driver);
}

Json devices() {
  Json names = Json::array({"cpu"});
  for (int index = 0; index < cuda_device_count(); ++index) {
    const Device device{DeviceType::cuda, index};
    const CudaDeviceInfo info = describe_cuda_device(device);
    names.push_back(fmt::format("{} ({}, sm_{}{}, {} free of {})", device.to_string(), info.name,
                                info.major, info.minor,
                                format_bytes(static_cast<double>(info.free_memory)),
                                format_bytes(static_cast<double>(info.total_memory))));
  }
  return names;
}

Json describe(Runtime& runtime, int threads) {
  Json env;
  env["version"] = TESSERA_VERSION;
  env["ranks"] = runtime.size();
  env["ranks_on_this_node"] = runtime.local_size();
  env["transport"] = runtime.world().transport();
  env["mpi"] = mpi_library();
  env["mpi_thread_level"] = thread_level_name(runtime.thread_level());
  env["hdf5"] = checkpoint::hdf5_version();
  env["onednn"] =
      fmt::format("{}.{}.{}", DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH);
  env["cpu"] = cpu_model_name();
  env["isa"] = simd_name();
  env["bf16_instructions"] = has_bf16_instructions();
  env["cores_of_this_rank"] = available_cores();
  env["threads_per_rank"] = threads;
  env["free_memory_bytes"] = available_host_memory();
  env["shared_memory"] = shared_memory_text();
  env["cuda"] = cuda_text();
  env["nccl"] = nccl_version().empty() ? "not in this build" : nccl_version();
  env["cudnn"] = kernels::cudnn_version().empty() ? "not in this build" : kernels::cudnn_version();
  env["devices"] = devices();
  Json missing = Json::array();
  if (cuda_device_count() == 0) missing.push_back("cuda: " + cuda_unavailable_reason());
  if (!has_bf16_instructions())
    missing.push_back("bf16 instructions: bf16 runs work but compute matrix products in fp32");
  env["missing"] = missing;
  return env;
}

void print_table(const Json& env) {
  for (const auto& [key, value] : env.items()) {
    if (!value.is_array()) {
      fmt::print("{:<22} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
      continue;
    }
    const char* label = key.c_str();
    for (const auto& item : value) {
      fmt::print("{:<22} {}\n", label, item.get<std::string>());
      label = "";
    }
  }
}

}  // namespace

void add_env(CLI::App& app, Command& command) {
  auto json = std::make_shared<bool>(false);
  CLI::App* sub =
      app.add_subcommand("env", "Show versions, devices, transports, threads and what is missing");
  sub->add_flag("--json", *json, "Print JSON");
  sub->callback([&command, json] {
    command = [json] {
      return on_all_ranks({}, [json](Runtime& runtime) {
        const int threads = choose_threads(runtime, 0);
        const Json env = describe(runtime, threads);
        if (runtime.rank() != 0) return;
        if (*json)
          std::cout << env.dump(2) << '\n';
        else
          print_table(env);
      });
    };
  });
}

}  // namespace tessera::app
