// SPDX-License-Identifier: Apache-2.0
// NCCL over MPI for tests: the calls that the project uses, as work on emulated streams. MPI calls
// are started and then polled by the stream, so ranks never block each other; one communicator's
// operations start in the order of the calls, whatever their streams.
#include "emulation/nccl.hpp"

#include <algorithm>
#include <cstring>
#include <cuda_runtime_api.h>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <mpi.h>

#include "tessera/base/dtype.hpp"

#include "emulation/emulation.hpp"
#include "emulation/memory.hpp"
#include "emulation/protection.hpp"
#include "emulation/streams.hpp"

using tessera::DType;

namespace tessera::emulation {

namespace {

enum class Kind { reduce, gather, broadcast, send, receive };

/// One call. A reduce with root >= 0 gives its result there only; `scatter`: to each its piece.
struct Call {
  Kind kind = Kind::reduce;
  const std::byte* send = nullptr;
  std::byte* receive = nullptr;
  std::size_t count = 0;  ///< elements that this rank sends
  DType dtype = DType::uint8;
  ncclRedOp_t operation = ncclSum;
  int peer = -1;
  bool scatter = false;
  const char* name = "";

  std::size_t bytes() const { return count * size_of(dtype); }
  // Filled while it runs.
  std::vector<std::byte> out, in;
  MPI_Request request = MPI_REQUEST_NULL;
};

/// The calls of one group on one stream: they run side by side.
struct Batch {
  std::vector<Call> calls;
  bool started = false;
};

}  // namespace

}  // namespace tessera::emulation

struct ncclComm {
  MPI_Comm mpi = MPI_COMM_NULL;
  int rank = 0, size = 1;
  bool aborted = false, finalized = false;
  int polls = 0;  ///< how often it still says that it is busy
  std::deque<std::shared_ptr<tessera::emulation::Batch>> issued;
};

namespace tessera::emulation {

namespace {

ncclResult_t async_error = ncclSuccess;
std::set<ncclComm*>& communicators() {
  static std::set<ncclComm*> open;
  return open;
}

struct Grouped {
  ncclComm* communicator;
  cudaStream_t stream;
  Call call;
};
int depth = 0;
std::vector<Grouped> grouped;

DType dtype_of(ncclDataType_t type) {
  switch (type) {
    case ncclFloat32:
      return DType::fp32;
    case ncclBfloat16:
      return DType::bf16;
    case ncclFloat16:
      return DType::fp16;
    case ncclFloat64:
      return DType::fp64;
    case ncclInt32:
      return DType::int32;
    case ncclInt64:
      return DType::int64;
    default:
      return DType::uint8;
  }
}

/// Waits for MPI without starving the streams that peers wait for.
void wait(MPI_Request* request) {
  int done = 0;
  while (MPI_Test(request, &done, MPI_STATUS_IGNORE), done == 0) {
    const ClosesMemory closes;
    if (!progress()) std::this_thread::yield();
  }
}

bool accessible(const void* address, std::size_t bytes, const char* name) {
  if (bytes == 0) return true;
  const auto found = find_allocation(address);
  const bool inside = found && found->kind == MemoryKind::device &&
                      found->stage == Allocation::Stage::live &&
                      static_cast<const std::byte*>(address) + bytes <= found->begin + found->bytes;
  if (!inside)
    report_fault(FaultKind::memory,
                 fmt::format("{} of {} bytes at {}", name, bytes, describe_address(address)));
  return inside;
}

std::vector<std::byte> read_device(const void* address, std::size_t bytes, const char* name) {
  std::vector<std::byte> values(bytes);
  if (!accessible(address, bytes, name)) return values;
  const std::string what = name;
  const DeviceSide side(what);
  if (bytes > 0) std::memcpy(values.data(), address, bytes);
  return values;
}

void write_device(void* address, const std::byte* values, std::size_t bytes, const char* name) {
  if (!accessible(address, bytes, name)) return;
  const std::string what = name;
  const DeviceSide side(what);
  if (bytes > 0) std::memcpy(address, values, bytes);
}

template <typename T>
T combine(T a, T b, ncclRedOp_t operation) {
  if (operation == ncclMin) return std::min(a, b);
  if (operation == ncclMax) return std::max(a, b);
  return static_cast<T>(a + b);
}

/// A left fold by rank of `ranks` arrays of `count` elements, each `stride` elements after the
/// last.
template <typename T>
void fold(const std::byte* all, std::byte* result, std::size_t count, std::size_t stride, int ranks,
          ncclRedOp_t operation) {
  const auto* values = reinterpret_cast<const T*>(all);
  auto* sums = reinterpret_cast<T*>(result);
  // An average multiplies before it adds, as NCCL does for floating types.
  const T factor = operation == ncclAvg ? static_cast<T>(1.0 / ranks) : T{1};
  for (std::size_t i = 0; i < count; ++i) {
    T sum = static_cast<T>(values[i] * factor);
    for (int r = 1; r < ranks; ++r)
      sum = combine(sum, static_cast<T>(values[static_cast<std::size_t>(r) * stride + i] * factor),
                    operation);
    sums[i] = sum;
  }
}

/// 16-bit types are folded in fp32 and rounded once.
std::vector<std::byte> fold(const std::vector<std::byte>& all, std::size_t first, std::size_t count,
                            std::size_t stride, DType dtype, int ranks, ncclRedOp_t operation) {
  if (dtype == DType::bf16 || dtype == DType::fp16) {
    const std::size_t elements = all.size() / 2;
    std::vector<std::byte> wide(elements * sizeof(float)), narrow(count * 2);
    convert(all.data(), dtype, wide.data(), DType::fp32, elements);
    const std::vector<std::byte> sums =
        fold(wide, first, count, stride, DType::fp32, ranks, operation);
    convert(sums.data(), DType::fp32, narrow.data(), dtype, count);
    return narrow;
  }
  std::vector<std::byte> result(count * size_of(dtype));
  const std::byte* begin = all.data() + first * size_of(dtype);
  switch (dtype) {
    case DType::fp32:
      fold<float>(begin, result.data(), count, stride, ranks, operation);
      break;
    case DType::fp64:
      fold<double>(begin, result.data(), count, stride, ranks, operation);
      break;
    case DType::int32:
      fold<std::int32_t>(begin, result.data(), count, stride, ranks, operation);
      break;
    case DType::int64:
      fold<std::int64_t>(begin, result.data(), count, stride, ranks, operation);
      break;
    default:
      fold<std::uint8_t>(begin, result.data(), count, stride, ranks, operation);
  }
  return result;
}

void start(ncclComm& communicator, Call& call) {
  const int bytes = static_cast<int>(call.bytes());
  const auto ranks = static_cast<std::size_t>(communicator.size);
  const bool sends = call.kind == Kind::reduce || call.kind == Kind::gather ||
                     call.kind == Kind::send ||
                     (call.kind == Kind::broadcast && communicator.rank == call.peer);
  if (sends) call.out = read_device(call.send, call.bytes(), call.name);
  switch (call.kind) {
    case Kind::reduce:
    case Kind::gather:
      call.in.resize(call.bytes() * ranks);
      MPI_Iallgather(call.out.data(), bytes, MPI_BYTE, call.in.data(), bytes, MPI_BYTE,
                     communicator.mpi, &call.request);
      break;
    case Kind::broadcast:
      call.in = call.out;
      call.in.resize(call.bytes());
      MPI_Ibcast(call.in.data(), bytes, MPI_BYTE, call.peer, communicator.mpi, &call.request);
      break;
    case Kind::send:
      MPI_Isend(call.out.data(), bytes, MPI_BYTE, call.peer, 0, communicator.mpi, &call.request);
      break;
    case Kind::receive:
      call.in.resize(call.bytes());
      MPI_Irecv(call.in.data(), bytes, MPI_BYTE, call.peer, 0, communicator.mpi, &call.request);
      break;
  }
}

void finish(const ncclComm& communicator, Call& call) {
  if (call.kind == Kind::send) return;
  if (call.kind == Kind::reduce) {
    if (call.peer >= 0 && call.peer != communicator.rank) return;
    const std::size_t pieces = call.scatter ? static_cast<std::size_t>(communicator.size) : 1;
    const std::size_t piece = call.count / pieces;
    const std::size_t first =
        call.scatter ? piece * static_cast<std::size_t>(communicator.rank) : 0;
    call.in =
        fold(call.in, first, piece, call.count, call.dtype, communicator.size, call.operation);
  }
  write_device(call.receive, call.in.data(), call.in.size(), call.name);
}

/// One step of a batch on its stream.
bool advance(ncclComm& communicator, const std::shared_ptr<Batch>& batch) {
  if (communicator.aborted) return true;
  if (!batch->started) {
    // Later calls of a communicator start after earlier ones have, on every rank.
    for (const auto& earlier : communicator.issued) {
      if (earlier == batch) break;
      if (!earlier->started) return false;
    }
    for (Call& call : batch->calls) start(communicator, call);
    batch->started = true;
  }
  for (Call& call : batch->calls) {
    int done = 0;
    MPI_Test(&call.request, &done, MPI_STATUS_IGNORE);
    if (done == 0) return false;
  }
  for (Call& call : batch->calls) finish(communicator, call);
  std::erase(communicator.issued, batch);
  return true;
}

ncclResult_t issue_group() {
  std::vector<Grouped> all = std::move(grouped);
  grouped.clear();
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].communicator == nullptr) continue;
    auto batch = std::make_shared<Batch>();
    ncclComm* communicator = all[i].communicator;
    const cudaStream_t stream = all[i].stream;
    for (std::size_t j = i; j < all.size(); ++j) {
      if (all[j].communicator != communicator || all[j].stream != stream) continue;
      batch->calls.push_back(std::move(all[j].call));
      all[j].communicator = nullptr;
    }
    communicator->issued.push_back(batch);
    const std::string what = batch->calls.front().name;
    if (enqueue(stream, what, [=] { return advance(*communicator, batch); }) != cudaSuccess)
      return ncclUnhandledCudaError;
  }
  return ncclSuccess;
}

ncclResult_t issue(ncclComm* communicator, cudaStream_t stream, Call call) {
  const Guard guard(mutex());
  if (communicators().count(communicator) == 0 || communicator->finalized) return ncclInvalidUsage;
  grouped.push_back({communicator, stream, std::move(call)});
  return depth > 0 ? ncclSuccess : issue_group();
}

/// A communicator of the ranks that meet at `id`: rank 0 hears of all and tells everybody.
MPI_Comm meet(const ncclUniqueId& id, int rank, int size) {
  int root = 0, tag = 0, world_rank = 0;
  std::memcpy(&root, id.internal, sizeof root);
  std::memcpy(&tag, id.internal + sizeof root, sizeof tag);
  MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
  std::vector<int> members(static_cast<std::size_t>(size));
  MPI_Request request = MPI_REQUEST_NULL;
  const auto at = [&](int r) { return &members[static_cast<std::size_t>(r)]; };
  if (rank == 0) {
    *at(0) = world_rank;
    for (int r = 1; r < size; ++r) {
      int who[2];
      MPI_Irecv(who, 2, MPI_INT, MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &request);
      wait(&request);
      *at(who[0]) = who[1];
    }
    for (int r = 1; r < size; ++r) {
      MPI_Isend(members.data(), size, MPI_INT, *at(r), tag + 1, MPI_COMM_WORLD, &request);
      wait(&request);
    }
  } else {
    const int who[2] = {rank, world_rank};
    MPI_Isend(who, 2, MPI_INT, root, tag, MPI_COMM_WORLD, &request);
    wait(&request);
    MPI_Irecv(members.data(), size, MPI_INT, root, tag + 1, MPI_COMM_WORLD, &request);
    wait(&request);
  }
  MPI_Group world, chosen;
  MPI_Comm_group(MPI_COMM_WORLD, &world);
  MPI_Group_incl(world, size, members.data(), &chosen);
  MPI_Comm made = MPI_COMM_NULL;
  MPI_Comm_create_group(MPI_COMM_WORLD, chosen, tag, &made);
  MPI_Group_free(&chosen);
  MPI_Group_free(&world);
  return made;
}

ncclComm* make(MPI_Comm mpi) {
  auto* communicator = new ncclComm;
  communicator->mpi = mpi;
  communicator->polls = 2;
  MPI_Comm_rank(mpi, &communicator->rank);
  MPI_Comm_size(mpi, &communicator->size);
  communicators().insert(communicator);
  return communicator;
}

Call reduction(const void* send, void* receive, std::size_t count, ncclDataType_t type,
               ncclRedOp_t operation, const char* name) {
  Call call;
  call.kind = Kind::reduce;
  call.send = static_cast<const std::byte*>(send);
  call.receive = static_cast<std::byte*>(receive);
  call.count = count;
  call.dtype = dtype_of(type);
  call.operation = operation;
  call.name = name;
  return call;
}

}  // namespace

void set_nccl_async_error(ncclResult_t error) {
  async_error = error;
}

int open_nccl_communicators() {
  return static_cast<int>(communicators().size());
}

}  // namespace tessera::emulation

using namespace tessera::emulation;  // NOLINT: the rest of the file is NCCL's C interface

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static int next = 0;
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const int tag = 20000 + 2 * next++;
  std::memset(id->internal, 0, sizeof id->internal);
  std::memcpy(id->internal, &rank, sizeof rank);
  std::memcpy(id->internal + sizeof rank, &tag, sizeof tag);
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSuccess        ? "no error"
         : result == ncclRemoteError  ? "remote process exited or there was a network error"
         : result == ncclInvalidUsage ? "invalid usage"
                                      : "emulated error";
}

const char* ncclGetLastError(ncclComm_t) {
  return "";
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* communicator, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  *communicator = make(meet(id, rank, size));
  return config != nullptr && config->blocking == 0 ? ncclInProgress : ncclSuccess;
}

ncclResult_t ncclCommSplit(ncclComm_t parent, int color, int key, ncclComm_t* fresh,
                           ncclConfig_t*) {
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Ibarrier(parent->mpi, &request);
  wait(&request);
  MPI_Comm made = MPI_COMM_NULL;
  MPI_Comm_split(parent->mpi, color == NCCL_SPLIT_NOCOLOR ? MPI_UNDEFINED : color, key, &made);
  *fresh = made == MPI_COMM_NULL ? nullptr : make(made);
  parent->polls = 2;
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t* state) {
  if (communicators().count(communicator) == 0) return ncclInvalidArgument;
  if (async_error != ncclSuccess)
    *state = async_error;
  else
    *state = communicator->polls > 0 && communicator->polls-- > 0 ? ncclInProgress : ncclSuccess;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t communicator) {
  communicator->finalized = true;
  communicator->polls = 2;
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  if (!communicator->finalized || !communicator->issued.empty()) {
    report_fault(FaultKind::misuse,
                 "ncclCommDestroy of a communicator with work, or before "
                 "ncclCommFinalize");
    return ncclInvalidUsage;
  }
  MPI_Comm_free(&communicator->mpi);
  communicators().erase(communicator);
  delete communicator;
  return ncclSuccess;
}

// Its memory and MPI's stay: peers may still write.
ncclResult_t ncclCommAbort(ncclComm_t communicator) {
  communicator->aborted = true;
  communicators().erase(communicator);
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  const Guard guard(mutex());
  if (depth == 0) return ncclInvalidUsage;
  return --depth > 0 ? ncclSuccess : issue_group();
}

ncclResult_t ncclAllReduce(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t operation, ncclComm_t communicator, cudaStream_t stream) {
  return issue(communicator, stream,
               reduction(send, receive, count, type, operation, "ncclAllReduce"));
}

ncclResult_t ncclReduce(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                        ncclRedOp_t operation, int root, ncclComm_t communicator,
                        cudaStream_t stream) {
  Call call = reduction(send, receive, count, type, operation, "ncclReduce");
  call.peer = root;
  return issue(communicator, stream, std::move(call));
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, std::size_t count,
                               ncclDataType_t type, ncclRedOp_t operation, ncclComm_t communicator,
                               cudaStream_t stream) {
  Call call = reduction(send, receive, count * static_cast<std::size_t>(communicator->size), type,
                        operation, "ncclReduceScatter");
  call.scatter = true;
  return issue(communicator, stream, std::move(call));
}

ncclResult_t ncclAllGather(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                           ncclComm_t communicator, cudaStream_t stream) {
  Call call = reduction(send, receive, count, type, ncclSum, "ncclAllGather");
  call.kind = Kind::gather;
  return issue(communicator, stream, std::move(call));
}

ncclResult_t ncclBroadcast(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                           int root, ncclComm_t communicator, cudaStream_t stream) {
  Call call = reduction(send, receive, count, type, ncclSum, "ncclBroadcast");
  call.kind = Kind::broadcast;
  call.peer = root;
  return issue(communicator, stream, std::move(call));
}

ncclResult_t ncclSend(const void* send, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t communicator, cudaStream_t stream) {
  Call call = reduction(send, nullptr, count, type, ncclSum, "ncclSend");
  call.kind = Kind::send;
  call.peer = peer;
  return issue(communicator, stream, std::move(call));
}

ncclResult_t ncclRecv(void* receive, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t communicator, cudaStream_t stream) {
  Call call = reduction(nullptr, receive, count, type, ncclSum, "ncclRecv");
  call.kind = Kind::receive;
  call.peer = peer;
  return issue(communicator, stream, std::move(call));
}

ncclResult_t ncclMemAlloc(void** data, std::size_t bytes) {
  return cudaMalloc(data, bytes) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclMemFree(void* data) {
  return cudaFree(data) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclCommRegister(const ncclComm_t communicator, void* data, std::size_t bytes,
                              void** handle) {
  if (!accessible(data, bytes, "ncclCommRegister")) return ncclInvalidArgument;
  *handle = data;
  return communicators().count(communicator) > 0 ? ncclSuccess : ncclInvalidUsage;
}

ncclResult_t ncclCommDeregister(const ncclComm_t communicator, void*) {
  return communicators().count(communicator) > 0 ? ncclSuccess : ncclInvalidUsage;
}

}  // extern "C"
