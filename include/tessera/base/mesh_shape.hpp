// SPDX-License-Identifier: Apache-2.0
// The ranks as a grid with named axes: sizes, coordinates, groups and neighbours by arithmetic.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tessera {

/// Slowest first. Ranks count up along tensor, then sequence, then data, then pipeline: the groups
/// that communicate most are neighbours. (Megatron's order tp-cp-dp-pp, fastest first; DeepSpeed's
/// topology [pipe, data, model].)
enum class Axis { pipeline, data, sequence, tensor };
inline constexpr std::array<Axis, 4> kAxes = {Axis::pipeline, Axis::data, Axis::sequence,
                                              Axis::tensor};
const char* to_string(Axis axis);

/// Programs that look at a mesh without running take more for a slip of the keyboard.
inline constexpr int kMostRanks = 1 << 20;

/// One axis or several together: "tensor", "data+sequence" (over which gradients are reduced).
class Axes {
 public:
  Axes(Axis axis) : bits_(1U << static_cast<unsigned>(axis)) {}
  /// Names with + between them; throws invalid_argument naming the one that is none.
  Axes(const std::string& names);
  Axes(const char* names) : Axes(std::string(names)) {}

  bool has(Axis axis) const { return (bits_ >> static_cast<unsigned>(axis) & 1U) != 0; }
  friend Axes operator|(Axes a, Axes b) { return Axes(a.bits_ | b.bits_); }
  friend auto operator<=>(const Axes&, const Axes&) = default;
  std::string to_string() const;  ///< slowest first

 private:
  explicit Axes(unsigned bits) : bits_(bits) {}
  unsigned bits_ = 0;
};

/// {pipeline, data, sequence, tensor}
using MeshCoordinates = std::array<int, 4>;

/// Sizes of the axes; 0 for data means "what is left". Everything but resolved() needs it filled
/// in, and ranks from 0 to ranks() - 1.
struct MeshShape {
  int pipeline = 1;
  int data = 0;
  int sequence = 1;
  int tensor = 1;

  /// Fills in data. Throws invalid_config when the sizes do not multiply to `ranks`, showing the
  /// factors and the nearest that would.
  MeshShape resolved(int ranks) const;
  /// The meshes of `ranks` ranks that differ least from this one: in few axes, rather in those that
  /// are in use, by small factors; data counts where it is given. Nearest first, at most `most`.
  std::vector<MeshShape> nearest(int ranks, int most) const;

  /// Product of the sizes that are given, data 0 being none; the largest number when it is more.
  std::int64_t places() const;
  int ranks() const { return pipeline * data * sequence * tensor; }
  int size(const Axes& axes) const;
  MeshCoordinates coordinates(int rank) const;
  int rank_of(const MeshCoordinates& coordinates) const;

  /// Ranks that differ from `rank` only along `axes`, ascending; contains `rank`.
  std::vector<int> group(const Axes& axes, int rank) const;
  /// Every group along `axes`, by its first rank: each rank is in one of them.
  std::vector<std::vector<int>> groups(const Axes& axes) const;
  /// Place of `rank` in its group, from 0. Of one axis: the coordinate.
  int position(const Axes& axes, int rank) const;

  /// `steps` further along a line, e.g. the next pipeline stage for 1; nullopt beyond its ends.
  std::optional<int> neighbour(Axis axis, int rank, int steps) const;
  /// `steps` further around a ring, e.g. of the sequence axis.
  int ring_neighbour(Axis axis, int rank, int steps) const;

  std::string to_string() const;  // "pipeline 1 x data 4 x sequence 1 x tensor 1"
  bool operator==(const MeshShape&) const = default;
};

}  // namespace tessera
