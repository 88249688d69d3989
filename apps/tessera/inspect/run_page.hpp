// SPDX-License-Identifier: Apache-2.0
// One HTML page that shows a run.
#pragma once

#include <filesystem>
#include <string>

namespace tessera::app {

/// A page that needs nothing else: curves over steps, its timeline, weight norms of the newest
/// whole checkpoint, traffic, memory, saves, the resolved configuration. What a run that still goes
/// on does not have yet is left out and said. Errors: io when `run` is not a run's folder.
std::string make_run_page(const std::filesystem::path& run);

}  // namespace tessera::app
