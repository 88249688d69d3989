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
#include "tessera/base/file.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/checkpoint/library_version.hpp"
#include "tessera/comm/device_transport.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/device/memory.hpp"
#include "tessera/kernels/attention.hpp"

#include "apps/tessera/calibrate.hpp"
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

struct Arguments {
  bool json = false;
  std::string calibration;
};

// The transport is that of training: `auto`.
void write_calibration(Runtime& runtime, const std::string& file) {
  const planning::Machine machine = calibrate(runtime);
  agreeing(runtime.world(), [&] {
    if (runtime.rank() == 0) write_text(file, to_json(machine));
  });
  if (runtime.rank() != 0) return;
  const auto rate = [](double value) { return format_bytes(value) + "/s"; };
  fmt::print(
      "a rank of {}, {} a node:\nproducts    {}FLOP/s in fp32, {}FLOP/s in bf16, half of it with "
      "{:.0f} columns\nmemory      {}\nnode        {} sent by each rank of an all-reduce, {:.1f} "
      "us "
      "a step\nnetwork     {}, {:.1f} us{}\nwritten to {}: tessera plan RUN.yaml --machine {}\n",
      machine.name, machine.ranks_per_node, format_count(machine.flops_fp32),
      format_count(machine.flops_half), machine.half_width, rate(machine.memory_bandwidth),
      rate(machine.node.bandwidth), 1e6 * machine.node.latency, rate(machine.network.bandwidth),
      1e6 * machine.network.latency,
      runtime.local_size() < runtime.size() ? "" : " (one node: taken from it)", file, file);
}

void print_env(Runtime& runtime, bool json) {
  const int threads = choose_threads(runtime, 0);
  const Json env = describe(runtime, threads);
  if (runtime.rank() != 0) return;
  if (json)
    std::cout << env.dump(2) << '\n';
  else
    print_table(env);
}

}  // namespace

void add_env(CLI::App& app, Command& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub =
      app.add_subcommand("env", "Show versions, devices, transports, threads and what is missing");
  sub->add_flag("--json", arguments->json, "Print JSON");
  sub->add_option("--calibrate", arguments->calibration,
                  "Measure these ranks for a few seconds and write the file that plan --machine "
                  "reads");
  sub->callback([&command, arguments] {
    command = [arguments] {
      return on_all_ranks({}, [arguments](Runtime& runtime) {
        if (arguments->calibration.empty()) return print_env(runtime, arguments->json);
        choose_threads(runtime, 0);
        write_calibration(runtime, arguments->calibration);
      });
    };
  });
}

}  // namespace tessera::app
