// SPDX-License-Identifier: Apache-2.0
#include "baselines.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

#include <hdf5.h>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/random.hpp"
#include "tessera/base/shape.hpp"

namespace tessera::bench {
namespace {

constexpr std::int64_t kBlock = std::int64_t{4} << 20;
constexpr std::int64_t kPage = 4096;

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags)
      : descriptor_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {}
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return descriptor_; }  // NOLINT: it is one

 private:
  int descriptor_;
};

int rank_of(MPI_Comm comm) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  return rank;
}

int size_of(MPI_Comm comm) {
  int size = 1;
  MPI_Comm_size(comm, &size);
  return size;
}

void flush(int descriptor, const std::string& path) {
  TESSERA_CHECK(::fsync(descriptor) == 0, Code::io,
                "cannot flush " + path + ": " + std::strerror(errno));
}

// The elements of a piece, wherever they are held.
void copy_piece(const checkpoint::Piece& piece, std::int64_t offset, std::int64_t count,
                float* out) {
  if (piece.data != nullptr)
    std::copy_n(static_cast<const float*>(piece.data) + offset, count, out);
  else
    piece.fill(offset, count, out);
}

}  // namespace

void fill_with_noise(std::span<std::byte> bytes) {
  static std::uint64_t stream = 0;
  const RandomStream random(1234, ++stream);
  for (std::size_t i = 0; i < bytes.size(); i += 16) {
    const auto block = random.block(i / 16);
    std::memcpy(bytes.data() + i, block.data(), std::min(sizeof block, bytes.size() - i));
  }
}

RawFile::RawFile(MPI_Comm comm, std::string path, std::int64_t bytes)
    : comm_(comm), path_(std::move(path)) {
  const std::int64_t share = round_up(ceil_divide(bytes, size_of(comm)), kPage);
  begin_ = std::min(bytes, rank_of(comm) * share);
  end_ = std::min(bytes, begin_ + share);
  state_.resize(static_cast<std::size_t>(round_up(end_ - begin_, kPage) + kPage));
  fill_with_noise(state_);
}

void RawFile::remove() {
  if (rank_of(comm_) == 0) {
    ::unlink(path_.c_str());
    const Descriptor file(path_, O_WRONLY | O_CREAT);
    TESSERA_CHECK(file >= 0, Code::io, "cannot create " + path_ + ": " + std::strerror(errno));
  }
  MPI_Barrier(comm_);
}

void RawFile::write(int flags) {
  const Descriptor file(path_, O_WRONLY | flags);
  TESSERA_CHECK(file >= 0, Code::io, "cannot open " + path_ + ": " + std::strerror(errno));
  const auto address = reinterpret_cast<std::uintptr_t>(state_.data());
  const std::byte* data = state_.data() + (kPage - address % kPage) % kPage;
  const std::int64_t bytes =
      flags == 0 ? end_ - begin_ : round_up(end_ - begin_, kPage);  // O_DIRECT wants whole pages
  for (std::int64_t done = 0; done < bytes; done += kBlock)
    write_at(file, data + done, static_cast<std::size_t>(std::min(kBlock, bytes - done)),
             begin_ + done, path_);
  flush(file, path_);
}

void RawFile::write_buffered() {
  write(0);
}

bool RawFile::write_direct() {
  if (Descriptor(path_, O_WRONLY | O_DIRECT) < 0) return false;
  write(O_DIRECT);
  return true;
}

void RawFile::read() {
  const Descriptor file(path_, O_RDONLY);
  TESSERA_CHECK(file >= 0, Code::io, "cannot open " + path_ + ": " + std::strerror(errno));
  for (std::int64_t done = begin_; done < end_; done += kBlock)
    read_at(file, state_.data() + (done - begin_),
            static_cast<std::size_t>(std::min(kBlock, end_ - done)), done, path_);
}

void RawFile::read_from(const std::string& path, std::span<const BytePlace> places) {
  const Descriptor file(path, O_RDONLY);
  TESSERA_CHECK(file >= 0, Code::io, "cannot open " + path + ": " + std::strerror(errno));
  std::byte* target = state_.data();
  for (const auto& [begin, end] : places)
    for (std::int64_t at = begin; at < end; at += kBlock) {
      const std::int64_t bytes = std::min(kBlock, end - at);
      if (bytes > state_.data() + state_.size() - target) target = state_.data();
      read_at(file, target, static_cast<std::size_t>(bytes), at, path);
      target += bytes;
    }
}

void write_by_one_rank(MPI_Comm comm, const std::string& path,
                       const std::vector<checkpoint::TensorRecord>& tensors) {
  const int rank = rank_of(comm), ranks = size_of(comm);
  if (rank == 0) ::unlink(path.c_str());
  const Descriptor file(rank == 0 ? path : "/dev/null", O_WRONLY | O_CREAT);
  std::int64_t at = 0;
  std::vector<float> mine, whole;
  for (const checkpoint::TensorRecord& tensor : tensors) {
    mine.clear();
    for (const checkpoint::Piece& piece : tensor.pieces) {
      const auto before = static_cast<std::ptrdiff_t>(mine.size());
      mine.resize(mine.size() + static_cast<std::size_t>(piece.count));
      copy_piece(piece, 0, piece.count, mine.data() + before);
    }
    const auto count = static_cast<int>(mine.size());
    std::vector<int> counts(static_cast<std::size_t>(ranks)), starts(counts.size(), 0);
    MPI_Gather(&count, 1, MPI_INT, counts.data(), 1, MPI_INT, 0, comm);
    for (std::size_t r = 1; r < counts.size(); ++r) starts[r] = starts[r - 1] + counts[r - 1];
    whole.resize(static_cast<std::size_t>(rank == 0 ? tensor.shape.numel() : 0));
    MPI_Gatherv(mine.data(), count, MPI_FLOAT, whole.data(), counts.data(), starts.data(),
                MPI_FLOAT, 0, comm);
    if (rank != 0) continue;
    write_at(file, whole.data(), whole.size() * sizeof(float), at, path);
    at += static_cast<std::int64_t>(whole.size() * sizeof(float));
  }
  if (rank == 0) flush(file, path);
  MPI_Barrier(comm);
}

void write_by_hdf5(MPI_Comm comm, const std::string& path,
                   const std::vector<checkpoint::TensorRecord>& tensors) {
  if (rank_of(comm) == 0) ::unlink(path.c_str());
  MPI_Barrier(comm);
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_fapl_mpio(access, comm, MPI_INFO_NULL);
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, access);
  TESSERA_CHECK(file >= 0, Code::io, "parallel HDF5 cannot create " + path);
  const hid_t transfer = H5Pcreate(H5P_DATASET_XFER);
  H5Pset_dxpl_mpio(transfer, H5FD_MPIO_COLLECTIVE);
  const hid_t links = H5Pcreate(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  std::vector<float> buffer;
  for (const checkpoint::TensorRecord& tensor : tensors) {
    // Flat, so that one hyperslab is what a rank owns.
    const auto size = static_cast<hsize_t>(tensor.shape.numel());
    const hid_t space = H5Screate_simple(1, &size, nullptr);
    const hid_t dataset = H5Dcreate2(file, tensor.path.c_str(), H5T_IEEE_F32LE, space, links,
                                     H5P_DEFAULT, H5P_DEFAULT);
    const bool any = !tensor.pieces.empty();
    const hsize_t begin = any ? static_cast<hsize_t>(tensor.pieces[0].begin) : 0;
    const hsize_t count = any ? static_cast<hsize_t>(tensor.pieces[0].count) : 0;
    const hsize_t room = std::max<hsize_t>(count, 1);
    const hid_t memory = H5Screate_simple(1, &room, nullptr);
    buffer.resize(room);
    if (any) {
      H5Sselect_hyperslab(space, H5S_SELECT_SET, &begin, nullptr, &count, nullptr);
      copy_piece(tensor.pieces[0], 0, tensor.pieces[0].count, buffer.data());
    } else {
      H5Sselect_none(space);
      H5Sselect_none(memory);
    }
    const herr_t written =
        H5Dwrite(dataset, H5T_NATIVE_FLOAT, memory, space, transfer, buffer.data());
    TESSERA_CHECK(written >= 0, Code::io, "parallel HDF5 cannot write " + tensor.path);
    H5Sclose(memory);
    H5Dclose(dataset);
    H5Sclose(space);
  }
  H5Pclose(links);
  H5Pclose(transfer);
  H5Pclose(access);
  TESSERA_CHECK(H5Fclose(file) >= 0, Code::io, "parallel HDF5 cannot close " + path);
  flush(Descriptor(path, O_WRONLY), path);
  MPI_Barrier(comm);
}

void forget_cached(const std::string& path) {
  const Descriptor file(path, O_RDONLY);
  // Only clean pages are dropped.
  if (file >= 0 && ::fsync(file) == 0) ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
}

}  // namespace tessera::bench
