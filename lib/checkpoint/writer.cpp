// SPDX-License-Identifier: Apache-2.0
// Saving: rank 0 lays out the file, every rank writes its pieces, rank 0 commits.
#include "tessera/checkpoint/writer.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <filesystem>
#include <sstream>
#include <sys/resource.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/random.hpp"
#include "tessera/base/timer.hpp"
#include "tessera/checkpoint/checksum.hpp"

#include "checkpoint/fault_point.hpp"
#include "checkpoint/metadata_image.hpp"
#include "checkpoint/stage.hpp"
#include "checkpoint/sum_over_ranks.hpp"

namespace tessera::checkpoint {
namespace {

void check_pieces(const TensorRecord& tensor) {
  for (const Piece& piece : tensor.pieces) {
    const std::int64_t size = tensor.shape.numel();
    const std::int64_t last = piece.begin + (piece.rows - 1) * piece.stride;
    TESSERA_CHECK(piece.begin >= 0 && piece.count >= 0 && piece.rows >= 1 && piece.stride >= 0 &&
                      last <= size - piece.count,
                  Code::invalid_argument,
                  fmt::format("a piece of {} is elements [{}, {} + {}), but the tensor has {}",
                              tensor.path, last, last, piece.count, size));
    TESSERA_CHECK(piece.count == 0 || piece.data != nullptr || piece.fill, Code::invalid_argument,
                  fmt::format("a piece of {} has neither data nor fill", tensor.path));
  }
}

void check_same_list(Communicator& group, const std::vector<TensorRecord>& tensors) {
  std::string list;
  for (const TensorRecord& tensor : tensors)
    list +=
        fmt::format("{} {} {}\n", tensor.path, tensor.shape.to_string(), to_string(tensor.dtype));
  const std::uint64_t hash = checksum_range("datasets", 0, list.data(), DType::uint8,
                                            static_cast<std::int64_t>(list.size()));
  const auto all =
      group.all_gather_text(fmt::format("{} datasets, hash {:016x}", tensors.size(), hash));
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    TESSERA_CHECK(all[rank] == all[0], Code::invalid_argument,
                  fmt::format("ranks list different datasets to save: rank 0 {}, rank {} {}",
                              all[0], rank, all[rank]));
}

/// Every element must belong to one piece. Pieces that tile [0, size) form a path from 0 to size:
/// each inner boundary ends one piece and begins another. A random function h of the boundary turns
/// that into one sum: Σ h(end) - h(begin) = h(size) - h(0) for no other set of pieces.
void check_coverage(Communicator& group, const std::vector<TensorRecord>& tensors) {
  std::vector<std::uint64_t> sums;
  const auto h = [](std::size_t tensor, std::int64_t boundary) {
    return mix(tensor, static_cast<std::uint64_t>(boundary));
  };
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    std::uint64_t elements = 0;
    std::uint64_t boundaries = 0;
    for (const Piece& piece : tensors[t].pieces) {
      elements += static_cast<std::uint64_t>(piece.elements());
      for (std::int64_t row = 0; row < piece.rows; ++row) {
        const std::int64_t begin = piece.begin + row * piece.stride;
        boundaries += h(t, begin + piece.count) - h(t, begin);
      }
    }
    sums.push_back(elements);
    sums.push_back(boundaries);
  }
  sum_over_ranks(group, sums);
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const std::int64_t size = tensors[t].shape.numel();
    const bool tiled =
        sums[2 * t] == static_cast<std::uint64_t>(size) && sums[2 * t + 1] == h(t, size) - h(t, 0);
    TESSERA_CHECK(tiled, Code::invalid_argument,
                  fmt::format("the pieces of {} have {} elements over all ranks, the tensor has "
                              "{}: they leave a hole or overlap",
                              tensors[t].path, sums[2 * t], size));
  }
}

/// Makes the file as long as `size` and asks for the space of `bytes` now, so that a full disk is
/// known before anything is written.
void reserve(int descriptor, const std::string& path, std::int64_t size, std::int64_t bytes) {
  // Beyond the limit a signal would end the process.
  struct rlimit limit {};
  TESSERA_CHECK(::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
                    static_cast<rlim_t>(bytes) <= limit.rlim_cur,
                Code::io,
                fmt::format("cannot write {}: {} bytes are needed, files may have {} (ulimit -f)",
                            path, bytes, limit.rlim_cur));
  const int result = ::fallocate(descriptor, FALLOC_FL_KEEP_SIZE, 0, bytes);
  TESSERA_CHECK(
      result == 0 || (errno != ENOSPC && errno != EDQUOT && errno != EFBIG), Code::io,
      fmt::format("cannot write {}: {} bytes are needed: {}", path, bytes, std::strerror(errno)));
  TESSERA_CHECK(::ftruncate(descriptor, size) == 0, Code::io,
                fmt::format("cannot write {}: {}", path, std::strerror(errno)));
}

}  // namespace

struct Writer::Impl {
  Communicator& group;
  std::string path;
  Header header;
  std::vector<TensorRecord> tensors;
  State state;
  WriteOptions options;
  std::string temporary;
  std::unique_ptr<MetadataImage> image;  // on the first rank
  std::vector<std::int64_t> offsets;
  std::vector<std::uint64_t> checksums;
  int descriptor = -1;
  std::string error;
  WriteReport report;
  Timer timer;

  ~Impl() {
    if (descriptor >= 0) ::close(descriptor);
    if (!temporary.empty() && group.rank() == 0) ::unlink(temporary.c_str());
  }

  void create_on_first_rank() {
    fault_point("create");
    TESSERA_CHECK(options.replace || !std::filesystem::exists(path), Code::io,
                  fmt::format("{} exists already and is not overwritten", path));
    image = std::make_unique<MetadataImage>(header, tensors, state);
    offsets = image->offsets();
    temporary = temporary_name(path);
    open(O_CREAT | O_EXCL);
    reserve(descriptor, path, image->bytes(), image->sealed_bytes());
    image->copy_to(descriptor, path);
  }

  void share_layout() {
    const std::string text = fmt::format("{}\n{}", temporary, fmt::join(offsets, " "));
    std::istringstream layout(group.broadcast_text(text, 0));
    std::getline(layout, temporary);
    offsets.resize(tensors.size());
    for (std::int64_t& offset : offsets) layout >> offset;
  }

  void open(int flags) {
    descriptor = ::open(temporary.c_str(), O_WRONLY | O_CLOEXEC | flags, 0666);
    TESSERA_CHECK(descriptor >= 0, Code::io,
                  fmt::format("cannot open {}: {}", temporary, std::strerror(errno)));
  }

  void write_pieces();
  void flush();
  void seal_and_rename();
};

namespace {

/// Puts one run of a piece through the stage and returns its part of the checksum.
std::uint64_t write_run(Stage& stage, const TensorRecord& tensor, const Piece& piece,
                        std::int64_t row, std::int64_t tensor_offset) {
  const auto item = static_cast<std::int64_t>(size_of(tensor.dtype));
  const std::int64_t begin = piece.begin + row * piece.stride;
  std::uint64_t checksum = 0;
  for (std::int64_t done = 0; done < piece.count;) {
    const std::int64_t offset = tensor_offset + (begin + done) * item;
    const std::int64_t bytes = stage.make_room(offset, (piece.count - done) * item, item);
    const std::int64_t count = bytes / item;
    if (piece.data != nullptr)
      std::memcpy(
          stage.end(),
          static_cast<const std::byte*>(piece.data) + (row * piece.data_stride + done) * item,
          static_cast<std::size_t>(bytes));
    else
      piece.fill(row * piece.count + done, count, stage.end());
    checksum +=
        checksum_range(checksum_name(tensor.path), begin + done, stage.end(), tensor.dtype, count);
    stage.advance(bytes);
    done += count;
  }
  return checksum;
}

}  // namespace

void Writer::Impl::write_pieces() {
  struct Place {
    std::int64_t offset;
    std::size_t tensor;
    const Piece* piece;
  };
  std::vector<Place> places;
  for (std::size_t t = 0; t < tensors.size(); ++t)
    for (const Piece& piece : tensors[t].pieces)
      places.push_back(
          {offsets[t] + piece.begin * static_cast<std::int64_t>(size_of(tensors[t].dtype)), t,
           &piece});
  std::stable_sort(places.begin(), places.end(),
                   [](const Place& a, const Place& b) { return a.offset < b.offset; });
  checksums.assign(tensors.size(), 0);
  Stage stage(descriptor, path, options.staging_bytes, report);
  for (const Place& place : places)
    for (std::int64_t row = 0; row < place.piece->rows; ++row)
      checksums[place.tensor] +=
          write_run(stage, tensors[place.tensor], *place.piece, row, offsets[place.tensor]);
  stage.flush();
  fault_point("flush");
  flush();
}

void Writer::Impl::flush() {
  const int result = ::fsync(descriptor);
  const int flush_error = errno;
  // Network file systems report a full disk as late as here.
  const int closed = ::close(std::exchange(descriptor, -1));
  TESSERA_CHECK(
      result == 0 && closed == 0, Code::io,
      fmt::format("cannot flush {}: {}", path, std::strerror(result != 0 ? flush_error : errno)));
}

void Writer::Impl::seal_and_rename() {
  fault_point("seal");
  image->seal(tensors, checksums);
  open(0);
  image->copy_to(descriptor, path);
  flush();
  image.reset();
  report.file_bytes = static_cast<std::int64_t>(std::filesystem::file_size(temporary));
  fault_point("rename");
  rename_file(temporary, path, options.replace);
  temporary.clear();
}

Writer::Writer(Communicator& group, std::string path, Header header,
               std::vector<TensorRecord> tensors, State state, const WriteOptions& options)
    : impl_(new Impl{group,
                     std::move(path),
                     std::move(header),
                     std::move(tensors),
                     std::move(state),
                     options,
                     {},
                     {},
                     {},
                     {},
                     -1,
                     {},
                     {},
                     {}}) {
  const Traffic::Pause pause(group.traffic());
  agreeing(group, [&] {
    for (const TensorRecord& tensor : impl_->tensors) check_pieces(tensor);
  });
  check_same_list(group, impl_->tensors);
  check_coverage(group, impl_->tensors);
}

Writer::~Writer() = default;

void Writer::create() {
  Communicator& group = impl_->group;
  const Traffic::Pause pause(group.traffic());
  agreeing(group, [&] {
    if (group.rank() == 0) impl_->create_on_first_rank();
  });
  impl_->share_layout();
  agreeing(group, [&] {
    if (group.rank() != 0) impl_->open(0);
  });
}

void Writer::write() noexcept {
  const Timer timer;
  try {
    impl_->write_pieces();
  } catch (const std::exception& error) {
    impl_->error = error.what();
  }
  impl_->report.write_seconds = timer.seconds();
}

WriteReport Writer::commit() {
  Communicator& group = impl_->group;
  const Traffic::Pause pause(group.traffic());
  if (impl_->error.empty() && impl_->checksums.size() != impl_->tensors.size())
    impl_->error = "commit() came before create() and write()";
  group.agree(impl_->error, Code::io);
  sum_over_ranks(group, impl_->checksums);
  agreeing(group, [&] {
    if (group.rank() == 0) impl_->seal_and_rename();
  });
  impl_->report.file_bytes =
      std::stoll(group.broadcast_text(fmt::format("{}", impl_->report.file_bytes), 0));
  impl_->report.seconds = impl_->timer.seconds();
  return impl_->report;
}

WriteReport save(Communicator& group, const std::string& path, const Header& header,
                 std::vector<TensorRecord> tensors, const State& state,
                 const WriteOptions& options) {
  Writer writer(group, path, header, std::move(tensors), state, options);
  writer.create();
  writer.write();
  return writer.commit();
}

}  // namespace tessera::checkpoint
