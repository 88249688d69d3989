// SPDX-License-Identifier: Apache-2.0
// Collectives and messages on a caller's arrays.
#include "tessera/device/cuda.hpp"

#include "c/array.hpp"
#include "c/guard.hpp"
#include "c/handles.hpp"
#include "c/reduction.hpp"

namespace tessera::c {
namespace {

/// A group whose handle is usable, and the caller's arrays for it.
struct Caller {
  explicit Caller(tessera_group* group) : handle(opened(group, "group")), ranks(*handle.value) {}
  Tensor array(const tessera_array* given, const char* name) const {
    return borrow(given, name, *handle.session);
  }

  tessera_group& handle;
  Communicator& ranks;
};

/// On the device of the array: starts call(stream), and waits until the array may be used.
template <typename Call>
void run_on(const Tensor& array, Call&& call) {
  const Stream stream = current_stream(array.device());
  call(stream).wait();
  stream.synchronize();
}

/// Two contiguous arrays of a collective, of which `whole` holds a piece for each rank.
struct Pieces {
  Tensor send, receive;
  std::int64_t count;  ///< elements of a piece
};

enum class Whole { send, receive, both };

Pieces pieces_of(const Caller& caller, const tessera_array* send, const tessera_array* receive,
                 Whole whole) {
  Pieces pieces{caller.array(send, "send"), caller.array(receive, "receive"), 0};
  const std::int64_t ranks = caller.ranks.size();
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
  TESSERA_CHECK(pieces.send.device() == pieces.receive.device(), Code::invalid_argument,
                fmt::format("`send` lies on {} and `receive` on {}: both have to lie on one device",
                            pieces.send.device().to_string(), pieces.receive.device().to_string()));
  return pieces;
}

}  // namespace
}  // namespace tessera::c

using namespace tessera;
using c::Caller;
using c::guard;
using c::Pieces;
using c::pieces_of;
using c::run_on;

tessera_code tessera_all_reduce(tessera_group* group, const tessera_array* data,
                                tessera_reduction reduction) {
  return guard([&] {
    const Caller caller(group);
    const Tensor array = caller.array(data, "data");
    run_on(array, [&](const Stream& stream) {
      return caller.ranks.all_reduce(array.data(), array.numel(), array.dtype(),
                                     c::reduction_of(reduction), stream);
    });
  });
}

tessera_code tessera_broadcast(tessera_group* group, const tessera_array* data, int root) {
  return guard([&] {
    const Caller caller(group);
    const Tensor array = caller.array(data, "data");
    run_on(array, [&](const Stream& stream) {
      return caller.ranks.broadcast(array.data(), array.numel(), array.dtype(), root, stream);
    });
  });
}

tessera_code tessera_all_gather(tessera_group* group, const tessera_array* send,
                                const tessera_array* receive) {
  return guard([&] {
    const Caller caller(group);
    const Pieces pieces = pieces_of(caller, send, receive, c::Whole::receive);
    run_on(pieces.send, [&](const Stream& stream) {
      return caller.ranks.all_gather(pieces.send.data(), pieces.receive.data(), pieces.count,
                                     pieces.send.dtype(), stream);
    });
  });
}

tessera_code tessera_reduce_scatter(tessera_group* group, const tessera_array* send,
                                    const tessera_array* receive, tessera_reduction reduction) {
  return guard([&] {
    const Caller caller(group);
    const Pieces pieces = pieces_of(caller, send, receive, c::Whole::send);
    run_on(pieces.send, [&](const Stream& stream) {
      return caller.ranks.reduce_scatter(pieces.send.data(), pieces.receive.data(), pieces.count,
                                         pieces.send.dtype(), c::reduction_of(reduction), stream);
    });
  });
}

tessera_code tessera_all_to_all(tessera_group* group, const tessera_array* send,
                                const tessera_array* receive) {
  return guard([&] {
    const Caller caller(group);
    const Pieces pieces = pieces_of(caller, send, receive, c::Whole::both);
    run_on(pieces.send, [&](const Stream& stream) {
      return caller.ranks.all_to_all(pieces.send.data(), pieces.receive.data(), pieces.count,
                                     pieces.send.dtype(), stream);
    });
  });
}

tessera_code tessera_send(tessera_group* group, const tessera_array* data, int to, int tag) {
  return guard([&] {
    const Caller caller(group);
    const Tensor array = caller.array(data, "data");
    run_on(array, [&](const Stream& stream) {
      return caller.ranks.send(array.data(), array.numel(), array.dtype(), to, tag, stream);
    });
  });
}

tessera_code tessera_receive(tessera_group* group, const tessera_array* data, int from, int tag) {
  return guard([&] {
    const Caller caller(group);
    const Tensor array = caller.array(data, "data");
    run_on(array, [&](const Stream& stream) {
      return caller.ranks.receive(array.data(), array.numel(), array.dtype(), from, tag, stream);
    });
  });
}

tessera_code tessera_barrier(tessera_group* group) {
  return guard([&] { Caller(group).ranks.barrier(); });
}
