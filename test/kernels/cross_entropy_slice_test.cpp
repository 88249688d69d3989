// SPDX-License-Identifier: Apache-2.0
// Cross-entropy over slices of the vocabulary against the one over all of it.
#include "tessera/kernels/cross_entropy_slice.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

using namespace tessera::testing;

constexpr std::int64_t kPadding = 3;  // columns behind each slice

/// Columns [first, last) of [rows, vocabulary], and padding.
TypedArray cut(const TypedArray& whole, std::int64_t vocabulary, std::int64_t first,
               std::int64_t last) {
  Doubles values;
  const Doubles all = whole.values();
  for (std::int64_t row = 0; row < static_cast<std::int64_t>(all.size()); row += vocabulary) {
    for (std::int64_t j = first; j < last; ++j)
      values.push_back(all[static_cast<std::size_t>(row + j)]);
    values.insert(values.end(), kPadding, 99);
  }
  return TypedArray(whole.dtype(), values);
}

/// One rank's part of the logits [rows, vocabulary].
struct Part {
  TypedArray logits;
  std::vector<float> losses, own_largest, largest, sums;
  CrossEntropySlice args;

  Part(const TypedArray& whole, const std::vector<std::int32_t>& targets, std::int64_t vocabulary,
       std::int64_t first, std::int64_t last)
      : logits(cut(whole, vocabulary, first, last)),
        losses(targets.size(), 7),
        own_largest(targets.size(), 7),
        largest(targets.size(), 7),
        sums(2 * targets.size(), 7),
        args{.logits = logits.data(),
             .targets = targets.data(),
             .losses = losses.data(),
             .dlogits = logits.data(),
             .scale = 0.25f,
             .own_largest = own_largest.data(),
             .largest = largest.data(),
             .sums = sums.data(),
             .rows = static_cast<std::int64_t>(targets.size()),
             .columns = last - first + kPadding,
             .valid_columns = last - first,
             .slice = {first, vocabulary},
             .dtype = whole.dtype()} {}
};

using Parts = std::vector<std::unique_ptr<Part>>;

void on_all(on_device::CrossEntropySliceStep step, const Parts& parts) {
  for (const auto& part : parts) on_device::cross_entropy_slice(step, part->args);
}

/// What the group's collective does between the steps.
template <typename Combine>
void reduce(const Parts& parts, std::vector<float> Part::*member, Combine combine) {
  std::vector<float> result = (*parts[0]).*member;
  for (std::size_t p = 1; p < parts.size(); ++p)
    for (std::size_t i = 0; i < result.size(); ++i)
      result[i] = combine(result[i], ((*parts[p]).*member)[i]);
  for (const auto& part : parts) std::ranges::copy(result, ((*part).*member).begin());
}

void run(const Parts& parts) {
  on_all(cross_entropy_slice_begin, parts);
  reduce(parts, &Part::largest, [](float a, float b) { return std::max(a, b); });
  on_all(cross_entropy_slice_rescale, parts);
  reduce(parts, &Part::sums, [](float a, float b) { return a + b; });
  on_all(cross_entropy_slice_finish, parts);
}

class CrossEntropySliceTest : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, CrossEntropySliceTest, kernel_types(), type_name);

TEST_P(CrossEntropySliceTest, SlicesTogetherAreTheWhole) {
  const std::int64_t rows = 11;
  for (const std::int64_t vocabulary : {5, 17, 131})
    for (const std::int64_t ranks : {1, 2, 3, 5}) {
      std::vector<std::int32_t> targets;
      for (std::int64_t r = 0; r < rows; ++r)
        targets.push_back(r % 4 == 3 ? -1 : static_cast<std::int32_t>(r * 7 % vocabulary));
      const TypedArray logits = random_array(GetParam(), rows * vocabulary, 1, 3);
      TypedArray gradient = logits;
      std::vector<float> losses(targets.size());
      on_device::cross_entropy({.logits = gradient.data(),
                                .targets = targets.data(),
                                .losses = losses.data(),
                                .dlogits = gradient.data(),
                                .scale = 0.25f,
                                .rows = rows,
                                .columns = vocabulary,
                                .valid_columns = vocabulary,
                                .dtype = GetParam()});
      Parts parts;
      for (std::int64_t rank = 0; rank < ranks; ++rank)
        parts.push_back(std::make_unique<Part>(logits, targets, vocabulary,
                                               vocabulary * rank / ranks,
                                               vocabulary * (rank + 1) / ranks));
      run(parts);
      const Doubles expected = gradient.values();
      for (const auto& part : parts) {
        const Doubles got = part->logits.values();
        for (std::size_t r = 0; r < targets.size(); ++r) {
          EXPECT_NEAR(part->losses[r], losses[r], 2e-6 * (1 + losses[r]));
          EXPECT_EQ(part->losses[r], parts[0]->losses[r]);
          for (std::int64_t j = 0; j < part->args.columns; ++j) {
            const auto at =
                r * static_cast<std::size_t>(part->args.columns) + static_cast<std::size_t>(j);
            const bool padding = j >= part->args.valid_columns;
            const double wanted =
                padding ? 0
                        : expected[r * static_cast<std::size_t>(vocabulary) +
                                   static_cast<std::size_t>(part->args.slice.first + j)];
            EXPECT_NEAR(got[at], wanted, GetParam() == DType::fp32 ? 1e-6 : 4e-3 * 0.25);
          }
        }
      }
    }
}

TEST(CrossEntropySliceErrors, TargetOutsideTheVocabularyIsNamed) {
  const std::vector<std::int32_t> targets = {0, 12};
  const Parts parts = [&] {
    Parts list;
    list.push_back(std::make_unique<Part>(random_array(DType::fp32, 24, 1), targets, 12, 0, 6));
    return list;
  }();
  if (on_cuda()) {
    run(parts);
    EXPECT_TRUE(std::isnan(parts[0]->losses[1]));
    return;
  }
  try {
    on_all(cross_entropy_slice_begin, parts);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("target 12 of row 1"), std::string::npos);
  }
}

}  // namespace
}  // namespace tessera::kernels
