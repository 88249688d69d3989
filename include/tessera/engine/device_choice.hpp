// SPDX-License-Identifier: Apache-2.0
// Where a run computes.
#pragma once

#include <functional>
#include <string>

#include "tessera/comm/runtime.hpp"
#include "tessera/device/device.hpp"

namespace tessera::engine {

/// "cpu"; "cuda": this rank's GPU (choose_cuda_device), connected with those of the other ranks;
/// "auto": cuda where every rank sees a GPU, else cpu. Collective: over runtime.world(). Errors:
/// not_supported for "cuda" when a rank sees no GPU, with the reason.
Device choose_device(Runtime& runtime, const std::string& wanted);
/// The same for the ranks of a group, each with the GPU that `own` names; asked only where every
/// rank sees one.
Device choose_device(Communicator& group, const std::string& wanted,
                     const std::function<Device()>& own);

/// What choose_device would take for one process alone.
DeviceType expected_device(const std::string& wanted);

/// "cpu", or "cuda:0 (NVIDIA H100)".
std::string describe_device(Device device);

}  // namespace tessera::engine
