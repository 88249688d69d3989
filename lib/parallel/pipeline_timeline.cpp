// SPDX-License-Identifier: Apache-2.0
// A pipeline schedule as a picture in text.
#include "tessera/parallel/pipeline_timeline.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::parallel {
namespace {

constexpr std::int64_t kMostColumns = 10000;

char letter_of(ActionKind kind) {
  if (kind == ActionKind::forward) return 'F';
  return kind == ActionKind::backward_weight ? 'W' : 'B';
}

std::string label_of(const PipelineShape& shape, const PipelineAction& action) {
  const int chunk = shape.chunk_of(action.stage);
  const char letter = letter_of(action.kind);
  const bool lower = shape.chunks == 2 && chunk == 1;
  std::string label = fmt::format("{}{}", lower ? static_cast<char>(letter - 'A' + 'a') : letter,
                                  action.micro_batch);
  if (shape.chunks > 2) label += static_cast<char>('a' + chunk % 26);
  return label;
}

class Drawing {
 public:
  Drawing(const PipelineSchedule& schedule, const PipelineSimulation& simulation)
      : schedule_(schedule), simulation_(simulation) {
    measure();
  }

  std::string text() const {
    std::string text;
    const auto name_width = fmt::format("rank {}", schedule_.shape.ranks - 1).size();
    for (int rank = 0; rank < schedule_.shape.ranks; ++rank) {
      std::string row = fmt::format("{:<{}} ", fmt::format("rank {}", rank), name_width);
      row += row_of(rank);
      row.erase(row.find_last_not_of(' ') + 1);
      text += row + "\n";
    }
    return text;
  }

 private:
  template <typename Visit>
  void for_computations(int rank, Visit visit) const {
    const auto& list = schedule_.actions[static_cast<std::size_t>(rank)];
    for (std::size_t k = 0; k < list.size(); ++k)
      if (list[k].computes()) visit(list[k], simulation_.intervals(rank)[k]);
  }

  // The width of a column and how many ticks it is.
  void measure() {
    for (int rank = 0; rank < schedule_.shape.ranks; ++rank)
      for_computations(rank, [&](const PipelineAction& action, const auto& interval) {
        ticks_ = std::gcd(ticks_, std::gcd(interval.start, interval.end));
        end_ = std::max(end_, interval.end);
        width_ = std::max(width_, label_of(schedule_.shape, action).size() + 1);
      });
    ticks_ = std::max<std::int64_t>(ticks_, 1);
    TESSERA_CHECK(end_ / ticks_ <= kMostColumns, Code::invalid_argument,
                  fmt::format("a timeline of {} columns: draw fewer micro-batches, or costs with a "
                              "larger common divisor (at most {} columns)",
                              end_ / ticks_, kMostColumns));
  }

  std::size_t place(std::int64_t tick) const {
    return static_cast<std::size_t>(tick / ticks_) * width_;
  }

  std::string row_of(int rank) const {
    std::string row;
    for (std::int64_t tick = 0; tick < end_; tick += ticks_) {
      row += '.';
      row.append(width_ - 1, ' ');
    }
    for_computations(rank, [&](const PipelineAction& action, const auto& interval) {
      const std::size_t length = place(interval.end) - place(interval.start);
      if (length == 0) return;
      std::string box = label_of(schedule_.shape, action);
      box.resize(length - 1, '-');
      row.replace(place(interval.start), length, box + " ");
    });
    return row;
  }

  const PipelineSchedule& schedule_;
  const PipelineSimulation& simulation_;
  std::int64_t ticks_ = 0, end_ = 0;
  std::size_t width_ = 1;
};

}  // namespace

std::string draw_timeline(const PipelineSchedule& schedule, const PipelineSimulation& simulation) {
  return Drawing(schedule, simulation).text();
}

}  // namespace tessera::parallel
