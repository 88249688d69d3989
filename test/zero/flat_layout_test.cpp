// SPDX-License-Identifier: Apache-2.0
// The partition geometry: offsets, padding, slices and the way back to parameters.
#include "tessera/zero/flat_layout.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

namespace tessera::zero {
namespace {

FlatLayout sample(int ranks) {
  FlatLayout layout(ranks);
  layout.begin_unit("first");
  layout.add("a", {3, 5});
  layout.add("scalar", {});
  layout.add("empty", {0, 7});
  layout.add("b", {101});
  layout.begin_unit("nothing");
  layout.begin_unit("last");
  layout.add("prime", {7919});
  layout.add("tail", {2});
  return layout;
}

TEST(FlatLayout, PlacesParametersWithoutGapsAndPadsUnits) {
  const FlatLayout layout = sample(3);
  EXPECT_EQ(layout.parameter(1).offset, 15);
  EXPECT_EQ(layout.parameter(2).offset, 16);
  EXPECT_EQ(layout.parameter(3).offset, 16);
  EXPECT_EQ(layout.unit(0).elements, 117);
  EXPECT_EQ(layout.unit(0).padded, 144);
  EXPECT_EQ(layout.unit(1).padded, 0);
  EXPECT_EQ(layout.unit(1).parameters, 0);
  EXPECT_EQ(layout.unit(2).start, 144);
  EXPECT_EQ(layout.unit(2).padded, 7968);
  EXPECT_EQ(layout.padded(), 144 + 7968);
  EXPECT_EQ(layout.elements(), 117 + 7921);
  EXPECT_EQ(layout.slice_start(2), 48);
  EXPECT_EQ(layout.find("tail"), 5);
  EXPECT_EQ(layout.find("nobody"), -1);
}

TEST(FlatLayout, MeetsTheGoldenVector) {
  FlatLayout layout(8);
  layout.begin_unit("all");
  layout.add("w", {1000003});
  EXPECT_EQ(layout.padded(), 1000064);
  EXPECT_EQ(layout.slice_elements(0), 125008);
}

TEST(FlatLayout, OwnedRangesCoverEachElementOnce) {
  for (const int ranks : {1, 2, 3, 5, 8, 64, 1000}) {
    const FlatLayout layout = sample(ranks);
    for (int i = 0; i < static_cast<int>(layout.parameters().size()); ++i) {
      std::int64_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const Range own = layout.owned(i, rank);
        if (own.count == 0) continue;
        EXPECT_EQ(own.begin, next) << layout.parameter(i).name << " on " << rank;
        next = own.end();
      }
      EXPECT_EQ(next, layout.parameter(i).numel()) << layout.parameter(i).name;
    }
  }
}

TEST(FlatLayout, PiecesOfSlicesAreTheOwnedRanges) {
  for (const int ranks : {1, 2, 3, 5, 8, 64}) {
    const FlatLayout layout = sample(ranks);
    for (int u = 0; u < static_cast<int>(layout.units().size()); ++u) {
      for (int rank = 0; rank < ranks; ++rank) {
        for (const FlatPiece& piece : layout.pieces(u, layout.slice(u, rank))) {
          EXPECT_EQ((Range{piece.begin, piece.count}), layout.owned(piece.parameter, rank));
          EXPECT_EQ(piece.unit_begin, layout.parameter(piece.parameter).offset + piece.begin);
          EXPECT_GT(piece.count, 0);
        }
      }
    }
  }
}

TEST(FlatLayout, PiecesOfAnyRangeMatchAScanOverElements) {
  const FlatLayout layout = sample(2);
  const FlatUnit& unit = layout.unit(0);
  for (std::int64_t begin = 0; begin <= unit.padded; ++begin) {
    for (std::int64_t count = 0; begin + count <= unit.padded; count += 7) {
      std::int64_t covered = begin;
      for (const FlatPiece& piece : layout.pieces(0, {begin, count})) {
        EXPECT_EQ(piece.unit_begin, covered);
        covered += piece.count;
      }
      EXPECT_EQ(covered, std::max(begin, std::min(begin + count, unit.elements)));
    }
  }
}

TEST(FlatLayout, PaddingStaysBelowOneAlignmentUnitForEachRank) {
  for (const int ranks : {1, 2, 7, 16384}) {
    const FlatLayout layout = sample(ranks);
    for (const FlatUnit& unit : layout.units()) {
      EXPECT_LT(unit.padded - unit.elements, ranks * kAlignment);
      EXPECT_EQ(unit.padded % (ranks * kAlignment), 0);
    }
  }
}

TEST(FlatLayout, IsCheapForManyRanks) {
  FlatLayout layout(16384);
  for (int u = 0; u < 200; ++u) {
    layout.begin_unit("h." + std::to_string(u));
    for (int p = 0; p < 12; ++p)
      layout.add("h." + std::to_string(u) + "." + std::to_string(p), {4096, 4096});
  }
  EXPECT_EQ(layout.elements(), std::int64_t{200} * 12 * 4096 * 4096);
  std::int64_t owned = 0;
  for (int i = 0; i < static_cast<int>(layout.parameters().size()); ++i)
    owned += layout.owned(i, 12345).count;
  EXPECT_EQ(owned, layout.elements() / 16384);
}

TEST(FlatLayout, RefusesWhatCannotBe) {
  EXPECT_THROW(FlatLayout(0), Error);
  FlatLayout layout(2);
  EXPECT_THROW(layout.add("w", {3}), Error);
  layout.begin_unit("u");
  layout.add("w", {3});
  EXPECT_THROW(layout.add("w", {3}), Error);
  EXPECT_THROW(layout.add("huge", {std::int64_t{1} << 62, 2}), Error);
}

}  // namespace
}  // namespace tessera::zero
