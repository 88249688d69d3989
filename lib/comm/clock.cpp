// SPDX-License-Identifier: Apache-2.0
// Round trips to rank 0 and its clock.
#include "tessera/comm/clock.hpp"

#include <limits>

namespace tessera {
namespace {

using Clock = std::function<std::int64_t()>;

void send(Communicator& group, std::int64_t value, int to) {
  group.send(&value, 1, DType::int64, to).wait();
}

std::int64_t receive(Communicator& group, int from) {
  std::int64_t value = 0;
  group.receive(&value, 1, DType::int64, from).wait();
  return value;
}

void answer(Communicator& group, const Clock& clock, int rounds) {
  for (int peer = 1; peer < group.size(); ++peer)
    for (int round = 0; round < rounds; ++round) {
      receive(group, peer);
      send(group, clock(), peer);
    }
}

ClockOffset ask(Communicator& group, const Clock& clock, int rounds) {
  ClockOffset best;
  best.error = std::numeric_limits<std::int64_t>::max();
  for (int round = 0; round < rounds; ++round) {
    const std::int64_t begin = clock();
    send(group, 0, 0);
    const std::int64_t theirs = receive(group, 0);
    const std::int64_t half = (clock() - begin + 1) / 2;
    if (half < best.error) best = {theirs - (begin + half), half, begin + half};
  }
  return best;
}

}  // namespace

ClockOffset measure_clock(Communicator& group, const Clock& clock, int rounds) {
  const Traffic::Pause pause(group.traffic());
  if (group.rank() != 0) return ask(group, clock, rounds);
  answer(group, clock, rounds);
  return {0, 0, clock()};
}

}  // namespace tessera
