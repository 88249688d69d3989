// SPDX-License-Identifier: Apache-2.0
// Small collective decisions.
#include "zero/agreement.hpp"

#include <cstdint>
#include <limits>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/kernels/reduce.hpp"

namespace tessera::zero {
namespace {

/// FNV-1a: a description may be long, its hash travels.
std::uint64_t hash(const std::string& text) {
  std::uint64_t value = 0xcbf29ce484222325u;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return value;
}

bool has_non_finite(const Context& context, const GradientStore& gradients, const FlatPiece& piece,
                    int unit) {
  const void* gradient = gradients.held(piece, unit);
  return gradient != nullptr && kernels::first_non_finite(context.stream, gradient,
                                                          gradients.held_type(), piece.count) >= 0;
}

/// -1 if all own gradients are finite.
int first_non_finite_parameter(const Context& context, const GradientStore& gradients) {
  for (int u = 0; u < context.units(); ++u)
    for (const FlatPiece& piece : context.layout.pieces(u, context.layout.slice(u, context.rank())))
      if (has_non_finite(context, gradients, piece, u)) return piece.parameter;
  return -1;
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

double sum_in_rank_order(Communicator& group, double own) {
  // A sum in which each place has one value that is not zero is a gather.
  std::vector<double> values(static_cast<std::size_t>(group.size()), 0.0);
  values[static_cast<std::size_t>(group.rank())] = own;
  group.all_reduce_scalars(values, Reduction::sum);
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

NonFinite find_non_finite(const Context& context, const GradientStore& gradients) {
  // Parameter first, then rank, in one number. Not training traffic: the step is lost.
  const Traffic::Pause pause(context.group.traffic());
  const std::int64_t ranks = context.ranks();
  const int own = first_non_finite_parameter(context, gradients);
  const std::int64_t mine =
      own < 0 ? std::numeric_limits<std::int64_t>::max() : own * ranks + context.rank();
  const std::int64_t first = context.group.all_reduce_scalar(mine, Reduction::min);
  if (first == std::numeric_limits<std::int64_t>::max()) return {};
  return {static_cast<int>(first / ranks), static_cast<int>(first % ranks)};
}

}  // namespace tessera::zero
