// SPDX-License-Identifier: Apache-2.0
// What causal transformers of equal blocks have in common: how a pass goes through embedding,
// blocks and head, on one rank or over tensor, sequence and pipeline axes. A family of models adds
// its parameters and what a block computes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tessera/autograd/dropout.hpp"
#include "tessera/autograd/linear.hpp"
#include "tessera/autograd/vocabulary_part.hpp"
#include "tessera/nn/model.hpp"

namespace tessera::nn {

struct DecoderSizes {
  std::int64_t layers = 0;
  std::int64_t width = 0;  ///< of the residual stream
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;  ///< divide the heads (grouped-query attention)
  std::int64_t head_dim = 0;
  std::int64_t inner = 0;  ///< width inside the feed-forward part
  std::int64_t vocabulary = 0;
  std::int64_t positions = 0;  ///< of the longest sequence
  bool tied = false;           ///< the head multiplies with the embedding's table
  bool gated = false;          ///< the feed-forward part has two projections, and multiplies them
  bool rotary = false;         ///< attention turns queries and keys by their positions
  bool residual_dropout = false;
  int norm_statistics = 2;  ///< fp32 numbers that a norm keeps of a token
  // What the configuration calls some of them.
  const char* heads_key = "";
  const char* kv_heads_key = "";
  const char* inner_key = "";
};

/// What a rank of the tensor axis has of the heads, inner columns and tokens.
struct DecoderShares {
  Interval heads, kv_heads, inner, vocabulary;
  Interval kv_holders;  ///< ranks of the axis that have the same key and value head
};

class Decoder : public Model {
 public:
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  const DecoderSizes& sizes() const { return sizes_; }
  std::int64_t vocabulary() const override { return sizes_.vocabulary; }
  std::int64_t positions() const override { return sizes_.positions; }
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

 protected:
  struct Pass;  // what the blocks of one pass share

  Decoder(const DecoderSizes& sizes, const ModelOptions& options);

  // --- what a family of models adds ---

  /// Table, with what else is added to the tokens' rows; dropout.
  virtual autograd::Value embed(autograd::Tape& tape, const Pass& pass, const Tensor& ids) = 0;
  virtual autograd::Value block_body(autograd::Tape& tape, const Pass& pass, std::int64_t layer,
                                     const autograd::Value& x) = 0;
  virtual autograd::Value final_norm(autograd::Tape& tape, const autograd::Value& x) = 0;

  /// Tells the base class what there is, in forward order; the family has made table_ and, unless
  /// it is tied, head_, whose names are given here. Once, at the end of a constructor.
  struct Layers {
    std::vector<NamedParameter> embedding;  // the table, and if there is one that of positions
    std::vector<std::vector<NamedParameter>> blocks;
    std::vector<NamedParameter> last;  // of the last norm
    std::string head;                  // unless it is tied
    std::string block;                 // what a unit is called, without its number
  };
  void build_units(Layers layers);
  Parameter vocabulary_table(double deviation) const;

  // --- what blocks are made of ---

  const DecoderShares& shares() const { return shares_; }
  struct Attention {
    float scale;
    autograd::DropoutSite dropout;
  };
  /// qkv [rows, own tokens, parts of own heads], columns q, k, v -> [rows, own tokens, own heads].
  autograd::Value attend(autograd::Tape& tape, const Pass& pass, std::int64_t layer,
                         const autograd::Value& qkv, const Attention& options);
  autograd::DropoutSite dropout_site(const Pass& pass, std::int64_t site, double probability) const;
  /// What later operations need is kept; else computed again.
  bool keeps(std::int64_t layer) const {
    return options_.recompute_of(layer) != Recompute::selective;
  }
  /// Ranks that have the other tokens of what a norm takes; nullptr: none.
  Communicator* group_of_norms() const;
  /// x of all tokens, which the ranks of the tensor axis go on to use for different columns.
  autograd::Value column_input(autograd::Tape& tape, const Pass& pass,
                               const autograd::Value& x) const;
  /// Summed over the tensor axis; of own tokens where a rank has those.
  autograd::Value row_output(autograd::Tape& tape, const autograd::Value& x,
                             autograd::Weight& weight, autograd::Weight* bias,
                             autograd::WeightLayout layout);
  autograd::VocabularyPart vocabulary_part() const;

 private:
  /// This rank computes alone.
  bool is_whole() const { return options_.tensor.size == 1 && options_.sequence.size == 1; }
  /// Heads of a row's queries, and of its keys, whose attention this rank computes, times its
  /// positions.
  struct AttentionPairs {
    std::int64_t queries, keys;
  };
  AttentionPairs attention_pairs(std::int64_t positions) const;
  /// What attention keeps for the backward pass.
  std::int64_t attention_bytes(std::int64_t rows, std::int64_t positions) const;
  /// Ranks of the tensor axis have their own tokens between matrix products.
  bool has_token_shards() const { return options_.sequence_parallel && options_.tensor.size > 1; }
  Pass training_pass(const Stream& stream, const Batch& batch) const;
  Pass reading_pass(const Stream& stream, const Tensor& ids, KvCache* cache) const;
  /// What a pass over some rows knows of this rank's tokens of them: of the sequence axis, and of
  /// those with token shards.
  void share_sequences(Pass& pass, std::int64_t rows) const;
  void share_tokens(Pass& pass, std::int64_t rows) const;
  /// Where its tokens are in their sequences, if this rank wants to know that.
  void number_tokens(Pass& pass, const Stream& stream, std::int64_t rows) const;
  /// This rank's tokens of whole rows [rows, positions] int32.
  Tensor own_tokens(const Stream& stream, const Pass& pass, const Tensor& whole) const;

  std::vector<Unit> units_of_stages() override;
  /// In stages, where a tied table is left to the head's copy.
  autograd::Value embed_stage(autograd::Tape& tape, const Pass& pass, const Tensor& ids);
  autograd::KeptInputs kept_inputs() const;
  autograd::Value block(autograd::Tape& tape, const Pass& pass, std::int64_t layer,
                        const autograd::Value& x);
  autograd::Loss head_loss(autograd::Tape& tape, const Pass& pass, const Batch& batch,
                           const autograd::Value& x);
  autograd::Value attend_cached(autograd::Tape& tape, const Pass& pass, std::int64_t layer,
                                const Tensor& qkv, float scale);
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
  Tensor head_logits(autograd::Tape& tape, const Tensor& hidden);
  /// x [rows, positions, width] -> fp32 [rows, positions, vocabulary], or of the last position
  /// [rows, vocabulary].
  Tensor logits_of(autograd::Tape& tape, const autograd::Value& x, Wanted wanted);
  /// Layers: 0 is the embedding, then blocks, then the last norm with the head.
  int final_layer() const { return static_cast<int>(sizes_.layers) + 1; }
  /// Those of this rank, in forward order.
  std::vector<std::int64_t> own_blocks() const;
  struct ActivationSizes;
  ActivationSizes activation_sizes(std::int64_t rows, std::int64_t positions) const;
  /// Where a layer's unit is in units().
  int unit_of(int layer) const;
  /// Of the weight that the head multiplies with.
  int head_unit() const;
  void check_ids(const Tensor& ids, std::int64_t past) const;
  void require_group() const;
  void require_all_layers() const;
  void require_whole(const char* what) const;
  void check_cache(const Tensor& ids, const KvCache& cache) const;
  /// x [rows, positions, width] -> [rows, width]
  Tensor last_positions(const Stream& stream, const Tensor& x) const;
  Parameter& head_weight() {
    if (!sizes_.tied) return head_;
    return in_stages() ? last_table_ : table_;
  }

  DecoderSizes sizes_;
  DecoderShares shares_;
  std::string table_name_;
  bool has_position_table_ = false;

 protected:
  Parameter table_;  // [vocabulary, width]
  Parameter head_;   // the same, unless tied

 private:
  Parameter last_table_;  // in stages, if tied: the last stage's copy
};

}  // namespace tessera::nn
