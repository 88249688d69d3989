// SPDX-License-Identifier: Apache-2.0
// Choice of the model by its type, and names of tensors in model folders.
#include "tessera/nn/model.hpp"

#include <map>
#include <string>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

namespace tessera::nn {
namespace {

constexpr const char* kTiny =
    R"({"model_type": "gpt2", "n_layer": 1, "n_embd": 4, "n_head": 2, "n_positions": 6,
        "vocab_size": 10})";

TEST(Model, IsChosenByType) {
  const auto model = make_model(kTiny, {});
  EXPECT_EQ(model->vocabulary(), 10);
  EXPECT_EQ(model->positions(), 6);
  EXPECT_EQ(model->parameter_count(), 10 * 4 + 6 * 4 + (12 * 16 + 13 * 4) + 8);
  EXPECT_THROW(make_model("{}", {}), Error);
  EXPECT_THROW(make_model("nothing", {}), Error);
  EXPECT_THROW(make_model(R"({"model_type": "falcon"})", {}), Error);
  EXPECT_THROW(make_model(kTiny, {.dtype = DType::fp64}), Error);
  EXPECT_THROW(parse_recompute("some"), Error);
}

TEST(Model, FindsTensorsUnderBothPrefixes) {
  const auto model = make_model(kTiny, {});
  const NamedParameter wpe = model->units()[0].parameters[1];
  std::map<std::string, Shape> file;
  const auto shape_of = [&](const std::string& name) {
    const auto found = file.find(name);
    return found == file.end() ? std::nullopt : std::optional<Shape>(found->second);
  };
  EXPECT_THROW(find_in_files(*model, wpe, shape_of), Error);
  file["wpe.weight"] = Shape{6, 4};
  EXPECT_EQ(find_in_files(*model, wpe, shape_of), "wpe.weight");
  file["transformer.wpe.weight"] = Shape{6, 4};
  EXPECT_EQ(find_in_files(*model, wpe, shape_of), "transformer.wpe.weight");
  file["transformer.wpe.weight"] = Shape{7, 4};
  try {
    find_in_files(*model, wpe, shape_of);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("transformer.wpe.weight"), std::string::npos);
    EXPECT_NE(text.find("[7, 4]"), std::string::npos);
    EXPECT_NE(text.find("[6, 4]"), std::string::npos);
  }
}

TEST(Model, KnowsTensorsThatItDoesNotNeed) {
  const auto model = make_model(kTiny, {});
  EXPECT_TRUE(model->ignores("h.0.attn.bias"));
  EXPECT_TRUE(model->ignores("transformer.h.0.attn.masked_bias"));
  EXPECT_TRUE(model->ignores("lm_head.weight"));
  EXPECT_FALSE(model->ignores("h.0.attn.c_attn.bias"));
}

}  // namespace
}  // namespace tessera::nn
