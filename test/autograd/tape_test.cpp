// SPDX-License-Identifier: Apache-2.0
// Order of replay, unit hooks, freeing of what was saved, and collection of gradients.
#include "tessera/autograd/tape.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/autograd/dropout.hpp"
#include "tessera/autograd/linear.hpp"
#include "tessera/base/error.hpp"

#include "autograd/gradient_check.hpp"

namespace tessera::autograd {
namespace {

struct Diary : UnitHooks {
  std::vector<std::string> lines;
  static char name(Phase phase) { return "FBIW"[static_cast<int>(phase)]; }
  void acquire(int unit, Phase phase) override {
    lines.push_back("acquire " + std::to_string(unit) + name(phase));
  }
  void release(int unit, Phase phase) override {
    lines.push_back("release " + std::to_string(unit) + name(phase));
  }
  void gradients_ready(int unit) override { lines.push_back("ready " + std::to_string(unit)); }
  void progress() override { ++looks; }
  int looks = 0;  // at messages
};

TEST(Tape, TellsUnitsInOrder) {
  Diary diary;
  Tape tape(Recording::on, &diary);
  tape.enter(0);  // encloses the rest, as a tied embedding does
  tape.enter(1);
  tape.leave(1);
  tape.leave(0);
  tape.backward();
  const std::vector<std::string> expected = {"acquire 0F", "acquire 1F", "release 1F", "release 0F",
                                             "acquire 0B", "acquire 1B", "release 1B", "ready 1",
                                             "release 0B", "ready 0"};
  EXPECT_EQ(diary.lines, expected);
}

// However long a pass is, and also where a region of it runs again.
TEST(Tape, LooksAtMessagesBetweenOperations) {
  constexpr int kOperations = 5;
  const auto run = [](Tape& tape, Value value) {
    for (int i = 0; i < kOperations; ++i)
      value = dropout(tape, value, DropoutSite{.probability = 0.5f});
    return value;
  };
  for (const bool again : {false, true}) {
    Diary diary;
    Tape tape(Recording::on, &diary);
    const Value input = Value::leaf(Tensor::zeros({4, 4}, DType::fp32));
    const Value output = again ? recompute(tape, input, run) : run(tape, input);
    EXPECT_GE(diary.looks, kOperations);
    diary.looks = 0;
    tape.backward(output, Tensor::zeros({4, 4}, DType::fp32));
    EXPECT_GE(diary.looks, again ? 2 * kOperations : kOperations);
  }
}

// Of two units one leaves gradients for later: the other's are ready after the first part.
TEST(Tape, TellsUnitsOfWhichGradientsWait) {
  Diary diary;
  Tape tape(Recording::on, &diary);
  tape.split_backward();
  for (const int unit : {0, 1}) {
    tape.enter(unit);
    tape.record({.name = "operation",
                 .output = nullptr,
                 .backward_input = [](Tensor&) {},
                 .backward_weight = [](const Tensor&) {},
                 .waits = unit == 0});
    tape.leave(unit);
  }
  diary.lines.clear();
  tape.backward_input();
  EXPECT_EQ(diary.lines, (std::vector<std::string>{"acquire 1B", "release 1B", "ready 1",
                                                   "acquire 0I", "release 0B"}));
  diary.lines.clear();
  tape.backward_weight();
  EXPECT_EQ(diary.lines, (std::vector<std::string>{"acquire 0W", "release 0W", "ready 0"}));
}

TEST(Tape, OffTellsForwardOnly) {
  Diary diary;
  Tape tape(Recording::off, &diary);
  tape.enter(3);
  tape.leave(3);
  EXPECT_EQ(diary.lines, (std::vector<std::string>{"acquire 3F", "release 3F"}));
  EXPECT_EQ(tape.size(), 0u);
  EXPECT_THROW(tape.backward(), Error);
}

TEST(Tape, RunsInputPartThenWeightPartInReverse) {
  Tape tape(Recording::on);
  std::vector<int> order;
  for (int i = 0; i < 3; ++i)
    tape.record({.name = "test",
                 .output = nullptr,
                 .backward_input = [&order, i](Tensor&) { order.push_back(2 * i); },
                 .backward_weight = [&order, i](const Tensor&) { order.push_back(2 * i + 1); }});
  tape.backward();
  EXPECT_EQ(order, (std::vector<int>{4, 5, 2, 3, 0, 1}));
}

TEST(Tape, SkipsWhatNoGradientReaches) {
  Tape tape(Recording::on);
  Weight weight = random_weight(Shape{2, 2}, 1);
  const Value x = Value::leaf(random_tensor(Shape{3, 2}, 2));
  linear(tape, x, weight, nullptr);
  tape.backward();
  EXPECT_FALSE(weight.gradient_written);
  EXPECT_FALSE(x.gradient());
}

TEST(Tape, ConstantsAreNotRecorded) {
  Tape tape(Recording::on);
  Weight weight = random_weight(Shape{2, 2}, 1);
  weight.trainable = false;
  const Value y = linear(tape, Value(random_tensor(Shape{3, 2}, 2)), weight, nullptr);
  EXPECT_EQ(tape.size(), 0u);
  EXPECT_THROW(tape.backward(y, random_tensor(Shape{3, 2}, 3)), Error);
}

TEST(Tape, FreesEachNodeAfterItRan) {
  const MemoryLedger& ledger = memory_ledger({});
  const std::int64_t before = ledger.current(Purpose::activations);
  Weight weight = random_weight(Shape{4, 4}, 1);
  const std::int64_t with_weight = ledger.current(Purpose::activations);
  {
    Tape tape(Recording::on);
    Value y = linear(tape, Value(random_tensor(Shape{3, 4}, 2)), weight, nullptr);
    EXPECT_GT(ledger.current(Purpose::activations), with_weight);
    Tensor gradient = random_tensor(Shape{3, 4}, 3);
    const Value top = std::exchange(y, {});
    tape.backward(top, std::move(gradient));
    EXPECT_EQ(ledger.current(Purpose::activations), with_weight + 3 * 4 * 4);  // `top` itself
  }
  EXPECT_EQ(ledger.current(Purpose::activations), with_weight);
  weight = {};
  EXPECT_EQ(ledger.current(Purpose::activations), before);
}

TEST(GradientSlot, FirstMovesInLaterOnesAdd) {
  GradientSlot slot;
  Tensor first = random_tensor(Shape{4}, 1);
  const Tensor kept = first;  // somebody else holds it: it may not change
  const std::vector<float> before = to_vector(kept);
  slot.add({}, std::move(first));
  EXPECT_EQ(slot.gradient().data(), kept.data());
  slot.add({}, random_tensor(Shape{4}, 2));
  EXPECT_EQ(to_vector(kept), before);
  const std::vector<float> second = to_vector(random_tensor(Shape{4}, 2));
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_EQ(slot.gradient().as<float>()[i], before[i] + second[i]);
  EXPECT_THROW(slot.add({}, random_tensor(Shape{5}, 3)), Error);
}

TEST(GradientSlot, TargetCopiesWhatOthersHold) {
  GradientSlot slot;
  const auto fresh = slot.target({}, Shape{3}, DType::fp32, {});
  EXPECT_FALSE(fresh.accumulate);
  const Tensor held = slot.gradient();
  const auto second = slot.target({}, Shape{3}, DType::fp32, {});
  EXPECT_TRUE(second.accumulate);
  EXPECT_NE(second.tensor.data(), held.data());
}

}  // namespace
}  // namespace tessera::autograd
