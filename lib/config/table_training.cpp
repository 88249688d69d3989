// SPDX-License-Identifier: Apache-2.0
// Keys of the `engine` section about how a step is computed.
#include "config/table.hpp"

namespace tessera::config {
namespace {

void add_recompute(RowList& rows) {
  rows.section("engine.activation_checkpointing");
  const char* const kReason = "run.recompute decides what is computed again";
  rows.supported("partition_activations", flag(), "false",
                 "With run.recompute full: tensor ranks each keep a share of a block's input and "
                 "gather it in backward.");
  rows.supported("cpu_checkpointing", flag(), "false",
                 "With run.recompute full on GPUs: inputs of blocks wait in host memory.");
  rows.no_effect("contiguous_memory_optimization", flag(), "false", kReason);
  rows.no_effect("number_checkpoints", integer(0), "null", kReason);
  rows.no_effect("synchronize_checkpoint_boundary", flag(), "false", "tunes CUDA");
  rows.no_effect("profile", flag(), "false", "engine.wall_clock_breakdown shows times");
}

void add_layer_drop(RowList& rows) {
  rows.section("engine.progressive_layer_drop");
  rows.not_yet("enabled", flag(), "false", "Skip layers at random, more of them later.");
  rows.dependent("theta", number_in(0, 1), "1.0");
  rows.dependent("gamma", number_from(0), "0.001");
  rows.section("engine.eigenvalue");
  rows.not_yet("enabled", flag(), "false", "Curvature of each block, for quantization.");
  rows.dependent("verbose", flag(), "false");
  rows.dependent("max_iter", integer(1), "100");
  rows.dependent("tol", number_above(0), "0.01");
  rows.dependent("stability", number_from(0), "1e-06");
  rows.dependent("gas_boundary_resolution", integer(1), "1");
  rows.dependent("layer_name", any_text(), "\"bert.encoder.layer\"");
  rows.dependent("layer_num", integer(0), "0");
}

void add_pipeline(RowList& rows) {
  rows.section("engine.pipeline");
  const char* const kRecompute = "run.recompute decides what is computed again";
  const char* const kWhole = "activations travel whole";
  rows.supported("stages", integer(1, 1e9).or_auto(), "\"auto\"", "As mesh.pipeline.");
  rows.supported("partition", any_text(), "null", "As pipeline.partition; best: parameters.");
  rows.no_effect("seed_layers", flag(), "false", "weights are drawn by name and place");
  rows.no_effect("activation_checkpoint_interval", integer(0), "0", kRecompute);
  rows.no_effect("pipe_partitioned", flag(), "true", kWhole);
  rows.no_effect("grad_partitioned", flag(), "true", kWhole);
  rows.no_effect("use_reentrant", flag(), "null", kRecompute);
}

void add_sparse_attention(RowList& rows) {
  rows.section("engine");
  rows.not_yet("sparse_attention", any_map(), "{}", "Block-sparse attention.");
  rows.section("engine.sparse_attention");
  rows.dependent("mode", one_of({"dense", "fixed", "variable", "bigbird", "bslongformer"}),
                 "\"fixed\"");
  rows.dependent("block", integer(1), "16");
  rows.dependent("different_layout_per_head", flag(), "false");
  rows.dependent("num_local_blocks", integer(1), "4");
  rows.dependent("num_global_blocks", integer(0), "1");
  rows.dependent("attention", one_of({"bidirectional", "unidirectional"}), "\"bidirectional\"");
  rows.dependent("horizontal_global_attention", flag(), "false");
  rows.dependent("num_different_global_patterns", integer(1), "1");
  rows.dependent("num_random_blocks", integer(0), "0");
  rows.dependent("local_window_blocks", numbers(), "[4]");
  rows.dependent("global_block_indices", numbers(), "[0]");
  rows.dependent("global_block_end_indices", numbers(), "null");
  rows.dependent("num_sliding_window_blocks", integer(1), "3");
}

}  // namespace

void add_training_rows(RowList& rows) {
  add_recompute(rows);
  add_layer_drop(rows);
  add_pipeline(rows);
  add_sparse_attention(rows);
}

}  // namespace tessera::config
