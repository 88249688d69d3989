// SPDX-License-Identifier: Apache-2.0
// GPT-2 (Radford et al. 2019), with Hugging Face's configuration keys and parameter names.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tessera/kernels/activation.hpp"
#include "tessera/nn/model.hpp"

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
  float layer_norm_epsilon = 1e-5f;
  float embd_pdrop = 0.1f;
  float attn_pdrop = 0.1f;
  float resid_pdrop = 0.1f;
  float initializer_range = 0.02f;
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

class Gpt2 final : public Model {
 public:
  Gpt2(const Gpt2Config& config, const ModelOptions& options);
  Gpt2(const Gpt2&) = delete;
  Gpt2& operator=(const Gpt2&) = delete;

  const Gpt2Config& config() const { return config_; }

  std::int64_t vocabulary() const override { return config_.vocab_size; }
  std::int64_t positions() const override { return config_.n_positions; }
  std::string config_json() const override { return config_.to_json(); }
  std::int64_t training_flops(std::int64_t rows, std::int64_t positions) const override;
  std::int64_t activation_bytes(std::int64_t rows, std::int64_t positions) const override;

  autograd::Loss forward_loss(autograd::Tape& tape, const Batch& batch) override;
  Tensor logits(autograd::Tape& tape, const Tensor& ids) override;
  KvCache make_cache(std::int64_t rows, std::int64_t capacity) const override;
  Tensor forward_cached(autograd::Tape& tape, const Tensor& ids, KvCache& cache) override;

  std::vector<std::string> names_in_files(const std::string& name) const override;
  bool ignores(const std::string& name_in_file) const override;

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

 private:
  struct Context;  // what every block of one pass shares

  void build_units();
  autograd::Value embed(autograd::Tape& tape, const Context& context, const Tensor& ids);
  autograd::Value block(autograd::Tape& tape, const Context& context, std::int64_t layer,
                        const autograd::Value& x);
  autograd::Value attend(autograd::Tape& tape, const Context& context, std::int64_t layer,
                         autograd::Value qkv);
  autograd::Value hidden_states(autograd::Tape& tape, const Context& context, const Tensor& ids);
  Tensor head_logits(autograd::Tape& tape, const Tensor& hidden);
  void enter_head(autograd::Tape& tape);
  void leave_head(autograd::Tape& tape);
  Parameter& head_weight() { return config_.tie_word_embeddings ? wte_ : lm_head_; }

  Gpt2Config config_;
  Parameter wte_, wpe_;
  std::vector<Block> h_;
  LayerNormParameters ln_f_;
  Parameter lm_head_;  // unless tied
};

}  // namespace tessera::nn
