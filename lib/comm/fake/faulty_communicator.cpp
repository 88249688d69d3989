// SPDX-License-Identifier: Apache-2.0
// A communicator that misbehaves on purpose.
#include "comm/fake/faulty_communicator.hpp"

#include <chrono>
#include <thread>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/random.hpp"

namespace tessera::comm {

void FaultyCommunicator::misbehave(const char* operation) {
  const std::int64_t call = calls_++;
  TESSERA_CHECK(call != faults_.fail_at, Code::mpi,
                fmt::format("injected failure of {} (call {})", operation, call));
  const auto index = static_cast<std::uint64_t>(call);
  const RandomStream random(faults_.seed, static_cast<std::uint64_t>(rank()));
  double seconds = faults_.delay_seconds;
  if (faults_.jitter_seconds > 0)
    seconds += faults_.jitter_seconds * static_cast<double>(random.uniform(index));
  if (call == faults_.stall_at) seconds += faults_.stall_seconds;
  if (seconds > 0) std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

Work FaultyCommunicator::all_reduce(void* data, std::int64_t count, DType dtype,
                                    Reduction reduction, const Stream& stream) {
  misbehave("all_reduce");
  return inner_.all_reduce(data, count, dtype, reduction, stream);
}

Work FaultyCommunicator::reduce_scatter(std::span<const ScatterPart> parts, DType dtype,
                                        Reduction reduction, const Stream& stream) {
  misbehave("reduce_scatter");
  return inner_.reduce_scatter(parts, dtype, reduction, stream);
}

Work FaultyCommunicator::all_gather(std::span<const GatherPart> parts, DType dtype,
                                    const Stream& stream) {
  misbehave("all_gather");
  return inner_.all_gather(parts, dtype, stream);
}

Work FaultyCommunicator::reduce_scatter_v(const void* send, void* receive,
                                          std::span<const std::int64_t> counts, DType dtype,
                                          Reduction reduction, const Stream& stream) {
  misbehave("reduce_scatter_v");
  return inner_.reduce_scatter_v(send, receive, counts, dtype, reduction, stream);
}

Work FaultyCommunicator::all_gather_v(const void* send, void* receive,
                                      std::span<const std::int64_t> counts, DType dtype,
                                      const Stream& stream) {
  misbehave("all_gather_v");
  return inner_.all_gather_v(send, receive, counts, dtype, stream);
}

Work FaultyCommunicator::broadcast(void* data, std::int64_t count, DType dtype, int root,
                                   const Stream& stream) {
  misbehave("broadcast");
  return inner_.broadcast(data, count, dtype, root, stream);
}

Work FaultyCommunicator::all_to_all_v(const void* send, std::span<const std::int64_t> send_counts,
                                      void* receive, std::span<const std::int64_t> receive_counts,
                                      DType dtype, const Stream& stream) {
  misbehave("all_to_all_v");
  return inner_.all_to_all_v(send, send_counts, receive, receive_counts, dtype, stream);
}

Work FaultyCommunicator::send(const void* data, std::int64_t count, DType dtype, int to, int tag,
                              const Stream& stream) {
  misbehave("send");
  return inner_.send(data, count, dtype, to, tag, stream);
}

Work FaultyCommunicator::receive(void* data, std::int64_t count, DType dtype, int from, int tag,
                                 const Stream& stream) {
  misbehave("receive");
  return inner_.receive(data, count, dtype, from, tag, stream);
}

void FaultyCommunicator::barrier() {
  misbehave("barrier");
  inner_.barrier();
}

std::vector<std::string> FaultyCommunicator::all_gather_text(const std::string& text) {
  misbehave("all_gather_text");
  return inner_.all_gather_text(text);
}

std::string FaultyCommunicator::broadcast_text(const std::string& text, int root) {
  misbehave("broadcast_text");
  return inner_.broadcast_text(text, root);
}

Buffer FaultyCommunicator::allocate(std::size_t bytes, Purpose purpose) {
  misbehave("allocate");
  return inner_.allocate(bytes, purpose);
}

Buffer FaultyCommunicator::allocate_on(Device device, std::size_t bytes, Purpose purpose) {
  misbehave("allocate_on");
  return inner_.allocate_on(device, bytes, purpose);
}

std::unique_ptr<Communicator> FaultyCommunicator::split(int color, int key,
                                                        const std::string& name) {
  misbehave("split");
  return inner_.split(color, key, name);
}

void FaultyCommunicator::all_reduce_scalars_raw(void* values, std::int64_t count, DType dtype,
                                                Reduction reduction) {
  misbehave("all_reduce_scalars");
  if (dtype == DType::fp64) {
    inner_.all_reduce_scalars({static_cast<double*>(values), static_cast<std::size_t>(count)},
                              reduction);
    return;
  }
  auto* numbers = static_cast<std::int64_t*>(values);
  for (std::int64_t i = 0; i < count; ++i)
    numbers[i] = inner_.all_reduce_scalar(numbers[i], reduction);
}

}  // namespace tessera::comm
