// SPDX-License-Identifier: Apache-2.0
// The conveniences over a communicator's calls that are the same on every transport.
#include "tessera/comm/communicator.hpp"

#include <algorithm>
#include <exception>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

#include "comm/session.hpp"

namespace tessera {

const char* to_string(Reduction reduction) {
  switch (reduction) {
    case Reduction::sum:
      return "sum";
    case Reduction::mean:
      return "mean";
    case Reduction::min:
      return "min";
    case Reduction::max:
      return "max";
  }
  return "unknown";
}

Work Communicator::all_to_all(const void* send, void* receive, std::int64_t count, DType dtype,
                              const Stream& stream) {
  const std::vector<std::int64_t> counts(static_cast<std::size_t>(size()), count);
  return all_to_all_v(send, counts, receive, counts, dtype, stream);
}

void Communicator::all_reduce_scalars(std::span<double> values, Reduction reduction) {
  all_reduce_scalars_raw(values.data(), static_cast<std::int64_t>(values.size()), DType::fp64,
                         reduction);
}

double Communicator::all_reduce_scalar(double value, Reduction reduction) {
  all_reduce_scalars_raw(&value, 1, DType::fp64, reduction);
  return value;
}

std::int64_t Communicator::all_reduce_scalar(std::int64_t value, Reduction reduction) {
  all_reduce_scalars_raw(&value, 1, DType::int64, reduction);
  return value;
}

void Communicator::agree(const std::string& error, Code code) {
  const std::string mine = error.empty() ? "" : fmt::format("{}:{}", static_cast<int>(code), error);
  const std::vector<std::string> all = all_gather_text(mine);
  const auto first = std::find_if(all.begin(), all.end(), [](const auto& t) { return !t.empty(); });
  if (first == all.end()) {
    // Whatever ranks agreed on before, they all go on.
    if (std::uncaught_exceptions() == 0) comm::Session::instance().note_agreed_success();
    return;
  }
  comm::Session::instance().note_agreed_error();
  const auto colon = first->find(':');
  const auto agreed = static_cast<Code>(std::stoi(first->substr(0, colon)));
  const std::string text = first->substr(colon + 1);
  const bool everywhere =
      std::all_of(all.begin(), all.end(), [&](const auto& t) { return t == *first; });
  if (everywhere) fail(agreed, text);
  fail(agreed, fmt::format("rank {}: {}", first - all.begin(), text));
}

}  // namespace tessera
