// SPDX-License-Identifier: Apache-2.0
// What the emulated cuDNN runs on a stream: a graph, operation by operation, on the host.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "emulation/cudnn_graph.hpp"

namespace tessera::emulation::cudnn {

/// One call of cudnnBackendExecute, with everything on the host that it points to copied.
struct Execution {
  Graph graph;
  std::map<std::int64_t, void*> arrays;   // by the number of the value
  std::map<std::int64_t, float> scalars;  // likewise
  void* workspace;

  std::string name() const;
  void run() const;

 private:
  using Contents = std::vector<float>;

  bool reachable(const std::string& what, const void* data, std::int64_t bytes) const;
  bool all_reachable() const;
  Contents load(const Value& value) const;
  void store(const Value& value, Contents contents) const;
  bool lengths_in_range() const;
  Contents evaluate(const Operation& operation,
                    const std::map<std::int64_t, Contents>& computed) const;
};

}  // namespace tessera::emulation::cudnn
