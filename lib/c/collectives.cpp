// SPDX-License-Identifier: Apache-2.0
// Collectives and messages on a caller's arrays.
#include "c/array.hpp"
#include "c/guard.hpp"
#include "c/handles.hpp"
#include "c/reduction.hpp"

namespace tessera::c {
namespace {

Communicator& communicator_of(tessera_group* group) {
  return value_of(group, "group");
}

/// Two contiguous arrays of a collective, of which `whole` holds a piece for each rank.
struct Pieces {
  Tensor send, receive;
  std::int64_t count;  ///< elements of a piece
};

enum class Whole { send, receive, both };

Pieces pieces_of(const Communicator& group, const tessera_array* send, const tessera_array* receive,
                 Whole whole) {
  Pieces pieces{borrow(send, "send"), borrow(receive, "receive"), 0};
  const std::int64_t ranks = group.size();
  const std::int64_t sent = pieces.send.numel(), received = pieces.receive.numel();
  pieces.count = whole == Whole::receive ? sent : whole == Whole::send ? received : sent / ranks;
  const std::int64_t all = pieces.count * ranks;
  TESSERA_CHECK(
      pieces.send.dtype() == pieces.receive.dtype() && (whole == Whole::receive || sent == all) &&
          (whole == Whole::send || received == all),
      Code::invalid_argument,
      fmt::format("`send` is {} {} and `receive` is {} {}, which does not fit {} ranks",
                  to_string(pieces.send.dtype()), pieces.send.shape().to_string(),
                  to_string(pieces.receive.dtype()), pieces.receive.shape().to_string(), ranks));
  return pieces;
}

}  // namespace
}  // namespace tessera::c

using namespace tessera;
using c::borrow;
using c::communicator_of;
using c::guard;
using c::pieces_of;

tessera_code tessera_all_reduce(tessera_group* group, const tessera_array* data,
                                tessera_reduction reduction) {
  return guard([&] {
    const Tensor array = borrow(data, "data");
    communicator_of(group)
        .all_reduce(array.data(), array.numel(), array.dtype(), c::reduction_of(reduction))
        .wait();
  });
}

tessera_code tessera_broadcast(tessera_group* group, const tessera_array* data, int root) {
  return guard([&] {
    const Tensor array = borrow(data, "data");
    communicator_of(group).broadcast(array.data(), array.numel(), array.dtype(), root).wait();
  });
}

tessera_code tessera_all_gather(tessera_group* group, const tessera_array* send,
                                const tessera_array* receive) {
  return guard([&] {
    Communicator& ranks = communicator_of(group);
    const c::Pieces pieces = pieces_of(ranks, send, receive, c::Whole::receive);
    ranks.all_gather(pieces.send.data(), pieces.receive.data(), pieces.count, pieces.send.dtype())
        .wait();
  });
}

tessera_code tessera_reduce_scatter(tessera_group* group, const tessera_array* send,
                                    const tessera_array* receive, tessera_reduction reduction) {
  return guard([&] {
    Communicator& ranks = communicator_of(group);
    const c::Pieces pieces = pieces_of(ranks, send, receive, c::Whole::send);
    ranks
        .reduce_scatter(pieces.send.data(), pieces.receive.data(), pieces.count,
                        pieces.send.dtype(), c::reduction_of(reduction))
        .wait();
  });
}

tessera_code tessera_all_to_all(tessera_group* group, const tessera_array* send,
                                const tessera_array* receive) {
  return guard([&] {
    Communicator& ranks = communicator_of(group);
    const c::Pieces pieces = pieces_of(ranks, send, receive, c::Whole::both);
    ranks.all_to_all(pieces.send.data(), pieces.receive.data(), pieces.count, pieces.send.dtype())
        .wait();
  });
}

tessera_code tessera_send(tessera_group* group, const tessera_array* data, int to, int tag) {
  return guard([&] {
    const Tensor array = borrow(data, "data");
    communicator_of(group).send(array.data(), array.numel(), array.dtype(), to, tag).wait();
  });
}

tessera_code tessera_receive(tessera_group* group, const tessera_array* data, int from, int tag) {
  return guard([&] {
    const Tensor array = borrow(data, "data");
    communicator_of(group).receive(array.data(), array.numel(), array.dtype(), from, tag).wait();
  });
}

tessera_code tessera_barrier(tessera_group* group) {
  return guard([&] { communicator_of(group).barrier(); });
}
