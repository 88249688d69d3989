// SPDX-License-Identifier: Apache-2.0
// Llama 2 and 3 (Touvron et al. 2023, Grattafiori et al. 2024), with Hugging Face's configuration
// keys and parameter names: RMSNorm, rotary positions, grouped-query attention, gated feed-forward.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tessera/nn/models/decoder.hpp"

namespace tessera::nn {

/// How rotary frequencies are stretched for sequences longer than those of the first training.
struct RopeScaling {
  enum class Kind : std::uint8_t { none, linear, llama3 };
  Kind kind = Kind::none;
  double factor = 1;
  // Of llama3: wavelengths between original positions / high and / low go over from one to the
  // other.
  double low_freq_factor = 1, high_freq_factor = 4;
  std::int64_t original_max_position_embeddings = 8192;
};

/// Values not given are Hugging Face's.
struct LlamaConfig {
  std::int64_t num_hidden_layers = 32;
  std::int64_t hidden_size = 4096;
  std::int64_t intermediate_size = 11008;
  std::int64_t num_attention_heads = 32;
  std::int64_t num_key_value_heads = 0;  // 0: as many as attention heads
  std::int64_t head_size = 0;            // "head_dim"; 0: hidden_size / num_attention_heads
  std::int64_t max_position_embeddings = 2048;
  std::int64_t vocab_size = 32000;
  std::string hidden_act = "silu";
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;
  double attention_dropout = 0;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  bool tie_word_embeddings = false;
  bool attention_bias = false;
  bool mlp_bias = false;

  std::int64_t kv_heads() const {
    return num_key_value_heads > 0 ? num_key_value_heads : num_attention_heads;
  }
  std::int64_t head_dim() const {
    return head_size > 0 ? head_size : hidden_size / num_attention_heads;
  }

  /// Reads and checks a config.json, of transformers 4 (rope_theta, rope_scaling) or 5
  /// (rope_parameters). `strict` refuses keys that Hugging Face does not know.
  static LlamaConfig from_json(const std::string& text, bool strict);
  /// Throws invalid_config, naming the key and the value.
  void validate() const;
  std::string to_json() const;
};

/// Radians by which each pair of a head's elements turns from one position to the next, [head_dim /
/// 2], computed in fp64.
std::vector<float> rotary_frequencies(const LlamaConfig& config);

class Llama final : public Decoder {
 public:
  Llama(const LlamaConfig& config, const ModelOptions& options);

  const LlamaConfig& config() const { return config_; }
  std::string config_json() const override { return config_.to_json(); }
  void bring_constants(const Stream& stream) override { frequencies(stream); }
  std::vector<std::string> names_in_files(const std::string& name) const override;
  bool ignores(const std::string& name_in_file) const override;

 private:
  /// Weight is [outputs, inputs]; the bias is used where the configuration has one.
  struct Projection {
    Parameter weight, bias;
    bool biased;
    autograd::Weight* bias_or_null() { return biased ? &bias : nullptr; }
  };
  struct Block {
    Parameter input_layernorm;
    Projection q_proj, k_proj, v_proj, o_proj;
    Parameter post_attention_layernorm;
    Projection gate_proj, up_proj, down_proj;
  };
  /// The only traversal: names and order of a block's parameters.
  static std::vector<NamedParameter> parameters_of(Block& block, const std::string& path);

  /// Of which a rank has outputs, with their part of the bias.
  Projection column_parallel(std::int64_t outputs, const Interval& own, bool biased) const;
  /// Of which it has inputs: the bias is whole.
  Projection row_parallel(std::int64_t inputs, const Interval& own, bool biased) const;
  /// Of a head that several ranks may have.
  Projection key_or_value() const;
  Block make_block() const;

  autograd::Value embed(autograd::Tape& tape, const Pass& pass, const Tensor& ids) override;
  autograd::Value block_body(autograd::Tape& tape, const Pass& pass, std::int64_t layer,
                             const autograd::Value& x) override;
  autograd::Value final_norm(autograd::Tape& tape, const autograd::Value& x) override;
  autograd::Value attention(autograd::Tape& tape, const Pass& pass, std::int64_t layer,
                            const autograd::Value& normed);
  autograd::Value feed_forward(autograd::Tape& tape, const Pass& pass, std::int64_t layer,
                               const autograd::Value& normed);
  /// On the stream's device, where they stay.
  const Tensor& frequencies(const Stream& stream);

  LlamaConfig config_;
  std::vector<Block> blocks_;
  Parameter norm_;
  Tensor frequencies_;
};

}  // namespace tessera::nn
