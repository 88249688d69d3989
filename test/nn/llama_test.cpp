// SPDX-License-Identifier: Apache-2.0
// Llama's configuration, rotary frequencies, shares of heads, parameters and cached generation.
#include "tessera/nn/models/llama.hpp"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

#include "nn/models/decoder_shares.hpp"
#include "nn/strict_owner.hpp"
#include "support/expect_error.hpp"

namespace tessera::nn {
namespace {

using autograd::Recording;
using autograd::Tape;
using test::expect_error;

LlamaConfig read(const std::string& more) {
  return LlamaConfig::from_json(R"({"model_type": "llama")" + more + "}", true);
}

TEST(LlamaConfig, KnowsBothWaysOfWritingRotaryPositions) {
  const LlamaConfig old =
      read(R"(, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4})");
  EXPECT_EQ(old.rope_theta, 5e5);
  EXPECT_EQ(old.rope_scaling.kind, RopeScaling::Kind::linear);
  EXPECT_EQ(old.rope_scaling.factor, 4);
  const LlamaConfig now = read(
      R"(, "rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
          "high_freq_factor": 4, "original_max_position_embeddings": 8192})");
  EXPECT_EQ(now.rope_theta, 5e5);
  EXPECT_EQ(now.rope_scaling.kind, RopeScaling::Kind::llama3);
  for (const LlamaConfig& config : {old, now})
    EXPECT_EQ(LlamaConfig::from_json(config.to_json(), true).to_json(), config.to_json());
}

TEST(LlamaConfig, NullIsWhatHuggingFaceTakes) {
  const LlamaConfig config = read(R"(, "num_key_value_heads": null, "rope_scaling": null)");
  EXPECT_EQ(config.kv_heads(), 32);
  EXPECT_EQ(config.head_dim(), 128);
}

TEST(LlamaConfig, SaysWhatIsWrong) {
  const auto refuses = [](const std::string& more, Code code,
                          std::initializer_list<std::string_view> words) {
    expect_error(code, words, [&] { read(more); });
  };
  refuses(R"(, "num_key_value_heads": 5)", Code::invalid_config,
          {"num_attention_heads 32", "num_key_value_heads 5"});
  refuses(R"(, "hidden_size": 100)", Code::invalid_config, {"hidden_size 100", "head_dim"});
  refuses(R"(, "head_dim": 7)", Code::invalid_config, {"head_dim is 7", "even"});
  refuses(R"(, "rope_scaling": {"rope_type": "yarn"})", Code::not_supported, {"yarn", "llama3"});
  refuses(R"(, "rope_scaling": {"rope_type": "linear", "factor": -1})", Code::invalid_config,
          {"factor is -1"});
  refuses(R"(, "rope_scaling": {"rope_type": "llama3"})", Code::invalid_config,
          {"rope_scaling has no factor"});
  refuses(R"(, "rope_scaling": {"beta_fast": 1})", Code::not_supported,
          {"beta_fast", "low_freq_factor"});
  refuses(R"(, "rope_scaling": 3)", Code::invalid_config, {"rope_scaling", "section"});
  refuses(R"(, "hidden_sise": 64)", Code::invalid_config, {"hidden_sise", "hidden_size"});
  refuses(R"(, "rms_norm_eps": 0)", Code::invalid_config, {"rms_norm_eps is 0"});
}

// Published frequencies of Llama 3.1: short wavelengths are kept, long ones an eighth.
TEST(LlamaConfig, FrequenciesAreThoseOfLlama31) {
  const std::vector<float> found = rotary_frequencies(read(
      R"(, "rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
          "high_freq_factor": 4, "original_max_position_embeddings": 8192})"));
  ASSERT_EQ(found.size(), 64u);
  for (const auto& [at, expected] :
       std::vector<std::pair<std::size_t, double>>{{28, 3.211446e-3},
                                                   {29, 2.166570764e-3},
                                                   {30, 1.371893568e-3},
                                                   {31, 8.567514129e-4},
                                                   {32, 5.248461610e-4},
                                                   {34, 1.785078128e-4},
                                                   {35, 9.556212354e-5},
                                                   {63, 3.068925989e-7}})
    EXPECT_NEAR(found[at], expected, 1e-6 * expected) << at;
}

TEST(LlamaConfig, PublishedSizesHaveTheirParameters) {
  const auto count = [](const std::string& more) {
    return Llama(read(more), {}).parameter_count();
  };
  EXPECT_EQ(count(""), 6738415616);
  EXPECT_EQ(
      count(R"(, "vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8)"),
      8030261248);
  EXPECT_EQ(count(R"(, "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
                     "num_hidden_layers": 16, "num_key_value_heads": 8, "tie_word_embeddings": true)"),
            1235814400);
}

// Every query head is on one rank, beside its key head, and groups on a rank are equally large.
TEST(LlamaShares, HeadsStayWithTheirKeys) {
  for (const std::int64_t keys : {1, 2, 3, 4})
    for (const std::int64_t group : {1, 2, 3, 4})
      for (int ranks = 1; ranks <= keys * group; ++ranks) {
        const DecoderSizes sizes{
            .heads = keys * group, .kv_heads = keys, .inner = 64, .vocabulary = 64};
        std::int64_t next = 0, counted = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const DecoderShares own = decoder_shares(sizes, {.size = ranks, .rank = rank});
          EXPECT_EQ(own.heads.begin, next);
          next = own.heads.end;
          ASSERT_GT(own.heads.size(), 0);
          ASSERT_EQ(own.heads.size() % own.kv_heads.size(), 0);
          const std::int64_t local = own.heads.size() / own.kv_heads.size();
          for (std::int64_t head = own.heads.begin; head < own.heads.end; ++head)
            EXPECT_EQ(head / group, own.kv_heads.begin + (head - own.heads.begin) / local);
          EXPECT_TRUE(own.kv_holders.begin <= rank && rank < own.kv_holders.end);
          if (rank == own.kv_holders.begin) counted += own.kv_heads.size();
        }
        EXPECT_EQ(next, keys * group);
        EXPECT_EQ(counted, keys);
      }
}

constexpr const char* kTiny =
    R"(, "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4,
       "num_key_value_heads": 2, "vocab_size": 11, "max_position_embeddings": 12)";

TEST(Llama, BiasesAreWhereTheConfigurationHasThem) {
  const auto names = [](const std::string& more) {
    const Llama model(read(std::string(kTiny) + more), {});
    std::vector<std::string> list;
    for (const NamedParameter& named : model.parameters())
      if (named.name.ends_with(".bias")) list.push_back(named.name);
    return list;
  };
  EXPECT_TRUE(names("").empty());
  EXPECT_EQ(names(R"(, "attention_bias": true)").size(), 8u);
  EXPECT_EQ(names(R"(, "mlp_bias": true)").size(), 6u);
}

TEST(Llama, CachedLogitsAreThoseOfTheWholeSequence) {
  Llama model(read(std::string(kTiny) + R"(, "attention_bias": true, "mlp_bias": true)"), {});
  StrictOwner owner(model, DType::fp32);
  owner.initialize(3);
  const Tensor ids(Shape{2, 9}, DType::int32);
  for (std::int64_t i = 0; i < ids.numel(); ++i)
    ids.as<std::int32_t>()[i] = static_cast<std::int32_t>(i * 7 % 11);
  Tape tape(Recording::off, &owner);
  const Tensor all = model.logits(tape, ids);
  KvCache cache = model.make_cache(2, 12);
  EXPECT_EQ(cache.layers[0].keys.shape(), (Shape{2, 12, 8}));
  std::int64_t seen = 0;
  for (const std::int64_t count : {4, 1, 3, 1}) {
    const Tensor part(Shape{2, count}, DType::int32);
    for (std::int64_t row = 0; row < 2; ++row)
      for (std::int64_t t = 0; t < count; ++t)
        part.as<std::int32_t>()[row * count + t] = ids.as<std::int32_t>()[row * 9 + seen + t];
    const Tensor last = model.forward_cached(tape, part, cache);
    seen += count;
    for (std::int64_t row = 0; row < 2; ++row)
      for (std::int64_t v = 0; v < 11; ++v)
        EXPECT_NEAR(last.as<float>()[row * 11 + v], all.as<float>()[(row * 9 + seen - 1) * 11 + v],
                    1e-5);
  }
}

}  // namespace
}  // namespace tessera::nn
