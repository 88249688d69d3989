// SPDX-License-Identifier: Apache-2.0
// A Hugging Face folder becomes a checkpoint and a folder again, with the same bits and logits.
#include "tessera/inference/convert.hpp"

#include <cmath>
#include <filesystem>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tessera/base/cpu_features.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/checkpoint/writer.hpp"
#include "tessera/comm/runtime.hpp"

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

namespace tessera::inference {
namespace {

using test::expect_error;
namespace fs = std::filesystem;

class ConvertTest : public ::testing::Test {
 protected:
  explicit ConvertTest(const std::string& model = "gpt2-tiny") : tiny(model) {
    set_threads(1);
    if (runtime.rank() == 0) own_folder = std::make_unique<test::TemporaryFolder>();
    folder = world().broadcast_text(own_folder ? own_folder->path() : "", 0);
  }
  ~ConvertTest() override { world().barrier(); }

  Communicator& world() { return runtime.world(); }
  std::string operator/(const std::string& name) const { return folder + "/" + name; }

  /// The reference model as a checkpoint.
  std::string imported(const ImportOptions& options = {}) {
    import_model(world(), locate_model(tiny.folder()), folder + "/a.h5", options);
    return folder + "/a.h5";
  }

  /// A copy of the reference model's folder to change.
  std::string copied() {
    const std::string copy = folder + "/copy";
    if (runtime.rank() == 0) {
      fs::create_directory(copy);
      for (const char* name : {"config.json", "model.safetensors"})
        fs::copy_file(tiny.folder() + "/" + name, copy + "/" + name);
    }
    world().barrier();
    return copy;
  }

  void expect_reference_logits(const std::string& model, DType stored) {
    const auto expected = tiny.doubles("logits.fp64");
    double allowed = 2 * tiny.doubles("logits_max_error.fp32")[0];
    if (stored != DType::fp32) allowed = stored == DType::bf16 ? 0.05 : 0.01;
    ServedModel served(world(), locate_model(model), DType::fp32);
    const std::int64_t rows = 2;
    autograd::Tape tape(autograd::Recording::off, &served.hooks());
    const Tensor logits = served.model().logits(tape, tiny.batch(0, 0, rows).ids);
    ASSERT_EQ(static_cast<std::size_t>(logits.numel()), expected.size());
    double worst = 0;
    for (std::size_t i = 0; i < expected.size(); ++i)
      worst = std::max(worst, std::fabs(static_cast<double>(logits.as<float>()[i]) - expected[i]));
    EXPECT_LE(worst, allowed) << model;
    EXPECT_GT(worst, 0) << model;
  }

  Runtime runtime;
  test::TinyModel tiny;
  std::unique_ptr<test::TemporaryFolder> own_folder;
  std::string folder;
};

TEST_F(ConvertTest, ThereAndBackKeepsEveryByte) {
  const auto in = import_model(world(), locate_model(tiny.folder()), *this / "a.h5");
  EXPECT_EQ(in.tensors, 40);
  EXPECT_TRUE(in.unused.empty());
  const auto out = export_model(world(), locate_model(*this / "a.h5"), *this / "out");
  EXPECT_EQ(out.tensors, in.tensors);
  EXPECT_EQ(out.bytes, in.bytes);
  EXPECT_EQ(out.weights_checksum, in.weights_checksum);
  EXPECT_EQ(read_text(*this / "out/model.safetensors"),
            read_text(tiny.folder() + "/model.safetensors"));
  const auto again = import_model(world(), locate_model(*this / "out"), *this / "b.h5");
  EXPECT_EQ(again.weights_checksum, in.weights_checksum);
}

TEST_F(ConvertTest, BothDirectionsGiveTheReferenceLogits) {
  expect_reference_logits(imported(), DType::fp32);
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16}) {
    ExportOptions options;
    options.dtype = dtype;
    options.max_shard_bytes = 100'000;
    const std::string name = *this / to_string(dtype);
    const auto report = export_model(world(), locate_model(*this / "a.h5"), name, options);
    EXPECT_GT(report.files, 3);
    expect_reference_logits(name, dtype);
  }
}

class LlamaConvertTest : public ConvertTest {
 protected:
  LlamaConvertTest() : ConvertTest("llama-tiny") {}
};

TEST_F(LlamaConvertTest, BothDirectionsGiveTheReferenceLogits) {
  expect_reference_logits(imported(), DType::fp32);
  const auto out = export_model(world(), locate_model(*this / "a.h5"), *this / "out");
  EXPECT_EQ(out.tensors, 30);
  expect_reference_logits(*this / "out", DType::fp32);
}

TEST_F(ConvertTest, TheCheckpointIsWeightsAndTheModelsText) {
  ImportOptions options;
  options.config = "data: {tokenizer: bytes}\n";
  const checkpoint::Reader reader(imported(options));
  EXPECT_EQ(reader.header().step, 0);
  EXPECT_EQ(reader.header().config, options.config);
  EXPECT_EQ(reader.header().model, read_text(tiny.folder() + "/config.json"));
  EXPECT_EQ(reader.datasets().size(), 40u);
  EXPECT_TRUE(reader.state().empty());
  EXPECT_TRUE(reader.verify().empty());
  for (const auto& dataset : reader.datasets()) EXPECT_EQ(dataset.dtype, DType::fp32);
}

TEST_F(ConvertTest, ConfigSaysWhatTransformersWantsToKnow) {
  ExportOptions options;
  options.dtype = DType::bf16;
  options.end_of_text = 7;
  export_model(world(), locate_model(imported()), *this / "out", options);
  const auto config = nlohmann::json::parse(read_text(*this / "out/config.json"));
  EXPECT_EQ(config.at("model_type"), "gpt2");
  EXPECT_EQ(config.at("architectures"), nlohmann::json({"GPT2LMHeadModel"}));
  EXPECT_EQ(config.at("torch_dtype"), "bfloat16");
  EXPECT_FALSE(config.contains("dtype"));
  EXPECT_EQ(config.at("vocab_size"), 259);
  EXPECT_EQ(config.at("n_layer"), 3);
  EXPECT_EQ(config.at("tie_word_embeddings"), true);
  EXPECT_EQ(config.at("eos_token_id"), 0) << "the model's own word counts";
  EXPECT_EQ(config.at("summary_type"), "cls_index") << "what else was known stays";
}

TEST_F(ConvertTest, NamesWithoutPrefixAndBuffersAreUnderstood) {
  const std::string copy = copied();
  if (runtime.rank() == 0) {
    const checkpoint::ModelWeights weights(tiny.folder());
    std::vector<std::vector<float>> values;
    std::vector<checkpoint::SafetensorsInput> tensors;
    for (const std::string& name : weights.names()) {
      const Shape shape = weights.shape(name);
      values.emplace_back(static_cast<std::size_t>(shape.numel()));
      weights.read(name, DType::fp32, values.back().data());
      tensors.push_back({name.substr(std::string("transformer.").size()), DType::fp32, shape,
                         values.back().data()});
    }
    const float buffer = 1;
    tensors.push_back({"h.0.attn.bias", DType::fp32, {1, 1, 1, 1}, &buffer});
    tensors.push_back({"score.weight", DType::fp32, {1}, &buffer});
    checkpoint::write_safetensors(copy + "/model.safetensors", tensors);
  }
  world().barrier();
  const auto report = import_model(world(), locate_model(copy), *this / "b.h5");
  EXPECT_EQ(report.unused, (std::vector<std::string>{"score.weight"}));
  export_model(world(), locate_model(*this / "b.h5"), *this / "out");
  EXPECT_EQ(read_text(*this / "out/model.safetensors"),
            read_text(tiny.folder() + "/model.safetensors"));
}

TEST_F(ConvertTest, WhatCannotBeConvertedIsNamed) {
  const std::string file = imported();
  expect_error(Code::io, {"a.h5", "exists"}, [&] { imported(); });
  imported({.replace = true, .config = ""});
  expect_error(Code::invalid_argument, {folder, "is a folder"},
               [&] { import_model(world(), locate_model(tiny.folder()), folder); });

  ModelLocation source = locate_model(file);
  source.model_json = R"({"model_type": "mixtral"})";
  expect_error(Code::not_supported, {file, "mixtral"},
               [&] { export_model(world(), source, *this / "out"); });
  source.model_json = "";
  expect_error(Code::invalid_config, {file, "JSON"},
               [&] { export_model(world(), source, *this / "out"); });
  source = locate_model(file);
  auto config = nlohmann::json::parse(source.model_json);
  config["n_layer"] = 4;
  source.model_json = config.dump();
  expect_error(Code::io, {"transformer.h.3."},
               [&] { export_model(world(), source, *this / "out"); });
  config["n_layer"] = 2;
  source.model_json = config.dump();
  EXPECT_EQ(export_model(world(), source, *this / "out").unused.size(), 12u);

  const std::string copy = copied();
  world().barrier();
  if (runtime.rank() == 0) fs::remove(copy + "/model.safetensors");
  world().barrier();
  expect_error(Code::io, {copy, "model.safetensors"},
               [&] { import_model(world(), locate_model(copy), *this / "c.h5"); });
  EXPECT_FALSE(fs::exists(*this / "c.h5"));
}

TEST_F(ConvertTest, TheModelsFilesComeAlong) {
  const std::string file = imported();
  ExportOptions options;
  options.copies["tokenizer.json"] = tiny.folder() + "/reference.json";
  export_model(world(), locate_model(file), *this / "out", options);
  EXPECT_EQ(read_text(*this / "out/tokenizer.json"), read_text(tiny.folder() + "/reference.json"));
  options.copies["tokenizer.json"] = *this / "missing";
  expect_error(Code::io, {"missing"},
               [&] { export_model(world(), locate_model(file), *this / "out2", options); });
  EXPECT_FALSE(fs::exists(*this / "out2"));
}

}  // namespace
}  // namespace tessera::inference
