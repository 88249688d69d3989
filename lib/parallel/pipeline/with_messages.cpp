// SPDX-License-Identifier: Apache-2.0
// Finds the places of sends and receives by executing the orders once.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <unordered_map>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

#include "parallel/pipeline/messages.hpp"

namespace tessera::parallel::pipeline {
namespace {

using Key = std::int64_t;  // place in the serial execution
constexpr Key kNever = std::numeric_limits<Key>::max();

int steps_of(const PipelineAction& computation) {
  return computation.kind == ActionKind::backward ? 2 : 1;
}

struct Event {
  Key key;
  PipelineAction action;
};

// A message under way or done: where its receive stands, and up to where that may move.
struct Message {
  PipelineAction receive;
  std::size_t event = 0;  // of the receive, in the receiver's events
  Key limit = kNever;
};

// From one rank to another.
struct Channel {
  int from = 0;
  std::vector<Message> messages;  // in the order of sending
  std::size_t received = 0;
  bool full() const { return messages.size() > received; }
};

struct Rank {
  std::vector<Channel> incoming;
  std::size_t next = 0;  // computation of its order
  std::int64_t busy_until = 0;
  bool computing = false;
  std::optional<PipelineAction> to_send;
  std::unordered_map<std::int64_t, Message*> waiting;  // received, not yet used
  std::vector<Event> events;
};

class Execution {
 public:
  Execution(const PipelineShape& shape, const std::vector<RankOrder>& orders)
      : shape_(shape), orders_(orders), ranks_(orders.size()) {
    for (std::size_t r = 0; r < ranks_.size(); ++r) add_channels(static_cast<int>(r));
  }

  std::vector<std::vector<PipelineAction>> lists() {
    for (std::int64_t time = 0; !finished(); ++time) step(time);
    std::vector<std::vector<PipelineAction>> lists;
    for (Rank& rank : ranks_) lists.push_back(list_of(rank));
    return lists;
  }

 private:
  static std::size_t at(int index) { return static_cast<std::size_t>(index); }

  void add_channels(int rank) {
    for (const int step : {shape_.ranks - 1, 1}) {
      const int from = (rank + step) % shape_.ranks;
      auto& incoming = ranks_[at(rank)].incoming;
      const bool known = std::any_of(incoming.begin(), incoming.end(),
                                     [&](const Channel& channel) { return channel.from == from; });
      if (from == rank || known) continue;
      incoming.emplace_back().from = from;
      incoming.back().messages.reserve(2 * at(shape_.micro_batches) * at(shape_.chunks));
    }
  }

  Channel& channel(int from, int to) {
    auto& incoming = ranks_[at(to)].incoming;
    return incoming.front().from == from ? incoming.front() : incoming.back();
  }

  std::int64_t identity(const PipelineAction& receive) const {
    const int gradient = receive.kind == ActionKind::receive_gradient ? 1 : 0;
    return (std::int64_t{receive.micro_batch} * shape_.stages() + receive.stage) * 2 + gradient;
  }

  // Keys are even; a moved receive takes the odd place before what limits it.
  Key record(Rank& rank, const PipelineAction& action) {
    key_ += 2;
    rank.events.push_back({key_, action});
    return key_;
  }

  bool finished() const {
    for (std::size_t r = 0; r < ranks_.size(); ++r)
      if (ranks_[r].next < orders_[r].size() || ranks_[r].computing || ranks_[r].to_send)
        return false;
    return true;
  }

  // One moment: computations end, messages move until none can, computations begin.
  void step(std::int64_t time) {
    bool alive = false;
    for (std::size_t r = 0; r < ranks_.size(); ++r) alive |= end_computation(r, time);
    for (bool moved = true; moved; alive |= moved) moved = move_messages();
    for (std::size_t r = 0; r < ranks_.size(); ++r) alive |= begin_computation(r, time);
    TESSERA_CHECK(alive, Code::internal,
                  fmt::format("the order of {} cannot be executed", shape_.to_string()));
  }

  // True while the rank computes or has just ended.
  bool end_computation(std::size_t r, std::int64_t time) {
    Rank& rank = ranks_[r];
    if (!rank.computing) return false;
    if (rank.busy_until > time) return true;
    const PipelineAction& action = orders_[r][rank.next++];
    rank.computing = false;
    const Key key = record(rank, action);
    if (const auto needed = needed_message(shape_, action)) {
      const auto used = rank.waiting.find(identity(*needed));
      used->second->limit = std::min(used->second->limit, key);
      rank.waiting.erase(used);
    }
    rank.to_send = made_message(shape_, action);
    return true;
  }

  bool move_messages() {
    bool moved = false;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      if (ranks_[r].computing) continue;
      for (Channel& incoming : ranks_[r].incoming) moved |= receive(ranks_[r], incoming);
      moved |= send(static_cast<int>(r));
    }
    return moved;
  }

  bool receive(Rank& rank, Channel& incoming) {
    if (!incoming.full()) return false;
    Message& message = incoming.messages[incoming.received++];
    message.event = rank.events.size();
    record(rank, message.receive);
    rank.waiting.emplace(identity(message.receive), &message);
    return true;
  }

  bool send(int from) {
    Rank& rank = ranks_[at(from)];
    if (!rank.to_send) return false;
    Channel& outgoing = channel(from, rank.to_send->peer);
    if (outgoing.full()) return false;
    const Key key = record(rank, *rank.to_send);
    if (!outgoing.messages.empty()) {
      Message& previous = outgoing.messages.back();
      previous.limit = std::min(previous.limit, key);
    }
    outgoing.messages.push_back({matching_receive(*rank.to_send, from)});
    rank.to_send.reset();
    return true;
  }

  bool begin_computation(std::size_t r, std::int64_t time) {
    Rank& rank = ranks_[r];
    if (rank.computing || rank.to_send || rank.next == orders_[r].size()) return false;
    const PipelineAction& action = orders_[r][rank.next];
    const auto needed = needed_message(shape_, action);
    if (needed && !rank.waiting.contains(identity(*needed))) return false;
    rank.computing = true;
    rank.busy_until = time + steps_of(action);
    return true;
  }

  std::vector<PipelineAction> list_of(Rank& rank) const {
    for (const Channel& incoming : rank.incoming)
      for (const Message& message : incoming.messages)
        rank.events[message.event].key = message.limit - 1;
    std::sort(rank.events.begin(), rank.events.end(),
              [](const Event& a, const Event& b) { return a.key < b.key; });
    std::vector<PipelineAction> list;
    list.reserve(rank.events.size());
    for (const Event& event : rank.events) list.push_back(event.action);
    return list;
  }

  const PipelineShape& shape_;
  const std::vector<RankOrder>& orders_;
  std::vector<Rank> ranks_;
  Key key_ = 0;
};

}  // namespace

std::vector<std::vector<PipelineAction>> with_messages(const PipelineShape& shape,
                                                       const std::vector<RankOrder>& orders) {
  return Execution(shape, orders).lists();
}

}  // namespace tessera::parallel::pipeline
