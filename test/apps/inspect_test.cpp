// SPDX-License-Identifier: Apache-2.0
// tessera inspect: its table, statistics, verification on many ranks, and comparison.
#include <cmath>
#include <fstream>
#include <limits>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/checkpoint/reader.hpp"
#include "tessera/checkpoint/safetensors.hpp"

#include "support/markup.hpp"
#include "support/program.hpp"
#include "support/tiny_run.hpp"

namespace tessera::test {
namespace {

using nlohmann::json;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class InspectTest : public ::testing::Test {
 protected:
  InspectTest() { setenv("TESSERA_CACHE", (folder / "cache").c_str(), 1); }

  // A safetensors file of fp32 tensors with one dimension.
  std::string tensors(const std::string& name,
                      const std::vector<std::pair<std::string, std::vector<float>>>& values) {
    std::vector<checkpoint::SafetensorsInput> inputs;
    for (const auto& [key, data] : values)
      inputs.push_back(
          {key, DType::fp32, Shape{static_cast<std::int64_t>(data.size())}, data.data()});
    const std::string path = folder / (name + ".safetensors");
    checkpoint::write_safetensors(path, inputs);
    return path;
  }

  std::string train(const std::string& name, const std::string& more = "", int ranks = 1) {
    const Outcome outcome = tessera("train " + tiny_run(folder, name) + " " + more, ranks);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.error;
    return folder / name;
  }
  static std::string checkpoint_of(const std::string& run, int step) {
    return fmt::format("{}/checkpoints/step-{:08}.h5", run, step);
  }

  static json compare(const std::string& a, const std::string& b, int exit_code) {
    const Outcome outcome = tessera("inspect " + a + " --json --compare " + b);
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.out << outcome.error;
    return json::parse(outcome.out);
  }

  TemporaryFolder folder;
};

TEST_F(InspectTest, StatisticsAreOfTheFiniteElements) {
  const std::string file = tensors(
      "a", {{"w", {3, -1, 0, -4, kNaN, 2, kInfinity}}, {"nothing", {}}, {"gone", {kNaN, kNaN}}});
  const json listing = json::parse(tessera("inspect --json --stats " + file).out);
  const json& w = listing["tensors"]["w"];
  EXPECT_EQ(w["min"], -4);
  EXPECT_EQ(w["max"], 3);
  EXPECT_EQ(w["mean"], 0);
  EXPECT_DOUBLE_EQ(w["rms"].get<double>(), std::sqrt(6.0));
  EXPECT_EQ(w["nonfinite"], 2);
  EXPECT_EQ(w["bytes"], 28);
  EXPECT_TRUE(listing["tensors"]["nothing"]["rms"].is_null());
  EXPECT_EQ(listing["total"],
            (json{{"tensors", 3}, {"elements", 9}, {"bytes", 36}, {"nonfinite", 4}}));
  const std::string table = tessera("inspect --stats " + file).out;
  EXPECT_NE(table.find("4 elements are NaN or infinite\n"), std::string::npos) << table;
  EXPECT_NE(table.find("gone: 2\n"), std::string::npos) << table;
  EXPECT_NE(table.find("2.449"), std::string::npos) << table;
}

TEST_F(InspectTest, ACheckpointIsGroupedAndSummedUp) {
  const std::string run = train("a");
  const json listing = json::parse(tessera("inspect --json " + run).out);
  EXPECT_EQ(listing["step"], 6);
  EXPECT_EQ(listing["model"]["n_embd"], 16);
  std::int64_t elements = 0;
  for (const auto& [path, tensor] : listing["tensors"].items()) {
    std::int64_t size = 1;
    for (const json& n : tensor["shape"]) size *= n.get<std::int64_t>();
    EXPECT_EQ(tensor["bytes"], size * 4) << path;
    if (tensor["group"] == "parameters") elements += size;
  }
  EXPECT_EQ(elements, read_json(run + "/summary.json")["parameters"]);
  for (const char* group : {"parameters", "optimizer/exp_avg", "optimizer/exp_avg_sq"})
    EXPECT_EQ(listing["groups"][group]["elements"], elements) << group;
  EXPECT_EQ(listing["total"]["bytes"], elements * 12);

  const std::string table = tessera("inspect " + run).out;
  EXPECT_LT(table.find("\nparameters "), table.find("\noptimizer/exp_avg ")) << table;
  EXPECT_NE(table.find("transformer.h.1.attn.c_attn.weight  [16, 48]"), std::string::npos) << table;
}

TEST_F(InspectTest, VerifyingGivesTheSameAnswerOnAnyRankCount) {
  const std::string file = checkpoint_of(train("a"), 6);
  for (const int ranks : {1, 2, 3}) {
    const Outcome outcome = tessera("inspect --verify " + file, ranks);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.error;
    EXPECT_NE(outcome.out.find("every checksum is right"), std::string::npos) << outcome.out;
    EXPECT_EQ(outcome.out.find("every checksum"), outcome.out.rfind("every checksum"));
  }
  const std::string damaged = "optimizer/exp_avg_sq/transformer.h.1.mlp.c_fc.weight";
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  const auto place = checkpoint::Reader(file).dataset(damaged).offset + 1001;
  bytes.seekg(place);
  const char changed = static_cast<char>(bytes.peek() ^ 1);
  bytes.seekp(place);
  bytes.put(changed);
  bytes.close();
  for (const int ranks : {1, 2, 3}) {
    const Outcome outcome = tessera("inspect --verify --json " + file, ranks);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.error;
    EXPECT_NE(outcome.error.find(damaged + ": expected "), std::string::npos) << outcome.error;
    const json damage = json::parse(outcome.out)["damaged"];
    ASSERT_EQ(damage.size(), 1u);
    EXPECT_EQ(damage[0]["dataset"], damaged);
  }
  EXPECT_EQ(tessera("inspect --verify " TESSERA_TEST_DATA "/models/gpt2-tiny").exit_code, 2);
}

TEST_F(InspectTest, ComparisonTellsWhatDiffersAndByHowMuch) {
  const std::string a = tensors("a", {{"same", {1, kNaN}},
                                      {"w", {1, 2, 3, -4}},
                                      {"zero", {0}},
                                      {"inf", {1}},
                                      {"x", {1}},
                                      {"s", {1}}});
  const std::string b = tensors("b", {{"same", {1, kNaN}},
                                      {"w", {1, 2.5, 3, 4}},
                                      {"zero", {-0.F}},
                                      {"inf", {kInfinity}},
                                      {"y", {1}},
                                      {"s", {1, 2}}});
  const json found = compare(a, b, 1);
  EXPECT_FALSE(found["equal"]);
  EXPECT_EQ(found["only_in_a"], json({"x"}));
  EXPECT_EQ(found["only_in_b"], json({"y"}));
  EXPECT_EQ(found["compared"], 5);
  const json& tensors = found["tensors"];
  EXPECT_FALSE(tensors.contains("same"));
  EXPECT_EQ(tensors["w"], (json{{"elements", 4},
                                {"differing", 2},
                                {"max_absolute", 8.0},
                                {"max_relative", 2.0},
                                {"first", {1}},
                                {"first_values", {2.0, 2.5}}}));
  EXPECT_EQ(tensors["zero"]["differing"], 1);
  EXPECT_EQ(tensors["zero"]["max_absolute"], 0);
  EXPECT_EQ(tensors["inf"]["max_absolute"], "infinite");
  EXPECT_EQ(tensors["s"]["shape"], json({{1}, {2}}));
  const std::string table = tessera("inspect " + a + " --compare " + b).out;
  EXPECT_NE(table.find("4 of 5 tensors differ"), std::string::npos) << table;
  EXPECT_NE(table.find("only in A: x"), std::string::npos) << table;
  EXPECT_TRUE(compare(a, a, 0)["equal"]);
  EXPECT_EQ(tessera("inspect " + a + " --compare /nonexistent").exit_code, 2);
  EXPECT_EQ(tessera("inspect " + a + " --verify --compare " + b).exit_code, 2);
}

TEST_F(InspectTest, TheSameRunInTwoStagesIsEqualInAllThatCounts) {
  const std::string a = train("a");
  const std::string b = train("b", "--set engine.zero_optimization.stage=1");
  const json same = compare(checkpoint_of(a, 6), checkpoint_of(b, 6), 0);
  EXPECT_TRUE(same["equal"]);
  EXPECT_EQ(same["header"].back()["key"], "config");  // told all the same
  const json other = compare(checkpoint_of(a, 3), checkpoint_of(a, 6), 1);
  EXPECT_EQ(other["header"][0], (json{{"key", "step"}, {"a", 3}, {"b", 6}}));
  EXPECT_GT(other["tensors"]["parameters/transformer.wte.weight"]["max_absolute"], 0);
}

// With a learning rate of zero a checkpoint holds what the folder held.
TEST_F(InspectTest, ACheckpointIsComparedWithAModelFolder) {
  const std::string model = TESSERA_TEST_DATA "/models/gpt2-tiny";
  const std::string run = train("a", "--set model=" + model +
                                         " --set engine.optimizer.params.lr=0"
                                         " --set engine.scheduler=null");
  EXPECT_TRUE(compare(model, run, 0)["equal"]);
  EXPECT_EQ(compare(run, model, 0)["compared"], 40);
}

void expect_self_contained(const std::string& page) {
  EXPECT_EQ(markup_problem(page), "");
  for (const char* reference : {"http", "src=", "href=", "<link", "import", "url("})
    EXPECT_EQ(count(page, reference), 0) << reference;
}

TEST_F(InspectTest, ThePageOfARunShowsItsCourse) {
  const std::string run = train("a", "", 2);
  std::ofstream(run + "/events.jsonl", std::ios::trunc)
      << R"({"event":"start","step":0,"time":1700000000,"ranks":2,"stage":3})" << '\n'
      << R"({"event":"resume","step":2,"time":1700000100,"ranks":1,"stage":1,"from":"<b>.h5"})"
      << '\n'
      << R"({"event":"damaged","step":2,"time":1700000100,"file":"x","error":"a & b"})" << '\n';
  const Outcome outcome = tessera("inspect " + run + " --html " + (folder / "out.html"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
  const std::string page = slurp(folder / "out.html");
  expect_self_contained(page);
  EXPECT_EQ(count(page, "<figure"), 6);  // four curves, two of weights
  for (const char* title : {"Loss", "Gradient norm", "Learning rate", "Tokens per second",
                            "Matrices", "Biases and gains"})
    EXPECT_EQ(count(page, fmt::format("<figcaption><b>{}", title)), 1) << title;
  EXPECT_EQ(count(page, "resumed after step 2, 1 ranks, stage 1, 2023-11-14 22:15 UTC"), 4);
  EXPECT_NE(page.find("from &lt;b&gt;.h5"), std::string::npos);
  EXPECT_NE(page.find("<td class=\"alert\">damaged</td>"), std::string::npos);
  EXPECT_NE(page.find("<td>reduce_scatter</td>"), std::string::npos);
  EXPECT_NE(page.find("<td>activations</td>"), std::string::npos);
  EXPECT_NE(page.find("train_batch_size: 8"), std::string::npos);
  EXPECT_NE(page.find("mlp.c_proj.weight"), std::string::npos);
  EXPECT_EQ(tessera("inspect " + run + " --html /nonexistent/out.html").exit_code, 2);
}

TEST_F(InspectTest, ThePageOfARunThatHasJustBegunSaysWhatIsNotThereYet) {
  std::filesystem::create_directories(folder / "new <run>");
  std::ofstream(folder / "new <run>/metrics.jsonl")
      << R"({"step":1,"loss":null,"lr":0.0,"grad_norm":null,"tokens":9,"seconds":0.1})" << '\n'
      << R"({"step":2,"lo)";
  const std::string arguments =
      fmt::format("inspect '{}' --html {}", folder / "new <run>", folder / "out.html");
  const Outcome outcome = tessera(arguments);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
  const std::string page = slurp(folder / "out.html");
  expect_self_contained(page);
  EXPECT_NE(page.find("<h1>new &lt;run&gt;</h1>"), std::string::npos);
  EXPECT_NE(page.find("no whole checkpoint yet"), std::string::npos);
  EXPECT_NE(page.find("Not there yet"), std::string::npos);
  EXPECT_EQ(count(page, "class=\"broken\""), 3);
  const Outcome missing = tessera("inspect " + folder.path() + " --html " + (folder / "x.html"));
  EXPECT_EQ(missing.exit_code, 2);
  EXPECT_NE(missing.error.find("metrics.jsonl"), std::string::npos) << missing.error;
}

}  // namespace
}  // namespace tessera::test
