// SPDX-License-Identifier: Apache-2.0
// GPT-2 (Radford et al. 2019), with Hugging Face's configuration keys and parameter names.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tessera/autograd/dropout.hpp"
#include "tessera/autograd/vocabulary_part.hpp"
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

/// What a rank of the tensor axis has of the model's heads, inner columns and tokens.
struct Gpt2Shares {
  Interval heads, inner, vocabulary;
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
  std::int64_t kept_bytes(std::int64_t rows, std::int64_t positions) const override;
  std::int64_t recorded_bytes(std::int64_t rows, std::int64_t positions) const override;

  void check(const Tensor& ids, const Tensor* targets) const override;
  autograd::Loss forward_loss(autograd::Tape& tape, const Batch& batch) override;
  /// The embedding, each block, and the last norm with the head.
  std::vector<LayerInfo> layers() const override;
  StageOutput forward_stage(autograd::Tape& tape, int stage, const Batch& batch,
                            const autograd::Value& input) override;
  /// Not where ranks share the work: what they exchange goes through other streams; nor where
  /// host memory, which others may use between two launches, keeps something.
  bool can_be_recorded() const override {
    return is_whole() && !in_stages() && !options_.host_activations;
  }
  /// In the stages of a pipeline too, of which every rank gets the logits.
  Tensor logits(autograd::Tape& tape, const Tensor& ids) override;
  KvCache make_cache(std::int64_t rows, std::int64_t capacity, Device device = {}) const override;
  /// In the stages of a pipeline too, of which every rank gets the logits; its cache has the layers
  /// of its own stages only.
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
  struct Pass;  // what the blocks of one pass share

  /// This rank computes alone.
  bool is_whole() const { return options_.tensor.size == 1 && options_.sequence.size == 1; }
  /// Pairs of a row's queries and heads whose attention this rank computes.
  std::int64_t attention_queries(std::int64_t positions) const;
  /// What attention keeps for the backward pass.
  std::int64_t attention_bytes(std::int64_t rows, std::int64_t positions) const;
  /// Ranks of the tensor axis have their own tokens between matrix products.
  bool has_token_shards() const { return options_.sequence_parallel && options_.tensor.size > 1; }
  Pass training_pass(const Batch& batch) const;
  /// What a pass over some rows knows of this rank's tokens of them: of the sequence axis, and of
  /// those with token shards.
  void share_sequences(Pass& pass, std::int64_t rows) const;
  void share_tokens(Pass& pass, std::int64_t rows) const;
  /// This rank's tokens of whole rows [rows, positions] int32.
  Tensor own_tokens(const Stream& stream, const Pass& pass, const Tensor& whole) const;

  /// Weights of which a rank has columns: with its part of the bias.
  Conv1DParameters column_parallel(std::int64_t inputs, std::int64_t outputs,
                                   std::vector<Interval> columns, double deviation) const;
  /// Of which it has rows: the bias is whole.
  Conv1DParameters row_parallel(std::int64_t inputs, std::int64_t outputs, const Interval& rows,
                                double deviation) const;
  Parameter vocabulary_table() const;
  void build_units();
  std::vector<Unit> units_of_stages() override;
  void add_block();
  autograd::Value embed(autograd::Tape& tape, const Pass& pass, const Tensor& ids);
  /// In stages, where a tied table is left to the head's copy.
  autograd::Value embed_stage(autograd::Tape& tape, const Pass& pass, const Tensor& ids);
  autograd::KeptInputs kept_inputs() const;
  autograd::Value block(autograd::Tape& tape, const Pass& pass, std::int64_t layer,
                        const autograd::Value& x);
  autograd::Loss head_loss(autograd::Tape& tape, const Pass& pass, const Batch& batch,
                           const autograd::Value& x);
  autograd::Value block_body(autograd::Tape& tape, const Pass& pass, std::int64_t layer,
                             const autograd::Value& x);
  /// Ranks that have the other tokens of what a norm takes; nullptr: none.
  Communicator* group_of_norms() const;
  /// x of all tokens, which the ranks of the tensor axis go on to use for different columns.
  autograd::Value column_input(autograd::Tape& tape, const Pass& pass,
                               const autograd::Value& x) const;
  /// Summed over the tensor axis; of own tokens where a rank has those.
  autograd::Value row_output(autograd::Tape& tape, const autograd::Value& x, Conv1DParameters& p);
  autograd::VocabularyPart vocabulary_part() const;
  autograd::Value attend(autograd::Tape& tape, const Pass& pass, std::int64_t layer,
                         const autograd::Value& qkv);
  autograd::Value attend_cached(autograd::Tape& tape, const Pass& pass, std::int64_t layer,
                                const Tensor& qkv);
  /// Embedding and all blocks; a tied embedding stays entered for the head.
  autograd::Value blocks(autograd::Tape& tape, const Pass& pass, const Tensor& ids);
  /// Of these, what one stage has; `x` is what the stage before made.
  autograd::Value blocks_of_stage(autograd::Tape& tape, const Pass& pass, int stage,
                                  const Tensor& ids, autograd::Value x);
  /// After which of the positions logits are wanted.
  enum class Wanted : std::uint8_t { last, all };
  /// Of a pass through the stages of all ranks, on each of them.
  Tensor logits_through_stages(autograd::Tape& tape, const Pass& pass, const Tensor& ids,
                               Wanted wanted);
  bool has_layer(int layer) const;
  /// The last norm, then head(hidden); leaves what is still entered.
  template <typename Head>
  auto with_head(autograd::Tape& tape, const autograd::Value& x, Head head);
  autograd::Value final_norm(autograd::Tape& tape, const autograd::Value& x);
  Tensor head_logits(autograd::Tape& tape, const Tensor& hidden);
  /// x [rows, positions, width] -> fp32 [rows, positions, vocabulary], or of the last position
  /// [rows, vocabulary].
  Tensor logits_of(autograd::Tape& tape, const autograd::Value& x, Wanted wanted);
  autograd::DropoutSite dropout_site(const Pass& pass, std::int64_t site, double probability) const;
  /// Layers: 0 is the embedding, then blocks, then the last norm with the head.
  int final_layer() const { return static_cast<int>(config_.n_layer) + 1; }
  /// Those of this rank, in forward order.
  std::vector<std::int64_t> own_blocks() const;
  struct ActivationSizes;
  ActivationSizes activation_sizes(std::int64_t rows, std::int64_t positions) const;
  /// Where a layer's unit is in units().
  int unit_of(int layer) const;
  /// Of the weight that the head multiplies with.
  int head_unit() const;
  float attention_scale(std::int64_t layer) const;
  void check_ids(const Tensor& ids, std::int64_t past) const;
  void require_group() const;
  void require_all_layers() const;
  void require_whole(const char* what) const;
  void check_cache(const Tensor& ids, const KvCache& cache) const;
  /// x [rows, positions, width] -> [rows, width]
  Tensor last_positions(const Stream& stream, const Tensor& x) const;
  Parameter& head_weight() {
    if (!config_.tie_word_embeddings) return lm_head_;
    return in_stages() ? last_wte_ : wte_;
  }

  Gpt2Config config_;
  Gpt2Shares shares_;
  Parameter wte_, wpe_;
  std::vector<Block> h_;
  LayerNormParameters ln_f_;
  Parameter lm_head_;   // unless tied
  Parameter last_wte_;  // in stages, if tied: the last stage's copy
};

}  // namespace tessera::nn
