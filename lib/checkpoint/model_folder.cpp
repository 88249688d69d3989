// SPDX-License-Identifier: Apache-2.0
// Writing model folders: one plan on every rank, rank 0 makes the files, every rank fills its part.
#include "tessera/checkpoint/model_folder.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <optional>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"
#include "tessera/base/timer.hpp"
#include "tessera/checkpoint/checksum.hpp"
#include "tessera/device/buffer.hpp"

#include "checkpoint/fault_point.hpp"
#include "checkpoint/safetensors_layout.hpp"
#include "checkpoint/sum_over_ranks.hpp"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndex = "model.safetensors.index.json";

struct Shard {
  std::string name;
  std::vector<std::size_t> tensors;  // indices, in the order of the file
  std::vector<std::int64_t> offsets;
  std::string head;
  std::int64_t bytes = 0;
};

struct Plan {
  std::vector<Shard> shards;
  std::int64_t elements = 0;
  std::int64_t bytes = 0;
  std::string index;  // text of the index file; empty for a single file
};

std::string shard_name(std::size_t i, std::size_t count) {
  if (count == 1) return "model.safetensors";
  return fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, count);
}

Shard plan_shard(const std::string& name, const std::vector<std::size_t>& members,
                 std::span<const SafetensorsInput> inputs) {
  std::vector<SafetensorsInput> mine;
  for (const std::size_t i : members) mine.push_back(inputs[i]);
  SafetensorsLayout layout = lay_out_safetensors(name, mine, {});
  Shard shard{name, {}, {}, std::move(layout.head), layout.file_bytes};
  for (const std::size_t i : layout.order) {
    shard.tensors.push_back(members[i]);
    shard.offsets.push_back(layout.offsets[i]);
  }
  return shard;
}

Plan make_plan(const Reader& source, std::span<const FolderTensor> tensors,
               const FolderOptions& options) {
  TESSERA_CHECK(
      options.dtype == DType::fp32 || options.dtype == DType::bf16 || options.dtype == DType::fp16,
      Code::invalid_argument,
      fmt::format("weights cannot be written in {}: fp32, bf16 or fp16", to_string(options.dtype)));
  TESSERA_CHECK(options.max_shard_bytes > 0, Code::invalid_argument,
                "the largest size of a shard must be positive");
  Plan plan;
  std::vector<SafetensorsInput> inputs;
  std::vector<std::int64_t> bytes;
  for (const FolderTensor& tensor : tensors) {
    const DatasetInfo& info = source.dataset(tensor.dataset);
    TESSERA_CHECK(is_floating(info.dtype), Code::io,
                  fmt::format("{} in {} holds {}, which does not convert to {}", info.path,
                              source.path(), to_string(info.dtype), to_string(options.dtype)));
    inputs.push_back({tensor.name, options.dtype, info.shape, nullptr});
    bytes.push_back(info.shape.numel() * static_cast<std::int64_t>(size_of(options.dtype)));
    plan.elements += info.shape.numel();
    plan.bytes += bytes.back();
  }
  const auto divided = divide_into_shards(bytes, options.max_shard_bytes);
  nlohmann::json weight_map = nlohmann::json::object();
  for (std::size_t i = 0; i < divided.size(); ++i) {
    plan.shards.push_back(plan_shard(shard_name(i, divided.size()), divided[i], inputs));
    for (const std::size_t t : divided[i]) weight_map[tensors[t].name] = plan.shards[i].name;
  }
  if (divided.size() > 1) {
    const nlohmann::json index = {{"metadata", {{"total_size", plan.bytes}}},
                                  {"weight_map", std::move(weight_map)}};
    plan.index = index.dump(2) + "\n";
  }
  return plan;
}

/// Errors unless `folder` may get its new content at the end.
void check_target(const std::string& folder, bool replace) {
  if (!fs::exists(fs::symlink_status(folder))) return;
  TESSERA_CHECK(replace, Code::io, fmt::format("{} exists already and is not overwritten", folder));
  bool plain = fs::is_directory(folder);
  bool empty = true;
  if (plain)
    for (const auto& entry : fs::directory_iterator(folder)) {
      empty = false;
      plain = plain && !entry.is_directory();
    }
  TESSERA_CHECK(plain && (empty || fs::exists(fs::path(folder) / "config.json")),
                Code::invalid_argument,
                fmt::format("{} is not a model folder (config.json and no folders inside): it is "
                            "not replaced; move it away or give another name",
                            folder));
}

class File {
 public:
  File(const std::string& path, int flags)
      : path_(path), descriptor_(::open(path.c_str(), flags | O_WRONLY | O_CLOEXEC, 0666)) {
    check(descriptor_ >= 0, "open");
  }
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  /// So that a full disk is known before the long work.
  void reserve(std::int64_t bytes) {
    const bool reserved = ::fallocate(descriptor_, 0, 0, bytes) == 0;
    const bool full = !reserved && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG);
    check(!full, "write");
    if (!reserved) check(::ftruncate(descriptor_, bytes) == 0, "write");
  }
  void write(const void* data, std::int64_t bytes, std::int64_t offset) {
    write_at(descriptor_, data, static_cast<std::size_t>(bytes), offset, path_);
  }
  void flush() {
    fault_point("flush");
    check(::fsync(descriptor_) == 0, "flush");
    // Network file systems report a full disk as late as here.
    check(::close(std::exchange(descriptor_, -1)) == 0, "flush");
  }

 private:
  void check(bool good, const char* what) {
    const int error = errno;
    TESSERA_CHECK(good, Code::io,
                  fmt::format("cannot {} {}: {}", what, path_, std::strerror(error)));
  }

  std::string path_;
  int descriptor_;
};

/// The folder under its temporary name; removed unless commit() is reached.
class TemporaryModelFolder {
 public:
  TemporaryModelFolder(const std::string& target, bool replace)
      : target_(target), replace_(replace) {
    check_target(target, replace);
    fault_point("create");
    std::error_code error;
    fs::create_directories(folder_of(target), error);
    const std::string name = temporary_name(target);
    if (!error) fs::create_directory(name, error);
    TESSERA_CHECK(!error, Code::io,
                  fmt::format("cannot make the folder {}: {}", target, error.message()));
    path_ = name;
  }
  ~TemporaryModelFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  TemporaryModelFolder(const TemporaryModelFolder&) = delete;
  TemporaryModelFolder& operator=(const TemporaryModelFolder&) = delete;

  const std::string& path() const { return path_; }

  void fill(const Plan& plan, const FolderOptions& options) const {
    for (const Shard& shard : plan.shards) {
      File file(path_ + "/" + shard.name, O_CREAT | O_EXCL);
      file.reserve(shard.bytes);
      file.write(shard.head.data(), static_cast<std::int64_t>(shard.head.size()), 0);
      file.flush();
    }
    if (!plan.index.empty()) write_text(path_ + "/" + kIndex, plan.index);
    for (const auto& [name, text] : options.texts) write_text(path_ + "/" + name, text);
    for (const auto& [name, from] : options.copies) write_text(path_ + "/" + name, read_text(from));
  }

  void commit() {
    fault_point("rename");
    sync_to_disk(path_);
    rename_folder(path_, target_, replace_);
    path_.clear();
  }

 private:
  std::string target_;
  bool replace_;
  std::string path_;
};

/// Converts blocks of one dataset after another, adding up their checksums.
class Converter {
 public:
  Converter(const Reader& source, const FolderOptions& options)
      : source_(source),
        dtype_(options.dtype),
        // fp64, the widest, in one half; what it becomes in the other.
        block_(std::max<std::int64_t>(options.staging_bytes / 16, 1024)),
        stored_(allocate(static_cast<std::size_t>(block_) * 8, Device{}, Purpose::workspace)),
        converted_(allocate(static_cast<std::size_t>(block_) * 4, Device{}, Purpose::workspace)) {}

  /// Elements [begin, end) of a tensor that begins at byte `offset` of `file`; their checksum.
  std::uint64_t run(const DatasetInfo& info, std::int64_t begin, std::int64_t end, File& file,
                    std::int64_t offset) {
    const auto width = static_cast<std::int64_t>(size_of(dtype_));
    std::uint64_t sum = 0;
    for (; begin < end; begin += block_) {
      const std::int64_t count = std::min(block_, end - begin);
      source_.read(info.path, begin, count, info.dtype, stored_.data());
      sum += checksum_range(checksum_name(info.path), begin, stored_.data(), info.dtype, count);
      convert(stored_.data(), info.dtype, converted_.data(), dtype_,
              static_cast<std::size_t>(count));
      check_range(info, begin, count);
      fault_point("write");
      file.write(converted_.data(), count * width, offset + begin * width);
    }
    return sum;
  }

  /// What is wrong with the values that went through; empty when all is well.
  const std::string& too_large() const { return too_large_; }

 private:
  /// Value i of a buffer.
  static double value(const Buffer& buffer, DType dtype, std::int64_t i) {
    double wide = 0;
    convert(buffer.as<std::byte>() + i * static_cast<std::int64_t>(size_of(dtype)), dtype, &wide,
            DType::fp64, 1);
    return wide;
  }

  /// Notes the first finite value that became infinite.
  void check_range(const DatasetInfo& info, std::int64_t begin, std::int64_t count) {
    if (size_of(dtype_) != 2 || !too_large_.empty()) return;
    const std::uint16_t infinity = dtype_ == DType::fp16 ? 0x7c00 : 0x7f80;
    const auto* bits = converted_.as<std::uint16_t>();
    for (std::int64_t i = 0; i < count; ++i) {
      if ((bits[i] & 0x7fff) != infinity) continue;
      const double before = value(stored_, info.dtype, i);
      if (std::isinf(before)) continue;
      too_large_ = fmt::format(
          "element {} of {} is {:g}, which is too large for {}: convert to fp32{}", begin + i,
          info.path, before, to_string(dtype_), dtype_ == DType::fp16 ? " or bf16" : "");
      return;
    }
  }

  const Reader& source_;
  DType dtype_;
  std::int64_t block_;
  Buffer stored_;
  Buffer converted_;
  std::string too_large_;
};

/// Writes this rank's share of all elements, as they lie in the files; gives its parts of the
/// tensors' checksums.
std::vector<std::uint64_t> write_share(const Plan& plan, const Reader& source,
                                       std::span<const FolderTensor> tensors,
                                       const std::string& folder, Converter& converter, int rank,
                                       int ranks) {
  const std::int64_t share = ceil_divide(plan.elements, ranks);
  const std::int64_t first = std::min(rank * share, plan.elements);
  const std::int64_t last = std::min(first + share, plan.elements);
  std::vector<std::uint64_t> sums(tensors.size(), 0);
  std::int64_t position = 0;
  for (const Shard& shard : plan.shards) {
    std::optional<File> file;
    for (std::size_t i = 0; i < shard.tensors.size(); ++i) {
      const std::size_t t = shard.tensors[i];
      const DatasetInfo& info = source.dataset(tensors[t].dataset);
      const std::int64_t begin = std::max(first, position);
      const std::int64_t end = std::min(last, position + info.shape.numel());
      if (begin < end) {
        if (!file) file.emplace(folder + "/" + shard.name, 0);
        sums[t] = converter.run(info, begin - position, end - position, *file, shard.offsets[i]);
      }
      position += info.shape.numel();
    }
    if (file) file->flush();
  }
  return sums;
}

void check_sums(const Reader& source, std::span<const FolderTensor> tensors,
                const std::vector<std::uint64_t>& sums) {
  std::string damaged;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const DatasetInfo& info = source.dataset(tensors[i].dataset);
    if (sums[i] != info.checksum)
      damaged += fmt::format("\n  {}: expected {}, found {}", info.path,
                             format_checksum(info.checksum), format_checksum(sums[i]));
  }
  TESSERA_CHECK(
      damaged.empty(), Code::io,
      fmt::format("{} is damaged and is not exported; take another checkpoint. Checksums:{}",
                  source.path(), damaged));
}

/// Without the slash that shells add to the names of folders.
std::string without_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

}  // namespace

std::vector<std::vector<std::size_t>> divide_into_shards(std::span<const std::int64_t> bytes,
                                                         std::int64_t max_shard_bytes) {
  std::vector<std::vector<std::size_t>> shards;
  std::vector<std::size_t> current;
  std::int64_t size = 0;
  const auto close = [&] {
    if (!current.empty()) shards.push_back(std::exchange(current, {}));
    size = 0;
  };
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] > max_shard_bytes) {
      shards.push_back({i});
      continue;
    }
    if (size > max_shard_bytes - bytes[i]) close();
    current.push_back(i);
    size += bytes[i];
  }
  close();
  if (shards.empty()) shards.emplace_back();
  return shards;
}

FolderReport write_model_folder(Communicator& group, const Reader& source,
                                std::span<const FolderTensor> tensors, const std::string& folder,
                                const FolderOptions& options) {
  const Traffic::Pause pause(group.traffic());
  const Timer timer;
  Plan plan;
  std::optional<TemporaryModelFolder> target;
  agreeing(group, [&] {
    plan = make_plan(source, tensors, options);
    if (group.rank() != 0) return;
    target.emplace(without_slash(folder), options.replace);
    target->fill(plan, options);
  });
  const std::string path = group.broadcast_text(target ? target->path() : "", 0);
  Converter converter(source, options);
  std::vector<std::uint64_t> sums;
  agreeing(group, [&] {
    sums = write_share(plan, source, tensors, path, converter, group.rank(), group.size());
  });
  sum_over_ranks(group, sums);
  agreeing(group, [&] { check_sums(source, tensors, sums); });
  group.agree(converter.too_large(), Code::invalid_argument);
  agreeing(group, [&] {
    if (target) target->commit();
  });
  return {static_cast<std::int64_t>(plan.shards.size()), plan.bytes, timer.seconds()};
}

}  // namespace tessera::checkpoint
