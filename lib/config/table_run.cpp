// SPDX-License-Identifier: Apache-2.0
// Keys of a run file outside `engine` and an inline `model`.
#include "config/table.hpp"

namespace tessera::config {
namespace {

void add_data(RowList& rows) {
  rows.section("data");
  rows.supported("train", texts(), "[]",
                 "Text files, .jsonl files, prefixes of .bin/.idx pairs, or globs of them (`**` "
                 "crosses folders). Required for training.");
  rows.supported("validation", number_below(0, 1).or_(texts()), "0",
                 "Held back for validation: a fraction (the last sequences), or files.");
  rows.supported("tokenizer", any_text(), "\"bytes\"",
                 "`bytes` (256 bytes and end-of-text), or a tokenizer file or folder.");
  rows.supported("sequence_length", integer(1).or_auto(), "\"auto\"",
                 "Tokens of a training sequence. auto: the model's longest.");
  rows.supported("field", any_text(), "\"text\"", "The field of .jsonl lines that holds the text.");
}

void add_run(RowList& rows) {
  rows.section("run");
  rows.supported("folder", any_text().or_auto(), "\"auto\"",
                 "Where metrics, checkpoints and logs go. auto: `runs/` and the run file's name.");
  rows.supported("steps", integer(1), "null",
                 "Length of the run in optimizer steps. Exactly one of steps, tokens and epochs.");
  rows.supported("tokens", integer(1), "null", "Length of the run in training targets.");
  rows.supported("epochs", number_above(0), "null",
                 "Length of the run in visits of every training sequence.");
  rows.supported("minutes", number_above(0), "null",
                 "Stop, and save, after this much wall-clock time.");
  rows.supported("seed", integer(0), "1234", "Of initial weights, data order and dropout.");
  rows.supported("recompute", one_of({"none", "selective", "full"}), "\"none\"",
                 "Activations to compute again in backward instead of keeping: full, those of each "
                 "block.");
  rows.supported("recompute_every", integer(1, 1e9), "1",
                 "Of blocks 0, n, 2n, ... only; the others keep their activations.");
  rows.supported("tf32", flag(), "false",
                 "On GPUs: products of fp32 numbers may lose 13 bits of each factor's mantissa, to "
                 "run on tensor cores.");
  rows.supported(
      "attention", one_of({"auto", "cudnn", "own"}), "\"auto\"",
      "Whose kernels compute attention on GPUs. auto: cuDNN's where the build has it, "
      "for bf16 and fp16, without dropout and sequences of a multiple of 64 tokens; else "
      "own. cudnn: refuse what it does not take.");
  rows.supported("measure_products", flag(), "false",
                 "On GPUs: try several algorithms at the first product of each size and keep the "
                 "fastest. Which one that is, and the last bits with it, may differ between runs.");
  rows.supported("cuda_graph", flag(), "false",
                 "On GPUs, ZeRO stages 0 and 1: record the work of a micro-batch in a CUDA graph "
                 "and launch it as a whole. The same bits; for models so small that launching "
                 "kernels takes longer than running them.");
  rows.supported("threads", integer(1, 4096).or_auto(), "\"auto\"",
                 "Threads of a rank. auto: the node's cores, divided among its ranks.");
  rows.supported("log_every", integer(1).or_auto(), "\"auto\"",
                 "Steps between progress lines. auto: engine.steps_per_print, else 10.");
  rows.supported(
      "timeline", any_text().or_(integer(1)), "\"none\"",
      "Steps of which every rank records what it does when, e.g. `steps 3-5` or `step "
      "3`: `timeline.json` in the run's folder, for ui.perfetto.dev. Changes no bit of a "
      "result.");
  rows.section("run.checkpoint");
  rows.supported("every", integer(0), "1000",
                 "Steps between checkpoints; 0: only at the end, which is always saved.");
  rows.supported("keep", integer(1, 1e9), "2", "Newest checkpoints that stay.");
  rows.supported("asynchronous", flag(), "false",
                 "Write checkpoints while training goes on. Takes memory for a copy of what a rank "
                 "saves.");
  rows.supported("verify", flag(), "true",
                 "Recompute a checkpoint's checksums before continuing from it. A damaged one is "
                 "named and the one before it used.");
  rows.supported("on_error", one_of({"continue", "stop"}), "\"continue\"",
                 "When a checkpoint cannot be saved: warn and train on (the next save tries "
                 "again), or stop. The last save of a run always stops with an error.");
  rows.section("run.validate");
  rows.supported("every", integer(0), "0", "Steps between validations; 0: only at the end.");
  rows.supported("batches", integer(0), "0",
                 "Global batches of a validation; 0: all validation data.");
}

void add_mesh(RowList& rows) {
  rows.section("mesh");
  rows.supported("data", integer(1, 1e9).or_auto(), "\"auto\"",
                 "Ranks over which data and ZeRO are divided. auto: what the other axes leave.");
  rows.supported("sequence", integer(1, 1e9).or_auto(), "\"auto\"",
                 "Ranks that share each sequence. auto: as engine.sequence_parallel_size, else 1.");
  rows.supported(
      "sequence_attention", one_of({"auto", "ulysses", "ring"}), "\"auto\"",
      "How attention sees other ranks' tokens. ulysses: ranks exchange tokens for heads. "
      "ring: keys and values travel around. auto: what sends less in a step.");
  rows.supported("tensor", integer(1, 1e9).or_auto(), "\"auto\"",
                 "Ranks that share each matrix product, and with it heads, inner columns and "
                 "vocabulary. auto: as engine.tensor_parallel, else 1.");
  rows.supported("sequence_parallel", flag(), "false",
                 "Megatron's, of tensor ranks: between matrix products (norms, dropout, residual "
                 "sums) each has some of the tokens, by gathers and reduce-scatters in place of "
                 "all-reduces.");
  rows.supported("pipeline", integer(1, 1e9).or_auto(), "\"auto\"",
                 "Ranks that hold consecutive layers. auto: as engine.pipeline.stages, else 1.");
  rows.not_yet("expert", integer(1, 1e9), "1", "Data ranks that hold different experts.",
               "leave it at 1");
}

void add_pipeline(RowList& rows) {
  rows.section("pipeline");
  rows.supported("schedule", one_of({"gpipe", "1f1b", "interleaved-1f1b", "zero-bubble", "zb-v"}),
                 "\"1f1b\"",
                 "With mesh.pipeline above 1: the order in which a step's micro-batches "
                 "(gradient_accumulation_steps of them) go through the stages.");
  rows.supported("chunks", integer(1, 1024).or_auto(), "\"auto\"",
                 "Stages of a rank. auto: 2 for interleaved-1f1b and zb-v, else 1.");
  rows.supported("partition", any_text().or_(any_list()), "\"auto\"",
                 "How layers are divided among the stages: evenly by `parameters`, `uniform` in "
                 "number, by the number of those whose name matches `type:PATTERN`, or the layers "
                 "of each stage, e.g. [4, 3, 3, 2]. auto: as engine.pipeline.partition, else "
                 "parameters.");
  rows.supported("gather", one_of({"step", "micro_batch"}), "\"step\"",
                 "ZeRO stage 3: gather a stage's parameters once a step and keep them, or for each "
                 "forward and backward of a micro-batch.");
}

void add_comm(RowList& rows) {
  rows.section("comm");
  rows.supported("transport", one_of({"auto", "self", "shm", "mpi", "hybrid"}), "\"auto\"",
                 "How ranks exchange data. auto: shared memory in a node, MPI between nodes. "
                 "Results do not depend on it.");
  rows.supported("nodes", any_list().or_auto(), "\"auto\"",
                 "Which ranks count as one node, e.g. [[0, 1], [2, 3]]. Reductions fold inside a "
                 "node first. auto: as MPI sees the machine.");
  rows.supported("device_transport", one_of({"auto", "nccl", "mpi"}), "\"auto\"",
                 "How buffers of GPUs travel. auto: NCCL if the build has it and every rank has a "
                 "GPU of its own. mpi: through page-locked host memory and transport.");
  rows.supported("checked", flag(), "false",
                 "Compare operation, count and type of every collective over the ranks.");
  rows.supported("timeout_seconds", number_above(0), "600",
                 "A rank that comes later than this to a collective is named and the job ends.");
  rows.supported("reduce_every_micro_batch", flag(), "false",
                 "Stages 0 and 1 also reduce gradients after every micro-batch, which gives all "
                 "stages the same bits and costs traffic.");
}

}  // namespace

void add_run_rows(RowList& rows) {
  rows.section("");
  rows.supported("model", any_text().or_(any_map()), "null",
                 "A folder with config.json (and weights, if they are there), or a section with "
                 "the keys of Hugging Face's config.json. Required for training.");
  rows.supported("engine", any_text().or_(any_map()), "null",
                 "A DeepSpeed configuration, inline or the path of a file (relative to the run "
                 "file).");
  rows.supported(
      "device", one_of({"auto", "cpu", "cuda"}), "\"auto\"",
      "Where to compute. auto: on GPUs if every rank sees one. A program with data of its own "
      "computes on the CPU where the key is missing.");
  add_data(rows);
  add_run(rows);
  add_mesh(rows);
  add_pipeline(rows);
  add_comm(rows);
}

}  // namespace tessera::config
