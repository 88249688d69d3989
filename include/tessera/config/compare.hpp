// SPDX-License-Identifier: Apache-2.0
// Whether two configurations belong to the same run, and whether all ranks read the same one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tessera/config/run_config.hpp"

namespace tessera::config {

struct Difference {
  std::string path;
  std::string first;  ///< JSON text; empty: not there
  std::string second;
};

/// The first difference among what may not change when a run is continued: model, data, tokenizer,
/// sequence length, global batch, seed, kind of optimizer. Mesh, stage, transport, threads, folder,
/// length of the run, rates and dtype may differ. `now` must be resolved. `made_with`
/// is a run's config.yaml as it was read: do not resolve it, as its micro-batch need not fit the
/// ranks of now.
std::optional<Difference> compare(const RunConfig& made_with, const RunConfig& now);

/// One line `path: value` for each value, sources left out: equal exactly when the values are.
std::string canonical_text(const RunConfig& config);
/// 64-bit hash (FNV-1a) of canonical_text.
std::uint64_t fingerprint(const RunConfig& config);
/// The first line where two canonical texts differ.
std::optional<Difference> first_difference(const std::string& first, const std::string& second);

}  // namespace tessera::config
