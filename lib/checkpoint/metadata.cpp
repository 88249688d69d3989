// SPDX-License-Identifier: Apache-2.0
// The layout of a checkpoint file in HDF5: doc/checkpoint-format.md.
#include "checkpoint/metadata.hpp"

#include <algorithm>
#include <filesystem>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/checkpoint/checksum.hpp"

#include "checkpoint/hdf5.hpp"
#include "checkpoint/trailer.hpp"

namespace tessera::checkpoint {
namespace {

using hdf5::check;
using hdf5::Handle;

constexpr const char* kFormat = "tessera";
constexpr const char* kStateGroup = "state";
constexpr const char* kInMemory = "checkpoint";  // a name that HDF5 wants
// Metadata come in blocks of this size, so that the data between them stay contiguous.
constexpr hsize_t kMetadataBlock = 16384;

Handle access_list() {
  Handle list(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "make an access list");
  // Object headers with checksums, readable since HDF5 1.8.
  check(H5Pset_libver_bounds(list.id(), H5F_LIBVER_V18, H5F_LIBVER_V18), "set the file's version");
  check(H5Pset_meta_block_size(list.id(), kMetadataBlock), "set the metadata block");
  // Small tensors follow their neighbours directly: a rank's pieces stay one transfer.
  check(H5Pset_small_data_block_size(list.id(), 0), "set the data block");
#if H5_VERSION_GE(1, 10, 7)
  // Names are unique and commits are renames; locks only fail on file systems without them.
  check(H5Pset_file_locking(list.id(), 0, 1), "set file locking");
#endif
  return list;
}

void write_header(hid_t file, const Header& header) {
  hdf5::write_text_attribute(file, "format", kFormat);
  hdf5::write_integer_attribute(file, "format_version", kFormatVersion);
  hdf5::write_text_attribute(file, "library_version", TESSERA_VERSION);
  hdf5::write_integer_attribute(file, "step", header.step);
  hdf5::write_integer_attribute(file, "samples", header.samples);
  hdf5::write_integer_attribute(file, "tokens", header.tokens);
  hdf5::write_text_attribute(file, "model", header.model);
  hdf5::write_text_attribute(file, "config", header.config);
  hdf5::write_integer_attribute(file, "complete", 0);
}

/// Properties of contiguous datasets whose space exists from the start and is never filled.
Handle dataset_list() {
  Handle list(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "make a creation list");
  check(H5Pset_layout(list.id(), H5D_CONTIGUOUS), "set the layout");
  check(H5Pset_alloc_time(list.id(), H5D_ALLOC_TIME_EARLY), "set early allocation");
  check(H5Pset_fill_time(list.id(), H5D_FILL_TIME_NEVER), "set the fill time");
  check(H5Pset_obj_track_times(list.id(), false), "leave out times");
  return list;
}

Handle link_list() {
  Handle list(H5Pcreate(H5P_LINK_CREATE), H5Pclose, "make a link list");
  check(H5Pset_char_encoding(list.id(), H5T_CSET_UTF8), "set the encoding");
  return list;
}

/// Makes the groups above `path` that are missing. HDF5 would do it, but with times, and files of
/// the same content are the same bytes.
void create_groups_above(hid_t file, const std::string& path, const Handle& links) {
  const Handle list(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, "make a creation list");
  check(H5Pset_obj_track_times(list.id(), false), "leave out times");
  for (std::size_t slash = path.find('/'); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string group = path.substr(0, slash);
    if (H5Lexists(file, group.c_str(), H5P_DEFAULT) > 0) continue;
    const Handle made(H5Gcreate2(file, group.c_str(), links.id(), list.id(), H5P_DEFAULT), H5Gclose,
                      fmt::format("create group {}", group));
  }
}

Handle space_of(const Shape& shape) {
  if (shape.rank() == 0) return {H5Screate(H5S_SCALAR), H5Sclose, "make a scalar space"};
  std::vector<hsize_t> sizes;
  for (const std::int64_t size : shape.sizes()) sizes.push_back(static_cast<hsize_t>(size));
  return {H5Screate_simple(shape.rank(), sizes.data(), nullptr), H5Sclose,
          fmt::format("make a space of shape {}", shape.to_string())};
}

std::int64_t create_dataset(hid_t file, const TensorRecord& tensor, const Handle& links,
                            const Handle& properties) {
  const std::string what = fmt::format("create dataset {}", tensor.path);
  const Handle type = hdf5::file_type(tensor.dtype);
  const Handle space = space_of(tensor.shape);
  create_groups_above(file, tensor.path, links);
  const Handle dataset(H5Dcreate2(file, tensor.path.c_str(), type.id(), space.id(), links.id(),
                                  properties.id(), H5P_DEFAULT),
                       H5Dclose, what);
  hdf5::write_checksum_attribute(dataset.id(), 0);
  if (tensor.shape.numel() == 0) return 0;
  const haddr_t offset = H5Dget_offset(dataset.id());
  TESSERA_CHECK(offset != HADDR_UNDEF, Code::internal,
                fmt::format("HDF5 gave dataset {} no place in the file", tensor.path));
  return static_cast<std::int64_t>(offset);
}

std::uint64_t text_checksum(const std::string& path, const std::string& text) {
  return checksum_range(path, 0, text.data(), DType::uint8, static_cast<std::int64_t>(text.size()));
}

/// A scalar text of fixed size; HDF5 has none of size 0, so an empty one is a single NUL.
void write_state(hid_t file, const std::string& name, const std::string& text,
                 const Handle& links) {
  const std::string path = fmt::format("{}/{}", kStateGroup, name);
  create_groups_above(file, path, links);
  const std::string padded = text.empty() ? std::string(1, '\0') : text;
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "copy a type");
  check(H5Tset_size(type.id(), padded.size()), "make a text type");
  check(H5Tset_strpad(type.id(), H5T_STR_NULLPAD), "make a text type");
  check(H5Tset_cset(type.id(), H5T_CSET_UTF8), "make a text type");
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose, "make a scalar space");
  const Handle properties = dataset_list();
  const Handle dataset(H5Dcreate2(file, path.c_str(), type.id(), space.id(), links.id(),
                                  properties.id(), H5P_DEFAULT),
                       H5Dclose, fmt::format("create dataset {}", path));
  check(H5Dwrite(dataset.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, padded.data()),
        fmt::format("write dataset {}", path));
  hdf5::write_checksum_attribute(dataset.id(), text_checksum(path, text));
}

Handle open_dataset(hid_t file, const std::string& path) {
  return {H5Dopen2(file, path.c_str(), H5P_DEFAULT), H5Dclose,
          fmt::format("open dataset {}", path)};
}

std::string read_state(hid_t file, const std::string& path) {
  const std::string what = fmt::format("read dataset {}", path);
  const Handle dataset = open_dataset(file, path);
  const Handle type(H5Dget_type(dataset.id()), H5Tclose, what);
  const bool text_of_fixed_size =
      H5Tget_class(type.id()) == H5T_STRING && H5Tis_variable_str(type.id()) == 0;
  TESSERA_CHECK(text_of_fixed_size, Code::io, fmt::format("{} is not a text", path));
  const Handle space(H5Dget_space(dataset.id()), H5Sclose, what);
  TESSERA_CHECK(H5Sget_simple_extent_npoints(space.id()) == 1, Code::io,
                fmt::format("{} is not a single text", path));
  std::string text(H5Tget_size(type.id()), '\0');
  check(H5Dread(dataset.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, text.data()), what);
  text.resize(text.find_last_not_of('\0') + 1);
  const std::uint64_t expected = hdf5::read_checksum_attribute(dataset.id());
  const std::uint64_t found = text_checksum(path, text);
  TESSERA_CHECK(expected == found, Code::io,
                fmt::format("{} is damaged: checksum {} expected, {} found", path,
                            format_checksum(expected), format_checksum(found)));
  return text;
}

DatasetInfo read_dataset_info(hid_t file, const std::string& path) {
  const Handle dataset = open_dataset(file, path);
  DatasetInfo info;
  info.path = path;
  const Handle type(H5Dget_type(dataset.id()), H5Tclose, fmt::format("read the type of {}", path));
  info.dtype = hdf5::dtype_of_type(type.id(), path);
  const Handle space(H5Dget_space(dataset.id()), H5Sclose,
                     fmt::format("read the shape of {}", path));
  const int rank = H5Sget_simple_extent_ndims(space.id());
  std::vector<hsize_t> sizes(static_cast<std::size_t>(std::max(rank, 0)));
  check(H5Sget_simple_extent_dims(space.id(), sizes.data(), nullptr),
        fmt::format("read the shape of {}", path));
  info.shape = Shape(std::vector<std::int64_t>(sizes.begin(), sizes.end()));
  info.checksum = hdf5::read_checksum_attribute(dataset.id());
  if (info.shape.numel() == 0) return info;
  const haddr_t offset = H5Dget_offset(dataset.id());
  TESSERA_CHECK(offset != HADDR_UNDEF, Code::io,
                fmt::format("{} is not contiguous: another program rewrote it", path));
  info.offset = static_cast<std::int64_t>(offset);
  return info;
}

#if H5_VERSION_GE(1, 12, 0)
using ObjectInfo = H5O_info2_t;
constexpr auto kVisit = H5Ovisit3;
#else
using ObjectInfo = H5O_info_t;
constexpr auto kVisit = H5Ovisit2;
#endif

/// Paths of all datasets, without the leading slash.
std::vector<std::string> dataset_paths(hid_t file) {
  std::vector<std::string> paths;
  const auto visit = [](hid_t, const char* name, const ObjectInfo* info, void* out) -> herr_t {
    if (info->type == H5O_TYPE_DATASET)
      static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  check(kVisit(file, H5_INDEX_NAME, H5_ITER_INC, visit, &paths, H5O_INFO_BASIC),
        "list the datasets");
  std::sort(paths.begin(), paths.end());
  return paths;
}

void read_header(hid_t file, Metadata& metadata) {
  const htri_t named = H5Aexists(file, "format");
  check(named, "read its attributes");
  TESSERA_CHECK(named > 0 && hdf5::read_text_attribute(file, "format") == kFormat, Code::io,
                "it is not a Tessera checkpoint (no attribute format 'tessera')");
  metadata.format_version = hdf5::read_integer_attribute(file, "format_version");
  TESSERA_CHECK(metadata.format_version >= 1 && metadata.format_version <= kFormatVersion, Code::io,
                fmt::format("it has format version {}; this program reads up to {}: use a newer "
                            "one",
                            metadata.format_version, kFormatVersion));
  TESSERA_CHECK(hdf5::read_integer_attribute(file, "complete") == 1, Code::io,
                "it is incomplete: the save that made it was interrupted");
  metadata.library_version = hdf5::read_text_attribute(file, "library_version");
  Header& header = metadata.header;
  header.step = hdf5::read_integer_attribute(file, "step");
  header.samples = hdf5::read_integer_attribute(file, "samples");
  header.tokens = hdf5::read_integer_attribute(file, "tokens");
  header.model = hdf5::read_text_attribute(file, "model");
  header.config = hdf5::read_text_attribute(file, "config");
}

void read_all(const std::string& path, Metadata& metadata) {
  check_trailer(path);
  const Handle access = access_list();
  TESSERA_CHECK(H5Fis_hdf5(path.c_str()) > 0, Code::io, "it is not an HDF5 file");
  const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id()), H5Fclose, "open it");
  read_header(file.id(), metadata);
  for (const std::string& name : dataset_paths(file.id())) {
    const std::string state_prefix = std::string(kStateGroup) + "/";
    if (name.starts_with(state_prefix)) {
      metadata.state[name.substr(state_prefix.size())] = read_state(file.id(), name);
      continue;
    }
    const DatasetInfo info = read_dataset_info(file.id(), name);
    const auto bytes = static_cast<std::int64_t>(size_of(info.dtype)) * info.shape.numel();
    TESSERA_CHECK(info.offset <= metadata.file_bytes - bytes, Code::io,
                  fmt::format("it is truncated: {} ends at byte {}, the file has {}", name,
                              info.offset + bytes, metadata.file_bytes));
    metadata.datasets.push_back(info);
  }
}

}  // namespace

std::vector<std::int64_t> create_file(SparseFile& target, const Header& header,
                                      std::span<const TensorRecord> tensors, const State& state) {
  const hdf5::Quiet quiet;
  const Handle access = access_list();
  hdf5::use_sparse_file(access.id(), target);
  const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "make a creation list");
  check(H5Pset_obj_track_times(creation.id(), false), "leave out times");
  Handle file(H5Fcreate(kInMemory, H5F_ACC_TRUNC, creation.id(), access.id()), H5Fclose,
              "create the file's metadata");
  write_header(file.id(), header);
  const Handle links = link_list();
  for (const char* group : {"parameters/", "optimizer/", "state/"})
    create_groups_above(file.id(), group, links);
  for (const auto& [name, text] : state) write_state(file.id(), name, text, links);
  const Handle properties = dataset_list();
  std::vector<std::int64_t> offsets;
  for (const TensorRecord& tensor : tensors)
    offsets.push_back(create_dataset(file.id(), tensor, links, properties));
  file.close("write the file's metadata");
  return offsets;
}

void seal_file(SparseFile& target, std::span<const TensorRecord> tensors,
               std::span<const std::uint64_t> checksums) {
  const hdf5::Quiet quiet;
  const Handle access = access_list();
  hdf5::use_sparse_file(access.id(), target);
  Handle file(H5Fopen(kInMemory, H5F_ACC_RDWR, access.id()), H5Fclose, "open the file's metadata");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Handle dataset = open_dataset(file.id(), tensors[i].path);
    hdf5::write_checksum_attribute(dataset.id(), checksums[i]);
  }
  hdf5::write_integer_attribute(file.id(), "complete", 1);
  file.close("write the file's metadata");
}

Metadata read_metadata(const std::string& path) {
  std::error_code error;
  TESSERA_CHECK(std::filesystem::is_regular_file(path, error), Code::io,
                fmt::format("{} is not a checkpoint file: {}", path,
                            error ? error.message() : "it is not a regular file"));
  Metadata metadata;
  metadata.file_bytes = static_cast<std::int64_t>(std::filesystem::file_size(path));
  const hdf5::Quiet quiet;
  try {
    read_all(path, metadata);
  } catch (const Error& caught) {
    fail(Code::io, fmt::format("cannot read the checkpoint {}: {}", path, caught.what()));
  }
  return metadata;
}

std::string pack(const Metadata& metadata) {
  nlohmann::json datasets = nlohmann::json::array();
  for (const DatasetInfo& info : metadata.datasets)
    datasets.push_back(
        {info.path, info.shape.sizes(), static_cast<int>(info.dtype), info.offset, info.checksum});
  const Header& header = metadata.header;
  const nlohmann::json all = {metadata.format_version,
                              metadata.library_version,
                              header.step,
                              header.samples,
                              header.tokens,
                              header.model,
                              header.config,
                              metadata.state,
                              datasets,
                              metadata.file_bytes};
  const std::vector<std::uint8_t> bytes = nlohmann::json::to_cbor(all);
  return {bytes.begin(), bytes.end()};
}

Metadata unpack(const std::string& text) {
  const nlohmann::json all = nlohmann::json::from_cbor(text);
  Metadata metadata;
  metadata.format_version = all[0];
  metadata.library_version = all[1];
  metadata.header = {all[2], all[3], all[4], all[5], all[6]};
  metadata.state = all[7].get<State>();
  for (const nlohmann::json& item : all[8])
    metadata.datasets.push_back({item[0], Shape(item[1].get<std::vector<std::int64_t>>()),
                                 static_cast<DType>(item[2].get<int>()), item[3], item[4]});
  metadata.file_bytes = all[9];
  return metadata;
}

}  // namespace tessera::checkpoint
