// SPDX-License-Identifier: Apache-2.0
// Chooses the transport of a group and makes its communicator.
#pragma once

#include <memory>
#include <string>

#include "comm/base_communicator.hpp"
#include "comm/group.hpp"

namespace tessera::comm {

/// Collective over the group. Errors: invalid_config when the transport that was asked for cannot
/// serve this group.
std::unique_ptr<BaseCommunicator> make_communicator(std::shared_ptr<Group> group,
                                                    const std::string& transport);

/// Collective over the parent. Null for a negative color.
std::unique_ptr<BaseCommunicator> split_communicator(Group& parent, int color, int key,
                                                     const std::string& name);

}  // namespace tessera::comm
