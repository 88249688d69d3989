// SPDX-License-Identifier: Apache-2.0
// The batch triangle with everything given or missing, and where floor division would mislead.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tessera/config/engine_config.hpp"

#include "config/support.hpp"

namespace tessera::config {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::refusal;
using Size = std::optional<std::int64_t>;

constexpr std::nullopt_t none = std::nullopt;

std::string refusal_of_batch(Size train, Size micro, Size accumulation, std::int64_t data) {
  return refusal([&] { resolve_batch(train, micro, accumulation, data); });
}

TEST(Batch, SolvesEveryCombinationThatSaysEnough) {
  EXPECT_EQ(resolve_batch(32, 4, 2, 4), (Batch{32, 4, 2}));
  EXPECT_EQ(resolve_batch(32, 4, none, 4), (Batch{32, 4, 2}));
  EXPECT_EQ(resolve_batch(32, none, 2, 4), (Batch{32, 4, 2}));
  EXPECT_EQ(resolve_batch(none, 4, 2, 4), (Batch{32, 4, 2}));
  EXPECT_EQ(resolve_batch(32, none, none, 4), (Batch{32, 8, 1}));
  EXPECT_EQ(resolve_batch(none, 4, none, 4), (Batch{16, 4, 1}));
}

TEST(Batch, RefusesTooLittle) {
  for (const Size accumulation : {Size(2), Size()}) {
    EXPECT_THAT(refusal_of_batch(none, none, accumulation, 4),
                HasSubstr("give train_batch_size or train_micro_batch_size_per_gpu"));
  }
}

TEST(Batch, ShowsAllNumbersAndTheRule) {
  EXPECT_THAT(refusal_of_batch(33, none, 2, 2),
              AllOf(HasSubstr("train_batch_size 33,"),
                    HasSubstr("train_micro_batch_size_per_gpu not given"),
                    HasSubstr("gradient_accumulation_steps 2,"), HasSubstr("data-parallel size 2."),
                    HasSubstr("train_batch_size = train_micro_batch_size_per_gpu × "
                              "gradient_accumulation_steps × data-parallel size"),
                    HasSubstr("multiple of gradient_accumulation_steps × data-parallel size = 4, "
                              "for example 32 or 36")));
}

TEST(Batch, FloorDivisionDoesNotHideARemainder) {
  EXPECT_THAT(refusal_of_batch(32, 18, none, 2), HasSubstr("= 36, for example 36"));
  EXPECT_THAT(refusal_of_batch(33, 4, none, 2), HasSubstr("= 8, for example 32 or 40"));
  EXPECT_THAT(refusal_of_batch(33, none, none, 2), HasSubstr("the data-parallel size = 2"));
  EXPECT_THAT(refusal_of_batch(1, none, none, 2), HasSubstr("for example 2"));
  EXPECT_THAT(refusal_of_batch(32, 4, 3, 4), HasSubstr("would have to be 48"));
  EXPECT_THAT(refusal_of_batch(2, none, 4, 1), HasSubstr("= 4, for example 4"));
}

TEST(Batch, RefusesWhatIsNotPositive) {
  EXPECT_THAT(refusal_of_batch(0, none, none, 1), HasSubstr("at least 1"));
  EXPECT_THAT(refusal_of_batch(8, -2, none, 1), HasSubstr("at least 1"));
  EXPECT_THAT(refusal_of_batch(8, none, 0, 1), HasSubstr("at least 1"));
  EXPECT_THAT(refusal_of_batch(8, none, none, 0), HasSubstr("at least 1"));
}

TEST(Batch, RefusesProductsBeyond64Bits) {
  const std::int64_t big = std::int64_t{1} << 40;
  EXPECT_NE(refusal_of_batch(none, big, big, 1), "");
}

}  // namespace
}  // namespace tessera::config
