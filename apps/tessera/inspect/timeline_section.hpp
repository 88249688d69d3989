// SPDX-License-Identifier: Apache-2.0
// The timeline of a run's page: ranks as coloured lanes, where their time went, the bubble.
#pragma once

#include <filesystem>
#include <string>

namespace tessera::app {

/// "" for a run without a timeline; a sentence for one that cannot be read.
std::string timeline_section(const std::filesystem::path& file);

}  // namespace tessera::app
