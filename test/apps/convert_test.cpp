// SPDX-License-Identifier: Apache-2.0
// tessera convert as a user runs it.
#include <algorithm>

#include <gtest/gtest.h>

#include "tessera/checkpoint/reader.hpp"
#include "tessera/checkpoint/safetensors.hpp"

#include "support/program.hpp"
#include "support/tiny_model.hpp"
#include "support/tiny_run.hpp"

namespace tessera::test {
namespace {

namespace fs = std::filesystem;

class ConvertProgramTest : public ::testing::Test {
 protected:
  ConvertProgramTest() { setenv("TESSERA_CACHE", (folder / "cache").c_str(), 1); }

  void expect_success(const Outcome& outcome) {
    ASSERT_EQ(outcome.exit_code, 0) << outcome.out << outcome.error;
  }
  void expect_bad_input(const std::string& arguments, const std::vector<std::string>& words,
                        int ranks = 1) {
    const Outcome outcome = tessera(arguments, ranks);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.error;
    for (const std::string& word : words)
      EXPECT_NE(outcome.error.find(word), std::string::npos)
          << word << " is not in: " << outcome.error;
  }
  /// Names in the test's folder that begin with this.
  int count(const std::string& prefix) const {
    int found = 0;
    for (const auto& entry : fs::directory_iterator(folder.path()))
      if (entry.path().filename().string().starts_with(prefix)) ++found;
    return found;
  }

  TemporaryFolder folder;
  const std::string model = TESSERA_TEST_DATA "/models/gpt2-tiny";
};

TEST_F(ConvertProgramTest, HuggingFaceThereAndBack) {
  expect_success(tessera("convert " + model + " " + (folder / "a.h5"), 2));
  const Outcome back = tessera("convert " + (folder / "a.h5") + " " + (folder / "out"), 3);
  expect_success(back);
  EXPECT_NE(back.out.find("40 tensors"), std::string::npos) << back.out;
  EXPECT_EQ(slurp(folder / "out/model.safetensors"), slurp(model + "/model.safetensors"));
  EXPECT_EQ(tessera("inspect --verify " + (folder / "a.h5")).exit_code, 0);

  spit(folder / "ids.json", "[[1, 2, 3], [250]]");
  std::vector<std::string> logits;
  for (const std::string& name : {model, folder / "a.h5", folder / "out"}) {
    expect_success(tessera("logits --model " + name + " --ids " + (folder / "ids.json") +
                           " --out " + (folder / "logits")));
    logits.push_back(slurp(folder / "logits"));
    EXPECT_EQ(logits.back(), logits.front()) << name;
  }
}

TEST_F(ConvertProgramTest, ATrainedRunBecomesAFolderThatEverythingTakes) {
  const std::string run = tiny_run(folder, "run");
  expect_success(tessera("train " + run, 2));
  expect_success(tessera("convert " + (folder / "run") + " " + (folder / "hf")));
  const auto config = read_json(folder / "hf/config.json");
  EXPECT_EQ(config.at("vocab_size"), 257);
  EXPECT_EQ(config.at("eos_token_id"), 256);
  EXPECT_EQ(config.at("torch_dtype"), "float32");

  // The same numbers from the checkpoint and the folder.
  spit(folder / "small.txt", "First Citizen: before we proceed any further, hear me speak.");
  const auto eval = [&](const std::string& name) {
    return tessera("eval --json --model " + (folder / name) + " --data " + (folder / "small.txt"))
        .out;
  };
  EXPECT_EQ(eval("hf"), eval("run"));
  EXPECT_FALSE(eval("hf").empty());
  const std::string generate = " --prompt 'The ' --max-tokens 20 --seed 3";
  EXPECT_EQ(tessera("generate --model " + (folder / "hf") + generate).out,
            tessera("generate --model " + (folder / "run") + generate).out);

  // The checksum is that of the run, and a run may start from the folder.
  expect_success(tessera("convert " + (folder / "hf") + " " + (folder / "again.h5")));
  const checkpoint::Reader again(folder / "again.h5");
  const checkpoint::Reader trained(folder / "run/checkpoints/step-00000006.h5");
  EXPECT_EQ(again.weights_checksum(), trained.weights_checksum());
  expect_success(tessera("train " + run + " --set model=" + (folder / "hf") +
                         " --set run.folder=" + (folder / "on")));
  EXPECT_LT(read_json_lines(folder / "on/metrics.jsonl")[0]["loss"],
            read_json_lines(folder / "run/metrics.jsonl")[0]["loss"]);
}

TEST_F(ConvertProgramTest, TrainingDoesNotResumeFromWeightsAlone) {
  const std::string run = tiny_run(folder, "run");
  expect_success(tessera("train " + run + " --steps 1"));
  expect_success(tessera("convert " + (folder / "run") + " " + (folder / "hf")));
  expect_success(tessera("convert " + (folder / "hf") + " " + (folder / "a.h5")));
  expect_bad_input(
      "train " + run + " --set run.folder=" + (folder / "b") + " --resume " + (folder / "a.h5"),
      {"a.h5", "weights but not a training run"}, 2);
}

TEST_F(ConvertProgramTest, TypesAndShards) {
  expect_success(tessera("convert " + model + " " + (folder / "a.h5")));
  expect_success(tessera("convert " + (folder / "a.h5") + " " + (folder / "out") +
                             " --dtype bf16 --max-shard-size 0.1MB",
                         2));
  const auto index = read_json(folder / "out/model.safetensors.index.json");
  EXPECT_EQ(index.at("metadata").at("total_size"), 349696);
  const std::string name = "transformer.wte.weight";
  const std::string file = index.at("weight_map").at(name);
  EXPECT_EQ(file, "model-00001-of-00004.safetensors");
  EXPECT_EQ(checkpoint::SafetensorsFile(folder / ("out/" + file)).dtype(name), DType::bf16);
  EXPECT_EQ(read_json(folder / "out/config.json").at("torch_dtype"), "bfloat16");
}

TEST_F(ConvertProgramTest, ATokenizerComesAlong) {
  fs::create_directory(folder / "hf");
  for (const char* name : {"config.json", "model.safetensors"})
    fs::copy_file(model + "/" + name, folder / "hf" + "/" + name);
  spit(folder / "hf/tokenizer.json", "{\"version\": \"1.0\"}");
  spit(folder / "hf/merges.txt", "a b");
  expect_success(tessera("convert " + (folder / "hf") + " " + (folder / "a.h5")));
  expect_success(tessera("convert " + (folder / "a.h5") + " " + (folder / "out")));
  EXPECT_EQ(slurp(folder / "out/tokenizer.json"), "{\"version\": \"1.0\"}");
  EXPECT_EQ(slurp(folder / "out/merges.txt"), "a b");
  fs::remove(folder / "hf/tokenizer.json");
  const Outcome outcome = tessera("convert " + (folder / "a.h5") + " " + (folder / "out2"));
  expect_success(outcome);
  EXPECT_NE(outcome.error.find("hf/tokenizer.json"), std::string::npos) << outcome.error;
}

TEST_F(ConvertProgramTest, BadInputIsNamedAndLeavesNothing) {
  const std::string a = folder / "a.h5";
  const std::string out = " " + (folder / "out");
  expect_success(tessera("convert " + model + " " + a));
  spit(folder / "text", "hello");
  expect_bad_input("convert /nonexistent" + out, {"/nonexistent"});
  expect_bad_input("convert " + folder.path() + out, {"config.json", "checkpoints"});
  expect_bad_input("convert " + (folder / "text") + out, {"text", "HDF5"});
  expect_bad_input("convert " + a + out + " --dtype int8", {"int8", "bf16"});
  expect_bad_input("convert " + a + out + " --max-shard-size 5X", {"'5X'"});
  expect_bad_input("convert " + a + out + " --max-shard-size 0", {"--max-shard-size"});
  expect_bad_input("convert " + model + out + " --dtype bf16", {"bf16", "fp32"});
  expect_bad_input("convert " + model + out + " --max-shard-size 1GB", {"one file"});
  expect_bad_input("convert " + model + " " + a, {a, "exists"}, 2);
  expect_bad_input("convert " + a + " " + a, {a, "exists"});
  expect_bad_input("convert " + a + " " + folder.path() + " --overwrite", {"not a model folder"});
  EXPECT_EQ(count("out"), 0);
  expect_success(tessera("convert " + model + " " + a + " --overwrite"));

  // One flipped bit in the data.
  std::string bytes = slurp(a);
  const auto place = static_cast<std::size_t>(
      checkpoint::Reader(a).dataset("parameters/transformer.ln_f.bias").offset);
  bytes[place + 5] = static_cast<char>(bytes[place + 5] ^ 1);
  spit(a, bytes);
  expect_bad_input("convert " + a + out, {a, "damaged", "parameters/transformer.ln_f.bias"}, 2);
  EXPECT_EQ(count("out"), 0);
}

TEST_F(ConvertProgramTest, AFullDiskLeavesWhatWasThere) {
  const std::string a = folder / "a.h5";
  expect_success(tessera("convert " + model + " " + a));
  expect_success(tessera("convert " + a + " " + (folder / "out")));
  const std::string before = slurp(folder / "out/model.safetensors");
  for (const char* fault : {"create:fail", "write:fail", "flush:fail", "rename:fail"}) {
    setenv("TESSERA_FAULT", fault, 1);
    EXPECT_EQ(
        tessera("convert " + a + " " + (folder / "out") + " --overwrite --dtype bf16").exit_code, 2)
        << fault;
    EXPECT_EQ(tessera("convert " + model + " " + (folder / "b.h5"), 2).exit_code, 2) << fault;
  }
  unsetenv("TESSERA_FAULT");
  EXPECT_EQ(slurp(folder / "out/model.safetensors"), before);
  EXPECT_EQ(count("out"), 1);
  EXPECT_EQ(count("b.h5"), 0);
}

}  // namespace
}  // namespace tessera::test
