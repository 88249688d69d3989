// SPDX-License-Identifier: Apache-2.0
// Generation with cached keys and values against whole forward passes.
#include "tessera/inference/generator.hpp"

#include <algorithm>

#include <gtest/gtest.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/comm/runtime.hpp"

#include "support/expect_error.hpp"
#include "support/test_device.hpp"
#include "support/tiny_model.hpp"

namespace tessera::inference {
namespace {

std::vector<std::int32_t> first_ids(const test::TinyModel& tiny, std::int64_t count) {
  const Tensor ids = tiny.batch(0, 0, 1).ids;
  return {ids.as<std::int32_t>(), ids.as<std::int32_t>() + count};
}

class GeneratorTest : public ::testing::Test {
 protected:
  void SetUp() override { set_threads(1); }
  Runtime runtime;
  test::TinyModel tiny;
  ServedModel served{runtime.world(), locate_model(tiny.folder()), DType::fp32,
                     testing::test_device()};
};

TEST_F(GeneratorTest, GreedyTextIsWhatWholePassesChoose) {
  std::vector<std::int32_t> text = first_ids(tiny, 5);
  GenerationOptions options;
  options.max_tokens = 12;
  options.sampling.temperature = 0;
  std::vector<std::int32_t> heard;
  const auto generated =
      generate(served, text, options, [&](std::int32_t token) { heard.push_back(token); });
  EXPECT_EQ(heard, generated);
  ASSERT_EQ(generated.size(), 12u);
  for (const std::int32_t token : generated) {
    const auto length = static_cast<std::int64_t>(text.size());
    Tensor ids({1, length}, DType::int32);
    std::copy(text.begin(), text.end(), ids.as<std::int32_t>());
    autograd::Tape tape(autograd::Recording::off, &served.hooks(), served.stream());
    const Tensor logits =
        served.model().logits(tape, ids.on(served.stream())).on_host(served.stream());
    const float* last = logits.as<float>() + (length - 1) * served.model().vocabulary();
    EXPECT_EQ(token, std::max_element(last, last + served.model().vocabulary()) - last);
    text.push_back(token);
  }
}

TEST_F(GeneratorTest, GoesOnWhenThePositionsAreUsedUp) {
  GenerationOptions options;
  options.max_tokens = 2 * served.model().positions();
  EXPECT_EQ(generate(served, first_ids(tiny, 3), options).size(),
            static_cast<std::size_t>(options.max_tokens));
}

TEST_F(GeneratorTest, StopsBeforeEndOfText) {
  GenerationOptions options;
  options.max_tokens = 40;
  options.sampling.temperature = 0;
  const auto free = generate(served, first_ids(tiny, 5), options);
  options.end_of_text = free[10];
  const auto stopped = generate(served, first_ids(tiny, 5), options);
  const auto end = std::find(free.begin(), free.end(), free[10]);
  EXPECT_EQ(stopped, std::vector<std::int32_t>(free.begin(), end));
}

// Through the stages of a pipeline, of which several ranks may share each.
TEST_F(GeneratorTest, StagesWriteTheSameText) {
  GenerationOptions options;
  options.max_tokens = served.model().positions() + 8;  // the cache fills up on the way
  options.sampling.seed = 3;
  const auto expected = generate(served, first_ids(tiny, 5), options);
  const int layers = static_cast<int>(served.model().layers().size());
  for (int pipeline = 2; pipeline <= std::min(layers, runtime.size()); ++pipeline) {
    if (runtime.size() % pipeline != 0) continue;
    ServedModel staged(runtime.world(), locate_model(tiny.folder()), DType::fp32,
                       testing::test_device(), pipeline);
    EXPECT_EQ(generate(staged, first_ids(tiny, 5), options), expected);
    const nn::KvCache cache = staged.model().make_cache(1, 4);
    const auto own = std::count_if(cache.layers.begin(), cache.layers.end(),
                                   [](const auto& layer) { return bool(layer.keys); });
    EXPECT_LT(own, std::ssize(cache.layers));
  }
}

TEST_F(GeneratorTest, StagesFindTheSameLogits) {
  const Tensor ids = tiny.batch(0, 0, 2).ids;
  const auto logits = [&](ServedModel& model) {
    autograd::Tape tape(autograd::Recording::off, &model.hooks(), model.stream());
    return model.model().logits(tape, ids.on(model.stream())).on_host(model.stream());
  };
  const Tensor expected = logits(served);
  for (int pipeline = 2; pipeline <= runtime.size(); ++pipeline) {
    if (runtime.size() % pipeline != 0) continue;
    ServedModel staged(runtime.world(), locate_model(tiny.folder()), DType::fp32,
                       testing::test_device(), pipeline);
    const Tensor found = logits(staged);
    ASSERT_EQ(found.shape(), expected.shape());
    EXPECT_TRUE(
        std::equal(found.as<float>(), found.as<float>() + found.numel(), expected.as<float>()));
  }
}

TEST_F(GeneratorTest, StagesThatCannotBeAreTold) {
  if (!testing::test_device().is_cpu()) return;
  const auto serve = [&](int pipeline) {
    ServedModel(runtime.world(), locate_model(tiny.folder()), DType::fp32, {}, pipeline);
  };
  test::expect_error(Code::invalid_config, {"pipeline"}, [&] { serve(runtime.size() + 1); });
}

TEST_F(GeneratorTest, AnEmptyPromptIsRefused) {
  test::expect_error(Code::invalid_argument, {"prompt"}, [&] { generate(served, {}, {}); });
}

TEST_F(GeneratorTest, PlacesWithoutAModelAreTold) {
  test::expect_error(Code::io, {"/nonexistent"}, [] { locate_model("/nonexistent"); });
  test::expect_error(Code::io, {"config.json", "checkpoints"},
                     [] { locate_model(TESSERA_TEST_DATA); });
}

}  // namespace
}  // namespace tessera::inference
