// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/device_choice.hpp"

#include <cstdint>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/device/cuda.hpp"

namespace tessera::engine {

Device choose_device(Runtime& runtime, const std::string& wanted) {
  return choose_device(runtime.world(), wanted, [&] {
    return choose_cuda_device(runtime.local_rank(), runtime.local_size());
  });
}

Device choose_device(Communicator& group, const std::string& wanted,
                     const std::function<Device()>& own) {
  if (wanted == "cpu") return {};
  if (wanted == "cuda")
    agreeing(group, [] {
      TESSERA_CHECK(cuda_device_count() > 0, Code::not_supported,
                    fmt::format("device: cuda is asked for, but {}; use device: auto or cpu",
                                cuda_unavailable_reason()));
    });
  const auto mine = static_cast<std::int64_t>(cuda_device_count() > 0);
  const std::int64_t with_gpu = group.all_reduce_scalar(mine, Reduction::sum);
  if (with_gpu < group.size()) {
    if (with_gpu > 0 && group.rank() == 0)
      log_warning(fmt::format("only {} of {} ranks see a GPU: all compute on the CPU", with_gpu,
                              group.size()));
    return {};
  }
  const Device device = own();
  group.open_device(device);
  return device;
}

DeviceType expected_device(const std::string& wanted) {
  return wanted != "cpu" && cuda_device_count() > 0 ? DeviceType::cuda : DeviceType::cpu;
}

std::string describe_device(Device device) {
  if (device.is_cpu()) return device.to_string();
  return fmt::format("{} ({})", device.to_string(), describe_cuda_device(device).name);
}

}  // namespace tessera::engine
