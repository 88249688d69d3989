// SPDX-License-Identifier: Apache-2.0
#include "tessera/planning/search.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace tessera::planning {
namespace {

std::vector<int> divisors(int number, int most) {
  std::vector<int> result;
  for (int i = 1; i <= std::min(number, most); ++i)
    if (number % i == 0) result.push_back(i);
  return result;
}

// What no forecast can tell apart.
constexpr double kGain = 0.999;

// From the least work to the least memory.
constexpr std::array<std::pair<config::Recompute, int>, 7> kRecomputations{
    {{config::Recompute::none, 1},
     {config::Recompute::selective, 4},
     {config::Recompute::selective, 2},
     {config::Recompute::selective, 1},
     {config::Recompute::full, 4},
     {config::Recompute::full, 2},
     {config::Recompute::full, 1}}};

class Search {
 public:
  Search(const Workload& work, const Machine& machine, std::int64_t memory)
      : work_(work), machine_(machine), memory_(memory) {}

  SearchResult run(int ranks, const MeshShape& most) {
    const auto limit = [](int asked, std::int64_t parts) {
      return static_cast<int>(std::min<std::int64_t>(asked, parts));
    };
    for (const int tensor : divisors(ranks, limit(most.tensor, work_.model.heads)))
      for (const int sequence :
           divisors(ranks / tensor, limit(most.sequence, longest_sequence_axis(tensor))))
        for (const int pipeline :
             divisors(ranks / tensor / sequence, limit(most.pipeline, work_.model.layers))) {
          const int data = ranks / tensor / sequence / pipeline;
          if (work_.batch % data == 0) try_mesh({pipeline, data, sequence, tensor});
        }
    std::sort(result_.plans.begin(), result_.plans.end(), [](const Plan& a, const Plan& b) {
      return a.forecast.seconds.total() < b.forecast.seconds.total();
    });
    return result_;
  }

 private:
  /// A head on each rank, or for a ring two tokens.
  std::int64_t longest_sequence_axis(int tensor) const {
    return std::max(std::min(work_.model.key_heads() / tensor, work_.length), work_.length / 2);
  }

  void try_mesh(const MeshShape& mesh) {
    std::vector<Plan> best;
    const std::int64_t rows = work_.batch / mesh.data;
    // The largest first: products like many rows, which the forecast does not know.
    for (std::int64_t micro = rows & -rows; micro >= 1; micro /= 2)
      for (int stage = 0; stage <= 3; ++stage)
        for (const auto& [recompute, every] : kRecomputations)
          for (const bool token_shards : {false, true}) {
            if (token_shards && mesh.tensor == 1) continue;
            const Layout layout{.mesh = mesh,
                                .stage = stage,
                                .micro_batch = micro,
                                .recompute = recompute,
                                .recompute_every = every,
                                .sequence_parallel = token_shards};
            try_layout({layout, forecast(work_, machine_, layout)}, best);
          }
    result_.plans.insert(result_.plans.end(), best.begin(), best.end());
  }

  // Of those that are about as fast the first, which does less: stages and recomputations come in
  // that order.
  void try_layout(const Plan& plan, std::vector<Plan>& best) {
    const auto bytes = [](const Plan& one) { return one.forecast.memory.total(); };
    const auto time = [](const Plan& one) { return one.forecast.seconds.total(); };
    Plan& smallest = result_.smallest;
    if (smallest.layout.micro_batch == 0 || bytes(plan) < bytes(smallest)) smallest = plan;
    if (bytes(plan) > memory_) return;
    if (best.empty()) best.push_back(plan);
    if (time(plan) < kGain * time(best.front())) best.front() = plan;
  }

  const Workload& work_;
  const Machine& machine_;
  std::int64_t memory_;
  SearchResult result_{{}, {.layout = {.micro_batch = 0}, .forecast = {}}};
};

}  // namespace

SearchResult search_plans(const Workload& work, const Machine& machine, int ranks,
                          std::int64_t memory, const MeshShape& most) {
  return Search(work, machine, memory).run(ranks, most);
}

}  // namespace tessera::planning
