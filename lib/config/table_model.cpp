// SPDX-License-Identifier: Apache-2.0
// Keys of an inline model: those of Hugging Face's config.json for GPT-2 and Llama, and of a
// feed-forward network.
#include "config/table.hpp"

namespace tessera::config {
namespace {

// As the model itself has it: ids and positions are 32-bit.
constexpr double kMost = 1 << 24;
constexpr const char* kOtherTasks = "of other heads and tasks";

void add_type(RowList& rows) {
  rows.supported("model_type",
                 one_of({"gpt2", "mlp", "llama", "mistral", "mixtral", "qwen2", "qwen3", "opt",
                         "bloom", "gpt_neox", "bert"}),
                 "null",
                 "The architecture. Required when the model is inline. mlp is for programs that "
                 "bring their own data.")
      .with_later({"\"mistral\"", "\"mixtral\"", "\"qwen2\"", "\"qwen3\"", "\"opt\"", "\"bloom\"",
                   "\"gpt_neox\"", "\"bert\""},
                  "use gpt2 or llama");
}

void add_sizes(RowList& rows) {
  rows.supported("n_layer", integer(1, 1 << 16), "12", "Blocks.");
  rows.supported("n_embd", integer(1, kMost), "768", "Width.");
  rows.supported("n_head", integer(1, kMost), "12", "Attention heads; they divide the width.");
  rows.supported("n_positions", integer(1, kMost), "1024", "Longest sequence.");
  rows.supported("n_inner", integer(1, 4.0 * kMost), "null",
                 "Inner width of the feed-forward part. null: 4 × n_embd.");
}

void add_shared(RowList& rows) {
  rows.supported("vocab_size", integer(1, kMost).or_auto(), "\"auto\"",
                 "Tokens. auto: the tokenizer's.");
  rows.supported("initializer_range", number_from(0), "0.02",
                 "Standard deviation of initial weights.");
  rows.supported("tie_word_embeddings", flag(), "null",
                 "The head uses the embedding's weights. null: true for gpt2, false for llama.");
}

void add_llama_sizes(RowList& rows) {
  rows.supported("num_hidden_layers", integer(1, 1 << 16), "32", "llama: blocks.");
  rows.supported("hidden_size", integer(1, kMost), "4096", "llama: width.");
  rows.supported("intermediate_size", integer(1, 4.0 * kMost), "11008",
                 "llama: inner width of the gated feed-forward part.");
  rows.supported("num_attention_heads", integer(1, kMost), "32", "llama: attention heads.");
  rows.supported("num_key_value_heads", integer(1, kMost), "null",
                 "llama: heads of keys and values, which divide the others (grouped-query "
                 "attention). null: as many.");
  rows.supported("head_dim", integer(2, 256), "null",
                 "llama: size of a head, even. null: hidden_size / num_attention_heads.");
  rows.supported("max_position_embeddings", integer(1, kMost), "2048", "llama: longest sequence.");
}

void add_llama_behaviour(RowList& rows) {
  rows.supported("hidden_act",
                 one_of({"silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"}),
                 "\"silu\"", "llama: activation of the gate.");
  rows.supported("rms_norm_eps", number_above(0), "1e-06", "llama: added to the mean square.");
  rows.supported("rope_theta", number_above(0), "null",
                 "llama: base of rotary frequencies. null: 10000, or what rope_parameters say.");
  rows.supported("rope_scaling", any_map(), "null",
                 "llama: stretches rotary positions; {rope_type: linear or llama3, factor, "
                 "low_freq_factor, high_freq_factor, original_max_position_embeddings}.");
  rows.supported("rope_parameters", any_map(), "null",
                 "llama: the same with rope_theta in it, as transformers 5 writes it.");
  rows.supported("attention_dropout", number_below(0, 1), "0",
                 "llama: dropout of attention weights.");
  rows.supported("attention_bias", flag(), "false", "llama: attention's projections have biases.");
  rows.supported("mlp_bias", flag(), "false", "llama: the others have biases.");
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
  for (const char* key :
       {"id2label", "label2id", "num_labels", "problem_type", "finetuning_task",
        "task_specific_params", "is_decoder", "is_encoder_decoder", "tokenizer_class"})
    rows.no_effect(key, Type{}, "null", kOtherTasks);
  for (const char* key : {"do_sample", "max_length", "min_length", "temperature", "top_k", "top_p"})
    rows.no_effect(key, Type{}, "null", "`tessera generate` has options for it");
  rows.no_effect("architectures", texts(), "null", "`model_type` says it");
  rows.no_effect("torch_dtype", any_text(), "null", "engine.bf16 and engine.fp16 say it");
  rows.no_effect("dtype", any_text(), "null", "engine.bf16 and engine.fp16 say it");
  rows.no_effect("use_cache", flag(), "true", "generation always keeps keys and values");
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    rows.no_effect(key, any_integer().or_(any_list()), "null", "the tokenizer says it");
  for (const char* key : {"transformers_version", "_name_or_path", "output_attentions",
                          "output_hidden_states", "return_dict", "_attn_implementation"})
    rows.no_effect(key, Type{}, "null", "of Hugging Face's own software");
}

}  // namespace

void add_model_rows(RowList& rows) {
  rows.section("model");
  add_type(rows);
  rows.of_models({"mlp"});
  add_network(rows);
  rows.of_models({"gpt2", "llama"});
  add_shared(rows);
  add_remarks(rows);
  rows.of_models({"llama"});
  add_llama_sizes(rows);
  add_llama_behaviour(rows);
  rows.no_effect("pretraining_tp", any_integer(), "1", "only another order of sums");
  rows.of_models({"gpt2"});
  add_sizes(rows);
  add_behaviour(rows);
  rows.no_effect("reorder_and_upcast_attn", flag(), "false",
                 "attention always accumulates in fp32");
  for (const char* key : {"summary_type", "summary_use_proj", "summary_activation",
                          "summary_proj_to_labels", "summary_first_dropout"})
    rows.no_effect(key, Type{}, "null", kOtherTasks);
  rows.no_effect("n_ctx", any_integer(), "null", "an old name of n_positions that nothing reads");
  rows.not_yet("add_cross_attention", flag(), "false", "Attend to an encoder.");
  rows.of_models({});
}

}  // namespace tessera::config
