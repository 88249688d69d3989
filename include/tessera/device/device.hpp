// SPDX-License-Identifier: Apache-2.0
// Where memory lives and work runs.
#pragma once

#include <cstdint>
#include <string>

namespace tessera {

enum class DeviceType : std::uint8_t { cpu, cuda };

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;

  bool operator==(const Device&) const = default;
  bool is_cpu() const { return type == DeviceType::cpu; }
  std::string to_string() const;  // "cpu", "cuda:1"
};

}  // namespace tessera
