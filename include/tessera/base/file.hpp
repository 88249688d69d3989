// SPDX-License-Identifier: Apache-2.0
// Small files, read whole and written whole or not at all.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace tessera {

/// Errors: io naming the path and the system's reason.
std::string read_text(const std::filesystem::path& path);

/// Writes a temporary file beside `path`, flushes it to the disk and renames it: readers see the
/// old text or the new one. Errors: io naming the path and the system's reason; the temporary is
/// removed.
void write_text(const std::filesystem::path& path, std::string_view text);

/// Flushes a file's data, or a folder's entries, to the disk.
void sync_to_disk(const std::filesystem::path& path);

}  // namespace tessera
