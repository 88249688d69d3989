// SPDX-License-Identifier: Apache-2.0
// GPT-2 (Radford et al. 2019), with Hugging Face's configuration keys and parameter names.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tessera/nn/models/decoder.hpp"

namespace tessera::nn {

/// Values not given are Hugging Face's, also the dropout probabilities of 0.1: small runs usually
/// want embd_pdrop, attn_pdrop and resid_pdrop 0.
struct Gpt2Config {
  std::int64_t n_layer = 12;
  std::int64_t n_embd = 768;
  std::int64_t n_head = 12;
  std::int64_t n_positions = 1024;
  std::int64_t vocab_size = 50257;
  std::int64_t n_inner = 0;  // 0: 4 n_embd
  std::string activation_function = "gelu_new";
  double layer_norm_epsilon = 1e-5;
  double embd_pdrop = 0.1;
  double attn_pdrop = 0.1;
  double resid_pdrop = 0.1;
  double initializer_range = 0.02;
  bool tie_word_embeddings = true;
  bool scale_attn_weights = true;
  bool scale_attn_by_inverse_layer_idx = false;

  std::int64_t inner() const { return n_inner > 0 ? n_inner : 4 * n_embd; }
  std::int64_t head_dim() const { return n_embd / n_head; }

  /// Reads and checks a config.json. `strict` refuses keys that Hugging Face does not know.
  static Gpt2Config from_json(const std::string& text, bool strict);
  /// Throws invalid_config, naming the key and the value.
  void validate() const;
  std::string to_json() const;
};

struct LayerNormParameters {
  Parameter weight, bias;
};
/// Hugging Face's Conv1D: weight is [inputs, outputs].
struct Conv1DParameters {
  Parameter weight, bias;
};

class Gpt2 final : public Decoder {
 public:
  Gpt2(const Gpt2Config& config, const ModelOptions& options);

  const Gpt2Config& config() const { return config_; }
  std::string config_json() const override { return config_.to_json(); }
  std::vector<std::string> names_in_files(const std::string& name) const override;
  bool ignores(const std::string& name_in_file) const override;

 private:
  struct Block {
    LayerNormParameters ln_1;
    struct {
      Conv1DParameters c_attn, c_proj;
    } attn;
    LayerNormParameters ln_2;
    struct {
      Conv1DParameters c_fc, c_proj;
    } mlp;
  };
  /// The only traversal: names and order of a block's parameters.
  static std::vector<NamedParameter> parameters_of(Block& block, const std::string& path);

  /// Weights of which a rank has columns: with its part of the bias.
  Conv1DParameters column_parallel(std::int64_t inputs, std::int64_t outputs,
                                   std::vector<Interval> columns, double deviation) const;
  /// Of which it has rows: the bias is whole.
  Conv1DParameters row_parallel(std::int64_t inputs, std::int64_t outputs, const Interval& rows,
                                double deviation) const;
  Block make_block() const;

  autograd::Value embed(autograd::Tape& tape, const Pass& pass, const Tensor& ids) override;
  autograd::Value block_body(autograd::Tape& tape, const Pass& pass, std::int64_t layer,
                             const autograd::Value& x) override;
  autograd::Value final_norm(autograd::Tape& tape, const autograd::Value& x) override;
  float attention_scale(std::int64_t layer) const;

  Gpt2Config config_;
  Parameter wpe_;
  std::vector<Block> h_;
  LayerNormParameters ln_f_;
};

}  // namespace tessera::nn
