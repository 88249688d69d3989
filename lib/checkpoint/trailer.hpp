// SPDX-License-Identifier: Apache-2.0
// A checksum of a checkpoint's metadata, after the end of what HDF5 reads.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/sparse_file.hpp"

namespace tessera::checkpoint {

/// Bytes [first, second) of a file.
using ByteRange = std::pair<std::int64_t, std::int64_t>;

/// What `data` leaves of [0, size), ascending.
std::vector<ByteRange> complement(std::vector<ByteRange> data, std::int64_t size);

/// Bytes of the trailer of a file of `size` bytes.
std::int64_t trailer_bytes(const std::vector<ByteRange>& data, std::int64_t size);

/// The trailer that guards every byte outside `data`.
///
/// HDF5 has no checksums on some of its structures and may even crash on damaged ones, so a reader
/// checks this before HDF5 sees the file. Layout, little endian: n ranges of guarded bytes (begin,
/// end: 2 u64 each), n (u64), checksum (u64), "TESSERA1". The checksum is that of
/// tessera/checkpoint/checksum.hpp with the name "metadata" over the guarded bytes one after the
/// other, then the table of ranges, each byte an element.
std::string make_trailer(const SparseFile& file, std::vector<ByteRange> data);

/// False if there is no trailer: another program wrote the file. Errors: io if the metadata are not
/// what was written.
bool check_trailer(const std::string& path);

}  // namespace tessera::checkpoint
