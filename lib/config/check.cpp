// SPDX-License-Identifier: Apache-2.0
#include "config/check.hpp"

#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <set>

#include <fmt/format.h>

#include "config/mesh.hpp"
#include "config/parse.hpp"
#include "config/step_range.hpp"
#include "config/table.hpp"
#include "config/values.hpp"

namespace tessera::config {
namespace {

class Checker {
 public:
  Checker(RunConfig& config, Problems& problems)
      : config_(config), values_(config.entries), problems_(problems) {}

  void run() {
    if (!config_.bare_engine) {
      check_model();
      check_data();
      check_length();
      check_nodes();
      check_graph();
      check_timeline();
      name_folder();
    }
    check_engine();
  }

 private:
  void wrong(std::string message) { problems_.add(Code::invalid_config, std::move(message)); }

  void missing(std::string_view path, std::string_view example) {
    wrong(fmt::format("{}: `{}` is missing; for example {}", config_.file, path, example));
  }

  void check_model() {
    const bool folder = values_.get("model").is(Node::Kind::text);
    const bool inlined = values_.has("model.model_type");
    if (!folder && !inlined && config_.for_training)
      missing("model", "model: {model_type: gpt2, n_layer: 6, n_embd: 384, n_head: 6}");
    if (!inlined) return;
    if (values_.get("model.model_type").is(Node::Kind::null))
      missing("model.model_type", "model_type: gpt2");
    if (values_.text("model.model_type") == "mlp" &&
        values_.get("model.layer_sizes").is(Node::Kind::null))
      missing("model.layer_sizes", "layer_sizes: [6, 64, 64, 1]");
    check_divides("model.n_head", "model.n_embd");
    check_divides("model.num_key_value_heads", "model.num_attention_heads");
    if (!values_.integer("model.head_dim"))
      check_divides("model.num_attention_heads", "model.hidden_size");
  }

  void check_divides(const char* divisor, const char* whole) {
    const auto parts = values_.integer(divisor), size = values_.integer(whole);
    if (parts && size && *size % *parts != 0)
      wrong(fmt::format("{}: `{}` is {}, which does not divide `{}` {}", values_.place(divisor),
                        divisor, *parts, whole, *size));
  }

  void check_data() {
    if (config_.for_training && values_.get("data.train").items.empty())
      missing("data.train", "train: [\"text/*.txt\"]");
    const bool nothing = values_.get("data.validation") == make_integer(0);
    if (nothing && values_.integer("run.validate.every").value_or(0) > 0) {
      config_.notices.push_back(fmt::format(
          "{}: `run.validate.every` has no effect: `data.validation` holds nothing back",
          values_.place("run.validate.every")));
    }
    const auto length = values_.integer("data.sequence_length");
    for (const char* const key : {"model.n_positions", "model.max_position_embeddings"}) {
      const auto longest = values_.integer(key);
      if (length && longest && *length > *longest)
        wrong(fmt::format("{}: `data.sequence_length` is {}, longer than `{}` {} ({})",
                          values_.place("data.sequence_length"), *length, key, *longest,
                          values_.place(key)));
    }
  }

  void check_graph() {
    if (!values_.flag("run.cuda_graph")) return;
    const char* const stage = "engine.zero_optimization.stage";
    if (values_.text("device") == "cpu")
      wrong(
          fmt::format("{}: `run.cuda_graph` is true, but `device` is cpu ({}); graphs are for "
                      "GPUs: set device to cuda or auto",
                      values_.place("run.cuda_graph"), values_.place("device")));
    if (values_.integer(stage).value_or(0) > 1)
      wrong(fmt::format(
          "{}: `run.cuda_graph` is true, but `{}` is {} ({}), where gradients and "
          "parameters do not keep their places; use stage 0 or 1",
          values_.place("run.cuda_graph"), stage, *values_.integer(stage), values_.place(stage)));
  }

  void check_timeline() {
    const Node steps = values_.get("run.timeline");
    if (steps.text == "none" || parse_step_range(steps)) return;
    wrong(fmt::format(
        "{}: `run.timeline` is {}; it must be the steps to record, counted from 1, such as `steps "
        "3-5` or `step 3`, or none",
        values_.place("run.timeline"), describe(steps)));
  }

  void check_length() {
    std::string given;
    int count = 0;
    for (const char* path : {"run.steps", "run.tokens", "run.epochs"}) {
      if (!values_.is_given(path)) continue;
      ++count;
      given += fmt::format("{}{} ({})", given.empty() ? "" : ", ", path, values_.place(path));
    }
    if (count > 1) {
      wrong(
          fmt::format("only one of run.steps, run.tokens and run.epochs may be given; there are "
                      "{}. `--set run.steps=null` removes one",
                      given));
    }
    if (count == 0 && config_.for_training)
      missing("run.steps", "steps: 300 (or tokens: 1e9, or epochs: 2)");
  }

  void check_nodes() {
    const Node nodes = values_.get("comm.nodes");
    if (!nodes.is(Node::Kind::list)) return;
    const std::string place = values_.place("comm.nodes");
    std::set<std::int64_t> seen;
    for (const Node& node : nodes.items) {
      if (!node.is(Node::Kind::list) || node.items.empty())
        return wrong(
            fmt::format("{}: `comm.nodes` is {}; it must be a list of lists of ranks, for "
                        "example [[0, 1], [2, 3]]",
                        place, describe(nodes)));
      for (const Node& rank : node.items) {
        if (!rank.is(Node::Kind::number) || !rank.whole || rank.integer < 0 ||
            rank.integer > 1'000'000'000 || !seen.insert(rank.integer).second)
          return wrong(
              fmt::format("{}: `comm.nodes` holds {}; ranks are integers from 0, each "
                          "once",
                          place, describe(rank)));
      }
    }
  }

  void name_folder() {
    if (Entry* entry = values_.find("run.folder"); entry->automatic) {
      const std::string stem = std::filesystem::path(config_.file).stem().string();
      values_.derive("run.folder", make_text("runs/" + (stem.empty() ? "run" : stem)),
                     "the run file's name");
      entry->automatic = false;
    }
  }

  void check_engine() {
    const Node betas = values_.get("engine.optimizer.params.betas");
    const bool two = betas.items.size() == 2;
    bool in_range = true;
    for (const Node& beta : betas.items) in_range &= beta.number >= 0 && beta.number < 1;
    if (betas.is(Node::Kind::list) && !(two && in_range)) {
      wrong(
          fmt::format("{}: `engine.optimizer.params.betas` is {}; it must be two numbers in "
                      "[0, 1)",
                      values_.place("engine.optimizer.params.betas"), describe(betas)));
    }
    if (values_.text("engine.scheduler.type") == "OneCycle") check_one_cycle();
    check_sgd();
    check_fp16();
    if (config_.bare_engine) return;
    note_idle_recomputation();
    note_idle_shares();
  }

  void note_idle(const std::string& path, std::string_view why) {
    config_.notices.push_back(
        fmt::format("{}: `{}` has no effect: {}", values_.place(path), path, why));
  }

  void note_idle_recomputation() {
    const std::string recompute = values_.text("run.recompute");
    const auto need = [&](const char* what) {
      return fmt::format("with run.recompute {} {}", recompute, what);
    };
    const std::string partition = "engine.activation_checkpointing.partition_activations";
    const std::string on_host = "engine.activation_checkpointing.cpu_checkpointing";
    for (const std::string& path : {partition, on_host})
      if (values_.flag(path) && recompute != "full")
        note_idle(path, need("no block keeps its input alone"));
    if (values_.flag(on_host) && recompute == "full" && values_.text("device") == "cpu")
      note_idle(on_host, "with device cpu activations are in host memory already");
    if (values_.integer("run.recompute_every").value_or(1) > 1 && recompute == "none")
      note_idle("run.recompute_every", need("nothing is computed again"));
  }

  /// Shares of activations among the ranks of a tensor axis.
  void note_idle_shares() {
    const std::string tokens = "mesh.sequence_parallel";
    const std::string inputs = "engine.activation_checkpointing.partition_activations";
    if (!values_.flag(tokens)) return;
    if (!wants_tensor_axis(values_))
      note_idle(tokens, "mesh.tensor is 1, and the ranks of that axis share the tokens");
    else if (values_.flag(inputs) && values_.text("run.recompute") == "full")
      note_idle(inputs, "with mesh.sequence_parallel the inputs of blocks are shares already");
  }

  /// One notice for all keys of engine.fp16 that differ from their defaults and tune nothing.
  void note_idle_fp16(std::initializer_list<const char*> keys, const char* reason) {
    for (const char* key : keys) {
      const std::string path = fmt::format("engine.fp16.{}", key);
      if (values_.get(path) == parse_json(find_row(path)->fallback, path)) continue;
      config_.notices.push_back(fmt::format("{}: `{}` and its neighbours have no effect: {}",
                                            values_.place(path), path, reason));
      return;
    }
  }

  void check_fp16() {
    if (!values_.flag("engine.fp16.enabled")) {
      return note_idle_fp16({"loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis",
                             "consecutive_hysteresis", "min_loss_scale"},
                            "fp16 is not enabled");
    }
    if (values_.number("engine.fp16.loss_scale").value_or(0) > 0) {
      return note_idle_fp16({"initial_scale_power", "loss_scale_window", "hysteresis",
                             "consecutive_hysteresis", "min_loss_scale"},
                            "a loss_scale above 0 stays as it is");
    }
    const char* const smallest = "engine.fp16.min_loss_scale";
    const auto power = values_.integer("engine.fp16.initial_scale_power").value_or(0);
    const double minimum = values_.number(smallest).value_or(0);
    if (minimum > std::ldexp(1.0, static_cast<int>(power))) {
      wrong(fmt::format("{}: `{}` is {}, above the initial scale 2^{}", values_.place(smallest),
                        smallest, minimum, power));
    }
  }

  void check_one_cycle() {
    for (const char* key : {"cycle_min_lr", "cycle_max_lr"}) {
      const std::string path = fmt::format("engine.scheduler.params.{}", key);
      if (!values_.number(path)) missing(path, fmt::format("{}: 0.001", key));
    }
  }

  void check_sgd() {
    const std::string prefix = "engine.optimizer.params.";
    if (!values_.flag(prefix + "nesterov")) return;
    const bool possible = values_.number(prefix + "momentum").value_or(0) > 0 &&
                          values_.number(prefix + "dampening").value_or(0) == 0;
    if (!possible) {
      wrong(fmt::format("{}: `{}nesterov` needs momentum > 0 and dampening 0",
                        values_.place(prefix + "nesterov"), prefix));
    }
  }

  RunConfig& config_;
  Values values_;
  Problems& problems_;
};

}  // namespace

void check_consistency(RunConfig& config, Problems& problems) {
  Checker(config, problems).run();
}

}  // namespace tessera::config
