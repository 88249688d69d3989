// SPDX-License-Identifier: Apache-2.0
// Blocks in a map, and the driver through which HDF5 reaches them.
#include "checkpoint/sparse_file.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <new>

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t kBlock = 16384;

/// body(block number, offset in it, bytes done, bytes) for each block that a range touches.
template <typename Body>
void for_each_block(std::int64_t at, std::size_t bytes, Body&& body) {
  for (std::size_t done = 0; done < bytes;) {
    const std::int64_t position = at + static_cast<std::int64_t>(done);
    const auto offset = static_cast<std::size_t>(position % kBlock);
    const std::size_t part = std::min(bytes - done, static_cast<std::size_t>(kBlock) - offset);
    body(position / kBlock, offset, done, part);
    done += part;
  }
}

}  // namespace

void SparseFile::clear() {
  blocks_.clear();
  size_ = 0;
}

void SparseFile::write(std::int64_t at, const void* data, std::size_t bytes) {
  for_each_block(
      at, bytes, [&](std::int64_t block, std::size_t offset, std::size_t done, std::size_t part) {
        std::vector<std::byte>& content = blocks_[block];
        content.resize(kBlock);
        std::memcpy(content.data() + offset, static_cast<const std::byte*>(data) + done, part);
      });
  size_ = std::max(size_, at + static_cast<std::int64_t>(bytes));
}

void SparseFile::read(std::int64_t at, void* out, std::size_t bytes) const {
  for_each_block(at, bytes,
                 [&](std::int64_t block, std::size_t offset, std::size_t done, std::size_t part) {
                   std::byte* target = static_cast<std::byte*>(out) + done;
                   const auto found = blocks_.find(block);
                   if (found == blocks_.end())
                     std::memset(target, 0, part);
                   else
                     std::memcpy(target, found->second.data() + offset, part);
                 });
}

namespace hdf5 {
namespace {

struct OpenFile {
  H5FD_t shared;  // HDF5's own part comes first
  SparseFile* file;
  haddr_t end;  // of what HDF5 has allocated
};

OpenFile& own(H5FD_t* file) {
  return *reinterpret_cast<OpenFile*>(file);
}
const OpenFile& own(const H5FD_t* file) {
  return *reinterpret_cast<const OpenFile*>(file);
}

H5FD_t* open(const char*, unsigned flags, hid_t access_list, haddr_t) {
  const auto* file = static_cast<SparseFile* const*>(H5Pget_driver_info(access_list));
  if (file == nullptr) return nullptr;
  auto* opened = new (std::nothrow) OpenFile{};
  if (opened == nullptr) return nullptr;
  opened->file = *file;
  if ((flags & H5F_ACC_TRUNC) != 0) opened->file->clear();
  return &opened->shared;
}

herr_t close(H5FD_t* file) {
  delete &own(file);
  return 0;
}

int compare(const H5FD_t* a, const H5FD_t* b) {
  const std::less<> before;
  return static_cast<int>(before(own(b).file, own(a).file)) -
         static_cast<int>(before(own(a).file, own(b).file));
}

/// As HDF5's usual driver, so that files are laid out alike.
herr_t query(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
           H5FD_FEAT_AGGREGATE_SMALLDATA;
  return 0;
}

haddr_t get_end(const H5FD_t* file, H5FD_mem_t) {
  return own(file).end;
}
herr_t set_end(H5FD_t* file, H5FD_mem_t, haddr_t end) {
  own(file).end = end;
  return 0;
}
haddr_t get_size(const H5FD_t* file, H5FD_mem_t) {
  return static_cast<haddr_t>(own(file).file->size());
}

herr_t read(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, std::size_t bytes, void* out) {
  own(file).file->read(static_cast<std::int64_t>(at), out, bytes);
  return 0;
}
herr_t write(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, std::size_t bytes, const void* data) {
  try {
    own(file).file->write(static_cast<std::int64_t>(at), data, bytes);
  } catch (const std::bad_alloc&) {
    return -1;
  }
  return 0;
}
herr_t truncate(H5FD_t* file, hid_t, hbool_t) {
  own(file).file->resize(static_cast<std::int64_t>(own(file).end));
  return 0;
}

const H5FD_class_t& driver() {
  static const H5FD_class_t filled = [] {
    H5FD_class_t made{};
#if H5_VERSION_GE(1, 13, 0)
    made.version = H5FD_CLASS_VERSION;
    made.value = static_cast<H5FD_class_value_t>(H5FD_RESERVED + 88);  // of nobody else here
#endif
    made.name = "tessera_sparse";
    made.maxaddr = static_cast<haddr_t>(INT64_MAX);
    made.fc_degree = H5F_CLOSE_WEAK;
    made.fapl_size = sizeof(SparseFile*);
    made.open = open;
    made.close = close;
    made.cmp = compare;
    made.query = query;
    made.get_eoa = get_end;
    made.set_eoa = set_end;
    made.get_eof = get_size;
    made.read = read;
    made.write = write;
    made.truncate = truncate;
    const H5FD_mem_t kinds[] = H5FD_FLMAP_DICHOTOMY;
    std::copy(std::begin(kinds), std::end(kinds), made.fl_map);
    return made;
  }();
  return filled;
}

}  // namespace

void use_sparse_file(hid_t access_list, SparseFile& file) {
  const Handle registered(H5FDregister(&driver()), H5FDunregister, "register a file driver");
  SparseFile* info = &file;
  check(H5Pset_driver(access_list, registered.id(), &info), "set the file driver");
}

}  // namespace hdf5
}  // namespace tessera::checkpoint
