// SPDX-License-Identifier: Apache-2.0
// Collectives and messages over one group of ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/base/error.hpp"
#include "tessera/comm/node_map.hpp"
#include "tessera/comm/traffic.hpp"
#include "tessera/comm/work.hpp"
#include "tessera/device/buffer.hpp"
#include "tessera/device/stream.hpp"

namespace tessera {

enum class Reduction : std::uint8_t { sum, mean, min, max };
const char* to_string(Reduction reduction);

/// One part of a reduce-scatter: rank q's piece starts at `send + q * stride` elements and has
/// `count` elements; this rank's reduced piece goes to `receive`, which may be `send + rank *
/// stride` (in place) and may else not overlap. A plain reduce-scatter is one part with stride ==
/// count.
struct ScatterPart {
  const void* send;
  std::int64_t stride;
  void* receive;
  std::int64_t count;
};

/// One part of an all-gather: `count` elements at `send` arrive at `receive + rank * stride` on
/// every rank. In place when `send` is there already.
struct GatherPart {
  const void* send;
  void* receive;
  std::int64_t stride;
  std::int64_t count;
};

/// What a transport implements and everybody else calls. Counts are elements, 64-bit everywhere.
///
/// Collective: every call but send and receive, over the group, in the same order on all ranks with
///   the same count, dtype and reduction. Calls that return Work may return before they are done;
///   buffers must stay untouched until Work::wait. Work is finished in the order of the calls.
///   `progress()` moves pending work on, without blocking; waiting on any communicator of a Runtime
///   moves the others on too.
/// Numerics: a reduction is a left fold in fp32 (fp64 for fp64, integers exactly) by rank inside
/// each
///   node of nodes(), then over the nodes' partial sums in node order, rounded once to the dtype; a
///   mean multiplies once by 1/size after the fold. Transport, chunking and timing never change a
///   bit. min and max propagate NaN.
/// Devices: a call on a GPU's stream takes buffers of that GPU. It starts after what is on the
/// stream
///   and returns at once; Work::wait lets the stream wait, not the host. Their reductions are
///   NCCL's (doc/numerics.md), but over host memory with comm.device_transport mpi, which follows
///   the rule above. Messages on a GPU have no tags: they pair up in the order of the calls.
/// Memory: buffers from allocate() are read in place by peers of the same node; others are staged.
/// Counters: payload bytes and messages by operation in traffic(): reference formulas in
///   doc/numerics.md.
/// Threads: one thread at a time.
/// Errors: invalid_argument for a bad argument, mpi, timeout naming the ranks that did not arrive
/// and
///   the operation, peer_failed after an error on another rank.
class Communicator {
 public:
  /// Collective, unless a rank failed or the Runtime was finalised before.
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Name for messages and the traffic table: the mesh axis, or "world".
  virtual const std::string& name() const = 0;
  /// "self", "shm", "mpi", "hybrid".
  virtual const char* transport() const = 0;
  /// Which ranks of the group share a node: decides the order of the fold, the same on every
  /// transport.
  virtual const NodeMap& nodes() const = 0;

  virtual Work all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction,
                          const Stream& stream = {}) = 0;
  virtual Work reduce_scatter(std::span<const ScatterPart> parts, DType dtype, Reduction reduction,
                              const Stream& stream = {}) = 0;
  virtual Work all_gather(std::span<const GatherPart> parts, DType dtype,
                          const Stream& stream = {}) = 0;
  /// Rank q's `counts[q]` reduced elements; `send` holds the pieces one after the other.
  virtual Work reduce_scatter_v(const void* send, void* receive,
                                std::span<const std::int64_t> counts, DType dtype,
                                Reduction reduction, const Stream& stream = {}) = 0;
  /// Rank q sends `counts[q]` elements; they arrive one after the other.
  virtual Work all_gather_v(const void* send, void* receive, std::span<const std::int64_t> counts,
                            DType dtype, const Stream& stream = {}) = 0;
  virtual Work broadcast(void* data, std::int64_t count, DType dtype, int root,
                         const Stream& stream = {}) = 0;
  /// Pieces lie one after the other on both sides. all_to_all with equal counts is the same call.
  virtual Work all_to_all_v(const void* send, std::span<const std::int64_t> send_counts,
                            void* receive, std::span<const std::int64_t> receive_counts,
                            DType dtype, const Stream& stream = {}) = 0;
  virtual Work send(const void* data, std::int64_t count, DType dtype, int to, int tag = 0,
                    const Stream& stream = {}) = 0;
  virtual Work receive(void* data, std::int64_t count, DType dtype, int from, int tag = 0,
                       const Stream& stream = {}) = 0;
  virtual void barrier() = 0;
  /// Calls between begin and end start together (NCCL needs it for messages in both directions); on
  /// the host a hint.
  virtual void group_begin() {}
  virtual void group_end() {}
  virtual void progress() {}

  /// Small host data, any size on any rank (configuration, names, errors); not counted as traffic.
  virtual std::vector<std::string> all_gather_text(const std::string& text) = 0;
  virtual std::string broadcast_text(const std::string& text, int root) = 0;

  /// Host memory that peers read in place (or registered device memory), zeroed. Collective; sizes
  /// may differ by rank. The buffer may be destroyed at any time by each rank alone; it must not
  /// outlive the communicator.
  virtual Buffer allocate(std::size_t bytes, Purpose purpose) = 0;

  /// The same memory for buffers of a GPU, zeroed on its current stream: registered with the
  /// transport where it has that. For the CPU it is allocate(). Collective.
  virtual Buffer allocate_on(Device device, std::size_t bytes, Purpose purpose) = 0;
  /// Connects the GPUs of the ranks, and by split() those of subgroups. The first collective on a
  /// GPU's stream does it too; send and receive in a group of more than two ranks need it before.
  /// Collective.
  virtual void open_device(Device device) = 0;
  /// "nccl", "mpi" or "self" once a device is open, else "".
  virtual const char* device_transport() const = 0;

  /// Ranks with the same colour form a group, ordered by (key, rank); colour < 0 gives nullptr.
  /// Collective.
  virtual std::unique_ptr<Communicator> split(int color, int key, const std::string& name) = 0;

  virtual Traffic& traffic() = 0;

  // Conveniences over the calls above.
  Work reduce_scatter(const void* send, void* receive, std::int64_t count, DType dtype,
                      Reduction reduction, const Stream& stream = {}) {
    const ScatterPart part{send, count, receive, count};
    return reduce_scatter(std::span(&part, 1), dtype, reduction, stream);
  }
  Work all_gather(const void* send, void* receive, std::int64_t count, DType dtype,
                  const Stream& stream = {}) {
    const GatherPart part{send, receive, count, count};
    return all_gather(std::span(&part, 1), dtype, stream);
  }
  Work all_to_all(const void* send, void* receive, std::int64_t count, DType dtype,
                  const Stream& stream = {});
  /// A few host numbers at once (norms, counts, flags); counted as `scalars`. Blocks.
  void all_reduce_scalars(std::span<double> values, Reduction reduction);
  double all_reduce_scalar(double value, Reduction reduction);
  std::int64_t all_reduce_scalar(std::int64_t value, Reduction reduction);

  /// Turns an error that some ranks saw into one that all ranks throw, naming the first rank that
  /// failed. Call it on every rank at phase boundaries with the local error's text ("" for none).
  /// Collective.
  void agree(const std::string& error, Code code = Code::peer_failed);

 protected:
  /// Scalars are counted apart from data of the same operation.
  virtual void all_reduce_scalars_raw(void* values, std::int64_t count, DType dtype,
                                      Reduction reduction) = 0;
};

/// Runs `body` on every rank; if it throws anywhere, every rank throws (see Communicator::agree).
/// Collective.
template <typename Body>
void agreeing(Communicator& group, Body&& body);

}  // namespace tessera

#include "tessera/comm/agreeing.hpp"
