// SPDX-License-Identifier: Apache-2.0
// Keys of an inline model: those of Hugging Face's config.json for GPT-2, and of a feed-forward
// network.
#include "config/table.hpp"

namespace tessera::config {
namespace {

// As the model itself has it: ids and positions are 32-bit.
constexpr double kMost = 1 << 24;

void add_type(RowList& rows) {
  rows.supported("model_type",
                 one_of({"gpt2", "mlp", "llama", "mistral", "mixtral", "qwen2", "qwen3", "opt",
                         "bloom", "gpt_neox", "bert"}),
                 "null",
                 "The architecture. Required when the model is inline. mlp is for programs that "
                 "bring their own data.")
      .with_later({"\"llama\"", "\"mistral\"", "\"mixtral\"", "\"qwen2\"", "\"qwen3\"", "\"opt\"",
                   "\"bloom\"", "\"gpt_neox\"", "\"bert\""},
                  "use gpt2");
}

void add_sizes(RowList& rows) {
  rows.supported("n_layer", integer(1, 1 << 16), "12", "Blocks.");
  rows.supported("n_embd", integer(1, kMost), "768", "Width.");
  rows.supported("n_head", integer(1, kMost), "12", "Attention heads; they divide the width.");
  rows.supported("n_positions", integer(1, kMost), "1024", "Longest sequence.");
  rows.supported("n_inner", integer(1, 4.0 * kMost), "null",
                 "Inner width of the feed-forward part. null: 4 × n_embd.");
  rows.supported("vocab_size", integer(1, kMost).or_auto(), "\"auto\"",
                 "Tokens. auto: the tokenizer's.");
}

void add_behaviour(RowList& rows) {
  rows.supported(
      "activation_function",
      one_of({"gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu", "relu", "silu", "swish"}),
      "\"gelu_new\"", "Activation of the feed-forward part.");
  const Type probability = number_below(0, 1);
  rows.supported("embd_pdrop", probability, "0.1", "Dropout of the embedding.");
  rows.supported("attn_pdrop", probability, "0.1", "Dropout of attention weights.");
  rows.supported("resid_pdrop", probability, "0.1", "Dropout of each block's two results.");
  rows.supported("layer_norm_epsilon", number_above(0), "1e-05", "Added to the variance.");
  rows.supported("initializer_range", number_from(0), "0.02",
                 "Standard deviation of initial weights.");
  rows.supported("tie_word_embeddings", flag(), "true", "The head uses the embedding's weights.");
  rows.supported("scale_attn_weights", flag(), "true", "Divide scores by √(head size).");
  rows.supported("scale_attn_by_inverse_layer_idx", flag(), "false",
                 "Divide scores by the layer's number, too.");
}

void add_network(RowList& rows) {
  rows.supported("layer_sizes", numbers(), "null",
                 "model_type mlp: numbers of inputs, of each hidden layer and of outputs. "
                 "Required there.");
  rows.supported("activation", one_of({"gelu", "gelu_new", "relu", "silu", "tanh"}), "\"gelu\"",
                 "mlp: activation of hidden layers.");
  rows.supported("residual", flag(), "false",
                 "mlp: hidden layers that keep the width add their input.");
  rows.supported("normalization", one_of({"none", "layer_norm"}), "\"none\"",
                 "mlp: before each hidden activation.");
  rows.supported("layer_norm_eps", number_above(0), "1e-05", "mlp: added to the variance.");
  rows.supported("loss", one_of({"mse", "l1", "huber", "cross_entropy"}), "\"mse\"",
                 "mlp: mean over all outputs; cross_entropy: over samples, targets are classes.");
  rows.supported("huber_delta", number_above(0), "1.0",
                 "mlp: where the huber loss goes from square to line.");
  rows.supported("normalize_inputs", flag(), "false",
                 "mlp: subtract mean, divide by deviation, of what the program let be observed.");
  rows.supported("normalize_outputs", flag(), "false",
                 "mlp: the same for outputs; the loss is of normalised numbers.");
}

/// What Hugging Face writes into each config.json.
void add_remarks(RowList& rows) {
  for (const char* key : {"summary_type", "summary_use_proj", "summary_activation",
                          "summary_proj_to_labels", "summary_first_dropout", "id2label", "label2id",
                          "num_labels", "problem_type", "finetuning_task", "task_specific_params",
                          "is_decoder", "is_encoder_decoder", "tokenizer_class"})
    rows.no_effect(key, Type{}, "null", "of other heads and tasks");
  for (const char* key : {"do_sample", "max_length", "min_length", "temperature", "top_k", "top_p"})
    rows.no_effect(key, Type{}, "null", "`tessera generate` has options for it");
  rows.no_effect("architectures", texts(), "null", "`model_type` says it");
  rows.no_effect("torch_dtype", any_text(), "null", "engine.bf16 and engine.fp16 say it");
  rows.no_effect("dtype", any_text(), "null", "engine.bf16 and engine.fp16 say it");
  rows.no_effect("n_ctx", any_integer(), "null", "an old name of n_positions that nothing reads");
  for (const char* key : {"transformers_version", "_name_or_path", "output_attentions",
                          "output_hidden_states", "return_dict", "_attn_implementation"})
    rows.no_effect(key, Type{}, "null", "of Hugging Face's own software");
}

}  // namespace

void add_model_rows(RowList& rows) {
  rows.section("model");
  add_type(rows);
  rows.of_model("mlp");
  add_network(rows);
  rows.of_model("gpt2");
  add_sizes(rows);
  add_behaviour(rows);
  rows.no_effect("reorder_and_upcast_attn", flag(), "false",
                 "attention always accumulates in fp32");
  rows.no_effect("use_cache", flag(), "true", "generation always keeps keys and values");
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    rows.no_effect(key, any_integer().or_(any_list()), "null", "the tokenizer says it");
  add_remarks(rows);
  rows.not_yet("add_cross_attention", flag(), "false", "Attend to an encoder.");
  rows.of_model("");
}

}  // namespace tessera::config
