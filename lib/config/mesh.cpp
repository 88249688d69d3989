// SPDX-License-Identifier: Apache-2.0
#include "config/mesh.hpp"

#include <array>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::config {
namespace {

struct AxisKeys {
  int MeshShape::*size;
  std::string path;
  std::vector<std::string> also;  ///< DeepSpeed's keys of the same meaning
};

const std::vector<AxisKeys>& axis_keys() {
  static const std::vector<AxisKeys> keys = {
      {&MeshShape::pipeline, "mesh.pipeline", {"engine.pipeline.stages"}},
      {&MeshShape::data, "mesh.data", {"engine.data_parallel_size"}},
      {&MeshShape::sequence, "mesh.sequence", {"engine.sequence_parallel_size"}},
      {&MeshShape::tensor,
       "mesh.tensor",
       {"engine.tensor_parallel.autotp_size", "engine.tensor_parallel.tp.tp_size"}}};
  return keys;
}

struct Saying {
  std::string path;
  std::int64_t size;
};

/// What the user says about an axis; `auto` and 0 (AutoTP switched off) say nothing.
std::vector<Saying> sayings_of(Values& values, const AxisKeys& keys) {
  std::vector<Saying> sayings;
  const auto add = [&](const std::string& path) {
    const auto size = values.is_given(path) ? values.integer(path) : std::nullopt;
    if (size.value_or(0) > 0) sayings.push_back({path, *size});
  };
  add(keys.path);
  for (const std::string& path : keys.also) add(path);
  return sayings;
}

bool has_data_alone(const MeshShape& shape) {
  return shape.pipeline == 1 && shape.sequence == 1 && shape.tensor == 1;
}

/// `blamed` is the key whose line an error names.
MeshShape fit(Values& values, const MeshShape& shape, int ranks, const Saying& blamed) {
  const std::string place = values.place(blamed.path);
  TESSERA_CHECK(
      shape.data == 0 || shape.data == ranks || !has_data_alone(shape), Code::invalid_config,
      fmt::format("{}: `{}` is {}, but there are {} ranks. Start {} ranks, or leave it at "
                  "auto",
                  place, blamed.path, shape.data, ranks, shape.data));
  try {
    return shape.resolved(ranks);
  } catch (const Error& error) {
    fail(error.code(), fmt::format("{}: {}", place, error.what()));
  }
}

void fill(Values& values, const MeshShape& shape, bool ranks_known) {
  for (const AxisKeys& keys : axis_keys()) {
    const std::vector<Saying> sayings = sayings_of(values, keys);
    std::string reason = "the default";
    if (!sayings.empty())
      reason = sayings.front().path;
    else if (keys.size == &MeshShape::data)
      reason = !ranks_known            ? "one rank, as no others are known"
               : has_data_alone(shape) ? "the number of ranks"
                                       : "the ranks that the other axes leave";
    if (reason != keys.path) values.derive(keys.path, make_integer(shape.*keys.size), reason);
  }
}

}  // namespace

void check_mesh(Values& values, Problems& problems) {
  for (const AxisKeys& keys : axis_keys()) {
    const std::vector<Saying> sayings = sayings_of(values, keys);
    for (const Saying& one : sayings) {
      const Saying& first = sayings.front();
      if (one.size != first.size) {
        problems.add(
            Code::invalid_config,
            fmt::format("{}: `{}` is {}, but `{}` is {} ({}); they mean the same, say it once",
                        values.place(one.path), one.path, one.size, first.path, first.size,
                        values.place(first.path)));
      }
    }
  }
}

MeshShape said_mesh(Values& values) {
  MeshShape shape;
  for (const AxisKeys& keys : axis_keys())
    if (const std::vector<Saying> sayings = sayings_of(values, keys); !sayings.empty())
      shape.*keys.size = static_cast<int>(sayings.front().size);
  return shape;
}

bool wants_tensor_axis(Values& values) {
  return said_mesh(values).tensor > 1;
}

void resolve_mesh(Values& values, std::optional<int> ranks) {
  MeshShape shape = said_mesh(values);
  Saying blamed = {"mesh.data", 1};
  for (const AxisKeys& keys : axis_keys())
    if (const std::vector<Saying> sayings = sayings_of(values, keys);
        !sayings.empty() && blamed.size == 1)
      blamed = sayings.front();
  if (ranks)
    shape = fit(values, shape, *ranks, blamed);
  else if (shape.data == 0)
    shape.data = 1;
  fill(values, shape, ranks.has_value());
}

}  // namespace tessera::config
