// SPDX-License-Identifier: Apache-2.0
// Checks lists of actions without executing them.
#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

#include "parallel/pipeline/messages.hpp"

namespace tessera::parallel {
namespace {

// What is done, one bit per kind of action.
using Done = std::uint8_t;
constexpr Done bit(ActionKind kind) {
  return static_cast<Done>(1u << static_cast<unsigned>(kind));
}
constexpr Done kInputGradient =
    static_cast<Done>(bit(ActionKind::backward) | bit(ActionKind::backward_input));

class ListCheck {
 public:
  explicit ListCheck(const PipelineSchedule& schedule)
      : schedule_(schedule),
        shape_(schedule.shape),
        done_(static_cast<std::size_t>(shape_.stages()) *
              static_cast<std::size_t>(shape_.micro_batches)) {}

  void run() {
    for (rank_ = 0; rank_ < shape_.ranks; ++rank_) {
      const auto& list = schedule_.actions[static_cast<std::size_t>(rank_)];
      for (position_ = 0; position_ < list.size(); ++position_) check(list[position_]);
    }
    check_complete();
  }

 private:
  Done& done(int stage, int micro_batch) {
    return done_[static_cast<std::size_t>(stage) * static_cast<std::size_t>(shape_.micro_batches) +
                 static_cast<std::size_t>(micro_batch)];
  }

  void require(bool condition, const PipelineAction& action, const char* problem) const {
    TESSERA_CHECK(condition, Code::invalid_argument,
                  fmt::format("{}: rank {}, action {}, {}: {}", shape_.to_string(), rank_,
                              position_, action.to_string(), problem));
  }

  void check(const PipelineAction& action) {
    require(action.stage >= 0 && action.stage < shape_.stages() && action.micro_batch >= 0 &&
                action.micro_batch < shape_.micro_batches,
            action, "there is no such stage or micro-batch");
    require(shape_.rank_of(action.stage) == rank_, action, "that stage is another rank's");
    Done& marks = done(action.stage, action.micro_batch);
    require(!(marks & bit(action.kind)), action, "it is done twice");
    if (action.computes())
      check_computation(action, marks);
    else
      check_message(action, marks);
    marks = static_cast<Done>(marks | bit(action.kind));
  }

  void check_computation(const PipelineAction& action, Done marks) {
    if (action.kind == ActionKind::backward_weight) {
      require(marks & bit(ActionKind::backward_input), action, "its input gradient comes later");
      return;
    }
    const bool forward = action.kind == ActionKind::forward;
    require(forward || marks & bit(ActionKind::forward), action, "its forward comes later");
    require(forward || !(marks & kInputGradient), action, "there is a backward already");
    if (const auto needed = pipeline::needed_message(shape_, action))
      require(marks & bit(needed->kind), action, "what it needs is received later");
    else
      check_neighbour(action, forward);
  }

  // The stage before or after, if there is one, is on the same rank.
  void check_neighbour(const PipelineAction& action, bool forward) {
    const int other = forward ? action.stage - 1 : action.stage + 1;
    if (other < 0 || other >= shape_.stages()) return;
    const Done marks = done(other, action.micro_batch);
    require(marks & (forward ? bit(ActionKind::forward) : kInputGradient), action,
            "what it needs of this rank's other stage comes later");
  }

  void check_message(const PipelineAction& action, Done marks) {
    const bool gradient = action.kind == ActionKind::send_gradient;
    const Done made = gradient ? kInputGradient : bit(ActionKind::forward);
    require(!action.is_send() || marks & made, action, "it is made later");
    require(action.peer == expected_peer(action), action, "the other stage is not that rank's");
    require(action.peer >= 0 && action.peer != rank_, action,
            "no rank is there to exchange it with");
    if (action.is_send())
      channels_[{rank_, action.peer}].sent.push_back(pipeline::matching_receive(action, rank_));
    else
      channels_[{action.peer, rank_}].received.push_back(action);
  }

  int expected_peer(const PipelineAction& action) const {
    const bool next =
        action.kind == ActionKind::send_activation || action.kind == ActionKind::receive_gradient;
    const int other = next ? action.stage + 1 : action.stage - 1;
    return other < 0 || other >= shape_.stages() ? -1 : shape_.rank_of(other);
  }

  void check_complete() {
    for (int stage = 0; stage < shape_.stages(); ++stage)
      for (int i = 0; i < shape_.micro_batches; ++i) {
        const Done marks = done(stage, i);
        const bool split = marks & bit(ActionKind::backward_input);
        const Done last = bit(split ? ActionKind::backward_weight : ActionKind::backward);
        TESSERA_CHECK(marks & last, Code::invalid_argument,
                      fmt::format("{}: micro-batch {} is not finished in stage {}",
                                  shape_.to_string(), i, stage));
      }
    for (const auto& [pair, channel] : channels_) check_channel(pair.first, pair.second, channel);
  }

  struct Channel {
    std::vector<PipelineAction> sent, received;  // as receives
  };

  void check_channel(int from, int to, const Channel& channel) const {
    const auto& [sent, received] = channel;
    const auto length = std::min(sent.size(), received.size());
    const auto k = static_cast<std::size_t>(
        std::mismatch(sent.begin(), sent.begin() + static_cast<std::ptrdiff_t>(length),
                      received.begin())
            .first -
        sent.begin());
    if (k == sent.size() && k == received.size()) return;
    const auto text = [k](const std::vector<PipelineAction>& side) {
      return k < side.size() ? fmt::format("the {}", side[k].to_string()) : std::string("nothing");
    };
    fail(Code::invalid_argument,
         fmt::format("{}: message {} from rank {} to rank {} is sent for {}, and awaited by {}",
                     shape_.to_string(), k, from, to, text(sent), text(received)));
  }

  const PipelineSchedule& schedule_;
  const PipelineShape& shape_;
  std::vector<Done> done_;
  std::map<std::pair<int, int>, Channel> channels_;
  int rank_ = 0;
  std::size_t position_ = 0;
};

}  // namespace

void check_pipeline_schedule(const PipelineSchedule& schedule) {
  const PipelineShape shape = schedule.shape.resolved();
  TESSERA_CHECK(shape.chunks == schedule.shape.chunks &&
                    schedule.actions.size() == static_cast<std::size_t>(shape.ranks),
                Code::invalid_argument,
                fmt::format("{} with {} lists of actions: each rank needs one",
                            schedule.shape.to_string(), schedule.actions.size()));
  ListCheck(schedule).run();
}

}  // namespace tessera::parallel
