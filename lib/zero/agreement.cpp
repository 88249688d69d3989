// SPDX-License-Identifier: Apache-2.0
// Small collective decisions.
#include "zero/agreement.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::zero {
namespace {

/// FNV-1a: a description may be long, its hash travels.
std::uint64_t hash(const std::string& text) {
  std::uint64_t value = 0xcbf29ce484222325u;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return value;
}

}  // namespace

void agree_on_declaration(Communicator& group, const std::string& description,
                          const std::string& summary) {
  const std::string own = fmt::format("{:016x} {}", hash(description), summary);
  const std::vector<std::string> all = group.all_gather_text(own);
  for (std::size_t rank = 1; rank < all.size(); ++rank)
    TESSERA_CHECK(all[rank] == all[0], Code::invalid_argument,
                  fmt::format("rank {} declares {} and rank 0 {}: names, shapes, options and their "
                              "order have to be the same on every rank",
                              rank, all[rank].substr(17), all[0].substr(17)));
}

void agree_on_step(Communicator& group, bool applied, std::span<double> sums) {
  std::vector<double> all(sums.begin(), sums.end());
  all.push_back(applied ? 1 : 0);
  group.all_reduce_scalars(all, Reduction::sum);
  std::copy_n(all.begin(), sums.size(), sums.begin());
  const auto appliers = static_cast<int>(all.back());
  if (appliers == 0 || appliers == group.size()) return;
  group.agree(
      fmt::format("{} of {} ranks applied a step that the others skipped: their weights are "
                  "no longer those of one model, go on from the last checkpoint",
                  appliers, group.size()),
      Code::internal);
}

NonFinite first_non_finite(Communicator& group, int place, const std::string& name) {
  // Parameter first, then rank, in one number. Not training traffic: the step is lost.
  const Traffic::Pause pause(group.traffic());
  const std::int64_t ranks = group.size();
  const std::int64_t mine =
      place < 0 ? std::numeric_limits<std::int64_t>::max() : place * ranks + group.rank();
  const std::int64_t first = group.all_reduce_scalar(mine, Reduction::min);
  if (first == std::numeric_limits<std::int64_t>::max()) return {};
  const auto owner = static_cast<int>(first % ranks);
  return {group.broadcast_text(name, owner), owner};
}

}  // namespace tessera::zero
