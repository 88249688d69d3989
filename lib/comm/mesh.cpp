// SPDX-License-Identifier: Apache-2.0
// The ranks as a grid with named axes.
#include "tessera/comm/mesh.hpp"

#include <cstddef>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera {
namespace {

constexpr std::array<const char*, 4> kAxes = {"pipeline", "data", "sequence", "tensor"};

std::size_t axis_index(const std::string& axis) {
  for (std::size_t i = 0; i < kAxes.size(); ++i)
    if (axis == kAxes[i]) return i;
  fail(Code::invalid_argument,
       fmt::format("the mesh has no axis '{}': pipeline, data, sequence or tensor", axis));
}

std::array<int, 4> sizes_of(const MeshShape& shape) {
  return {shape.pipeline, shape.data, shape.sequence, shape.tensor};
}

}  // namespace

MeshShape MeshShape::resolved(int ranks) const {
  MeshShape shape = *this;
  const std::array<int, 4> sizes = sizes_of(shape);
  std::int64_t others = 1;
  for (std::size_t i = 0; i < kAxes.size(); ++i) {
    const bool left_open = i == 1 && sizes[i] == 0;
    TESSERA_CHECK(
        sizes[i] > 0 || left_open, Code::invalid_config,
        fmt::format("mesh.{} is {}: sizes of the mesh are at least 1", kAxes[i], sizes[i]));
    if (i != 1) others *= sizes[i];
  }
  if (shape.data == 0) {
    TESSERA_CHECK(others <= ranks && ranks % others == 0, Code::invalid_config,
                  fmt::format("the mesh pipeline {} x sequence {} x tensor {} = {} does not divide "
                              "the {} ranks, so nothing whole is left for data",
                              pipeline, sequence, tensor, others, ranks));
    shape.data = static_cast<int>(ranks / others);
  }
  TESSERA_CHECK(others * shape.data == ranks, Code::invalid_config,
                fmt::format("the mesh {} has {} places, but there are {} ranks: change a size or "
                            "the number of ranks",
                            shape.to_string(), others * shape.data, ranks));
  return shape;
}

std::array<int, 4> MeshShape::coordinates(int rank) const {
  std::array<int, 4> place{};
  const std::array<int, 4> sizes = sizes_of(*this);
  for (std::size_t i = kAxes.size(); i-- > 0; rank /= sizes[i]) place[i] = rank % sizes[i];
  return place;
}

int MeshShape::rank_of(std::array<int, 4> place) const {
  const std::array<int, 4> sizes = sizes_of(*this);
  int rank = 0;
  for (std::size_t i = 0; i < kAxes.size(); ++i) rank = rank * sizes[i] + place[i];
  return rank;
}

std::vector<int> MeshShape::group(const std::string& axis, int rank) const {
  const std::size_t index = axis_index(axis);
  std::array<int, 4> place = coordinates(rank);
  std::vector<int> members;
  for (int i = 0; i < sizes_of(*this)[index]; ++i) {
    place[index] = i;
    members.push_back(rank_of(place));
  }
  return members;
}

std::string MeshShape::to_string() const {
  return fmt::format("pipeline {} x data {} x sequence {} x tensor {}", pipeline, data, sequence,
                     tensor);
}

Mesh::Mesh(Communicator& world, const MeshShape& shape)
    : world_(world), shape_(shape.resolved(world.size())), groups_(kAxes.size()) {}

Communicator& Mesh::group(const std::string& axis) {
  const std::size_t index = axis_index(axis);
  if (!groups_[index]) {
    const int first = shape_.group(axis, world_.rank()).front();
    groups_[index] = world_.split(first, world_.rank(), axis);
  }
  return *groups_[index];
}

int Mesh::size(const std::string& axis) const {
  return sizes_of(shape_)[axis_index(axis)];
}

int Mesh::coordinate(const std::string& axis) const {
  return shape_.coordinates(world_.rank())[axis_index(axis)];
}

}  // namespace tessera
