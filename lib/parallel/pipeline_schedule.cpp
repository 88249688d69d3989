// SPDX-License-Identifier: Apache-2.0
// Names, shapes and the making of pipeline schedules.
#include "tessera/parallel/pipeline_schedule.hpp"

#include <array>
#include <limits>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tessera/base/error.hpp"
#include "tessera/base/nearest_name.hpp"

#include "parallel/pipeline/messages.hpp"
#include "parallel/pipeline/order.hpp"

namespace tessera::parallel {
namespace {

struct KindRow {
  const char* name;
  pipeline::OrderOfRank order;
  int least_chunks, most_chunks;
  const char* chunk_rule;
};

constexpr int kAny = std::numeric_limits<int>::max();
// Stages times micro-batches; more would not fit the memory of a machine either.
constexpr std::int64_t kMostUnits = std::int64_t{1} << 30;

const KindRow& row_of(PipelineKind kind) {
  static const std::array<KindRow, 5> rows = {{
      {"gpipe", pipeline::gpipe_order, 1, 1, "one chunk a rank"},
      {"1f1b", pipeline::one_forward_one_backward_order, 1, 1, "one chunk a rank"},
      {"interleaved-1f1b", pipeline::interleaved_order, 2, kAny, "two or more chunks a rank"},
      {"zero-bubble", pipeline::zero_bubble_order, 1, 1, "one chunk a rank"},
      {"zb-v", pipeline::zb_v_order, 2, 2, "two chunks a rank"},
  }};
  return rows[static_cast<std::size_t>(kind)];
}

const char* phrase(ActionKind kind) {
  static constexpr std::array<const char*, 8> phrases = {
      "forward",
      "backward",
      "input gradient",
      "weight gradient",
      "send of the activation",
      "receive of the activation",
      "send of the gradient",
      "receive of the gradient",
  };
  return phrases[static_cast<std::size_t>(kind)];
}

}  // namespace

const std::vector<PipelineKind>& pipeline_kinds() {
  static const std::vector<PipelineKind> kinds = {
      PipelineKind::gpipe, PipelineKind::one_forward_one_backward, PipelineKind::interleaved,
      PipelineKind::zero_bubble, PipelineKind::zb_v};
  return kinds;
}

const char* to_string(PipelineKind kind) {
  return row_of(kind).name;
}

PipelineKind pipeline_kind(std::string_view name) {
  std::vector<std::string> names;
  for (const PipelineKind kind : pipeline_kinds()) {
    if (name == to_string(kind)) return kind;
    names.emplace_back(to_string(kind));
  }
  fail(Code::invalid_argument,
       fmt::format("there is no pipeline schedule '{}': choose one of {}{}", name,
                   fmt::join(names, ", "), did_you_mean(name, names)));
}

PipelineShape PipelineShape::resolved() const {
  const KindRow& row = row_of(kind);
  TESSERA_CHECK(ranks >= 1, Code::invalid_argument,
                fmt::format("a pipeline of {} ranks: it needs at least 1", ranks));
  TESSERA_CHECK(micro_batches >= 1, Code::invalid_argument,
                fmt::format("a pipeline of {} ranks with {} micro-batches: it needs at least 1",
                            ranks, micro_batches));
  PipelineShape shape = *this;
  if (chunks == 0) shape.chunks = row.least_chunks;
  TESSERA_CHECK(
      shape.chunks >= row.least_chunks && shape.chunks <= row.most_chunks, Code::invalid_argument,
      fmt::format("schedule {} has {}, not {}{}", row.name, row.chunk_rule, chunks,
                  chunks > 1 ? "; interleaved-1f1b takes any number from 2" : "; 1f1b has one"));
  TESSERA_CHECK(std::int64_t{ranks} * shape.chunks <= kMostUnits / micro_batches,
                Code::invalid_argument,
                fmt::format("{} ranks x {} chunks x {} micro-batches: a schedule holds at most {}",
                            ranks, shape.chunks, micro_batches, kMostUnits));
  return shape;
}

int PipelineShape::stage_of(int rank, int chunk) const {
  const bool turned = kind == PipelineKind::zb_v && chunk == 1;
  return chunk * ranks + (turned ? ranks - 1 - rank : rank);
}

int PipelineShape::rank_of(int stage) const {
  const int place = stage % ranks;
  const bool turned = kind == PipelineKind::zb_v && stage >= ranks;
  return turned ? ranks - 1 - place : place;
}

bool PipelineShape::splits_backward() const {
  return kind == PipelineKind::zero_bubble || kind == PipelineKind::zb_v;
}

std::string PipelineShape::to_string() const {
  return fmt::format("{}, {} ranks x {} chunks, {} micro-batches", parallel::to_string(kind), ranks,
                     chunks, micro_batches);
}

std::string PipelineAction::to_string() const {
  if (computes())
    return fmt::format("{} of micro-batch {} in stage {}", phrase(kind), micro_batch, stage);
  return fmt::format("{} of micro-batch {} {} stage {} {} rank {}", phrase(kind), micro_batch,
                     is_send() ? "of" : "for", stage, is_send() ? "to" : "from", peer);
}

PipelineSchedule make_pipeline_schedule(const PipelineShape& shape) {
  const PipelineShape resolved = shape.resolved();
  std::vector<pipeline::RankOrder> orders;
  for (int rank = 0; rank < resolved.ranks; ++rank)
    orders.push_back(row_of(resolved.kind).order(resolved, rank));
  return {resolved, pipeline::with_messages(resolved, orders)};
}

}  // namespace tessera::parallel
