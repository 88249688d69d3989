// SPDX-License-Identifier: Apache-2.0
#include "tessera/planning/forecast.hpp"

#include <algorithm>
#include <cmath>

#include "tessera/base/shape.hpp"
#include "tessera/engine/estimate.hpp"
#include "tessera/nn/sequence_axis.hpp"

namespace tessera::planning {
namespace {

using config::Recompute;

/// The quantities of one rank in the middle of the pipeline, from which everything is put together.
class Accountant {
 public:
  Accountant(const Workload& work, const Machine& machine, const Layout& layout)
      : work_(work),
        model_(work.model),
        machine_(machine),
        layout_(layout),
        first_stage_(make_first_stage()) {}

  Forecast account() const {
    Forecast result;
    result.memory = memory();
    result.traffic = traffic();
    result.seconds = seconds();
    const TimeForecast& time = result.seconds;
    const double piped = time.compute + time.tensor + time.sequence + time.bubble;
    result.bubble_fraction = time.bubble / piped;
    result.flops_per_rank = work_.model_flops() / time.total() / layout_.mesh.ranks();
    result.tokens_per_second = work_.tokens() / time.total();
    return result;
  }

 private:
  int tensor() const { return layout_.mesh.tensor; }
  int sequence() const { return layout_.mesh.sequence; }
  /// Ranks that divide the tokens between products.
  int shards() const { return layout_.sequence_parallel ? tensor() : 1; }
  int stages() const { return layout_.mesh.pipeline; }
  int replicas() const { return layout_.mesh.data * sequence(); }
  std::int64_t element() const { return static_cast<std::int64_t>(size_of(work_.dtype)); }
  std::int64_t accumulation() const { return layout_.accumulation(work_); }
  double micro_batches() const { return static_cast<double>(accumulation()); }
  std::int64_t layers() const { return ceil_divide(model_.layers, stages()); }
  std::int64_t tokens() const {
    return layout_.micro_batch * ceil_divide(work_.length, sequence());
  }
  /// Of the residual stream of a micro-batch, and of what is split over the tensor group of it.
  double state_bytes() const { return static_cast<double>(tokens() * model_.hidden * element()); }
  double rows() const { return static_cast<double>(layout_.micro_batch); }
  double length() const { return static_cast<double>(work_.length); }
  /// Ranks among which the work of a layer is divided.
  double workers() const { return static_cast<double>(tensor()) * sequence(); }

  // --- memory ---

  std::int64_t split(std::int64_t elements) const { return ceil_divide(elements, tensor()); }
  /// Of keys and values, of which a rank has at least one head.
  std::int64_t key_width() const { return split(model_.key_heads()) * model_.head_size(); }
  /// Elements of the key's and value's weights beyond an even share.
  std::int64_t copied() const {
    return 2 * model_.hidden * (key_width() - std::min(key_width(), split(model_.key_width())));
  }

  zero::FlatLayout make_first_stage() const {
    // Two norms, and biases of the residual stream.
    const std::int64_t whole =
        2 * model_.norm_parameters() + (model_.biased ? 2 * model_.hidden : 0);
    const std::int64_t layer = split(model_.layer_parameters() - whole) + whole + copied();
    const std::int64_t table = split(model_.vocabulary * model_.hidden);
    zero::FlatLayout flat(replicas());
    flat.begin_unit("embedding");
    flat.add("embedding", {(model_.tied || stages() > 1 ? 1 : 2) * table +
                           model_.positions * model_.hidden + model_.norm_parameters()});
    for (std::int64_t i = 0; i < layers(); ++i) {
      const std::string name = std::to_string(i);
      flat.begin_unit(name);
      flat.add(name, {layer});
    }
    return flat;
  }

  engine::Estimate states() const {
    engine::EstimateInput input;
    input.stage = layout_.stage;
    input.dtype = work_.dtype;
    input.accumulation = accumulation();
    input.accumulation_dtype = work_.accumulation_dtype;
    input.states = work_.states;
    return engine::estimate_states(first_stage_, input);
  }

  /// As nn::Decoder::activation_bytes, for the layers of the first stage and all micro-batches that
  /// are on their way there.
  std::int64_t activations() const {
    const std::int64_t own = ceil_divide(tokens(), std::int64_t{shards()});
    const std::int64_t state = own * model_.hidden * element();
    const std::int64_t whole = tokens() * model_.hidden * element();
    const std::int64_t heads = tokens() * split(model_.query_width()) * element();
    const std::int64_t keys = tokens() * key_width() * element();
    const std::int64_t inner = tokens() * split(model_.inner) * element();
    const std::int64_t statistics_of_norm = (model_.biased ? 8 : 4) * own;
    const std::int64_t statistics = 4 * tokens() * split(model_.heads) + 2 * statistics_of_norm;
    const std::int64_t scores =
        work_.fused_attention ? 0
                              : 5 * element() / 2 * split(model_.heads) * tokens() * work_.length;
    const std::int64_t block =
        4 * state + 2 * heads + 2 * keys + model_.projections() * inner + statistics + scores;
    const bool shares = work_.partition_activations && shards() == 1;
    std::int64_t input = shares ? ceil_divide(state, std::int64_t{tensor()}) : state;
    if (work_.host_activations) input = 0;
    const auto kept = [&](Recompute recompute) {
      if (recompute == Recompute::full) return input;
      if (recompute == Recompute::none) return block;
      return work_.fused_attention ? block - 2 * state - inner : block - scores;
    };
    const auto backward = [&](Recompute recompute) {
      const bool selective = recompute == Recompute::selective;
      const std::int64_t second = inner + (selective ? inner : 0);
      const std::int64_t first = whole + (selective ? state : -inner);
      const std::int64_t gradients = shards() == 1 ? (work_.dropout ? 2 : 1) * state + second
                                                   : state + whole + std::max(second, first);
      if (recompute == Recompute::full) return gradients + block - (input == state ? state : 0);
      return gradients;
    };
    // A micro-batch keeps most at its end, or in the backward of the last layer of either kind.
    const std::int64_t last = (repeats() - 1) * layout_.recompute_every;
    const auto up_to = [&](std::int64_t layer) {
      return repeats() * kept(layout_.recompute) + (layer + 1 - repeats()) * kept(Recompute::none);
    };
    const std::int64_t pass = up_to(layers() - 1);
    const std::int64_t head =
        pass + 2 * state + (shards() > 1 ? 2 * whole : state) + statistics_of_norm;
    std::int64_t most = std::max(head, up_to(last) + backward(layout_.recompute));
    if (last + 1 < layers()) most = std::max(most, pass + backward(Recompute::none));
    return 4 * tokens() + (in_flight() - 1) * pass + most;
  }

  /// Layers that are computed again, if any are.
  std::int64_t repeats() const {
    return ceil_divide(layers(), std::int64_t{layout_.recompute_every});
  }

  /// Of the layers, those that are computed again in this way.
  double repeated(Recompute recompute) const {
    if (layout_.recompute != recompute) return 0;
    return static_cast<double>(repeats()) / static_cast<double>(layers());
  }

  std::int64_t in_flight() const {
    if (layout_.schedule == parallel::PipelineKind::gpipe) return accumulation();
    const std::int64_t extra =
        layout_.chunks > 1 ? ceil_divide(std::int64_t{stages()} - 1, layout_.chunks) : 0;
    return std::min<std::int64_t>(stages() + extra, accumulation());
  }

  MemoryForecast memory() const { return {states().total(), activations()}; }

  // --- traffic ---

  /// All-reduces of the residual stream of a layer and micro-batch; a gather or a reduce-scatter is
  /// half of one.
  double all_reduces(bool of_forward) const {
    if (tensor() == 1) return 0;
    if (of_forward) return 2;
    const double gather = work_.partition_activations && shards() == 1 ? 0.5 : 0;
    const double again = repeated(Recompute::full) * (2 + gather);
    // With token shards what two products took is gathered once more.
    return 2 + again + (shards() > 1 ? 1 : 0);
  }
  /// Of a norm's gradients, in fp32, where each rank finds those of its tokens.
  double norm_bytes() const {
    const double gradients = 4 * static_cast<double>(model_.norm_parameters());
    return 2 * (shards() - 1) * gradients / shards();
  }
  /// What a rank sends of a layer's gradients to those that have the same key head.
  double copied_bytes() const {
    if (tensor() <= model_.key_heads()) return 0;
    const double holders = static_cast<double>(tensor()) / static_cast<double>(model_.key_heads());
    return (holders - 1) * 2 * 4 * static_cast<double>(model_.hidden * model_.head_size());
  }
  double all_reduce_bytes() const { return 2 * (tensor() - 1) * state_bytes() / tensor(); }

  /// Of the attention that training chooses.
  double sequence_bytes(bool of_forward) const {
    const std::int64_t heads = split(model_.heads), keys = split(model_.key_heads());
    const auto kind =
        nn::choose_attention(nn::SequenceAttention::automatic, sequence(), model_.heads / tensor(),
                             std::max(model_.key_heads() / tensor(), std::int64_t{1}));
    const auto sent = nn::attention_traffic(kind, sequence(), heads, keys);
    const double again = repeated(Recompute::full) * sent.forward;
    return (of_forward ? sent.forward : sent.backward + again) *
           static_cast<double>(tokens() * model_.head_size() * element());
  }

  double message_bytes() const { return stages() == 1 ? 0 : state_bytes() / shards(); }

  double parameter_bytes() const {
    const std::int64_t all = first_stage_.padded() * element();
    return static_cast<double>(all) * (replicas() - 1) / replicas();
  }

  TrafficForecast traffic() const {
    const double passes = micro_batches() * static_cast<double>(layers());
    const double ends = stages() == 1 && tensor() > 1 ? 2 : 0;  // embedding and head
    TrafficForecast sent;
    sent.tensor = all_reduce_bytes() *
                  (passes * (all_reduces(true) + all_reduces(false)) + micro_batches() * ends);
    sent.tensor += passes * copied_bytes();
    sent.tensor += norm_bytes() * (2 * passes + (stages() == 1 ? micro_batches() : 0));
    sent.sequence = passes * (sequence_bytes(true) + sequence_bytes(false));
    sent.pipeline = 2 * micro_batches() * layout_.chunks * message_bytes();
    const double k = micro_batches();
    sent.data = parameter_bytes() * (layout_.stage == 3 ? 3 * k : layout_.stage == 2 ? k + 1 : 2);
    return sent;
  }

  // --- time ---

  double rate() const {
    return machine_.flops(work_.dtype, static_cast<double>(model_.hidden) / tensor());
  }

  /// Read and written by a layer's forward beside its products.
  double moved_bytes() const {
    const double width = static_cast<double>(model_.hidden);
    const double heads = 4 * static_cast<double>(model_.query_width() + model_.key_width()) / width;
    return state_bytes() * (10.0 / shards() + (heads + wide()) / tensor()) + score_bytes();
  }
  /// Of the feed-forward part, in widths of the residual stream: the function is a step of its own
  /// where it is multiplied with something.
  double wide() const {
    return (model_.gated ? 6.0 : 2.0) * static_cast<double>(model_.inner) /
           static_cast<double>(model_.hidden);
  }
  double score_bytes() const {
    if (work_.fused_attention) return 0;
    return 5 * static_cast<double>(element() * model_.heads) * rows() * length() * length() /
           workers();
  }

  double layer_forward() const {
    return model_.layer_flops(rows(), length()) / workers() / rate() +
           moved_bytes() / machine_.memory_bandwidth;
  }

  double layer_recompute() const {
    return repeated(Recompute::full) * layer_forward() +
           repeated(Recompute::selective) * cheap_forward();
  }

  /// What selective recomputation repeats.
  double cheap_forward() const {
    if (!work_.fused_attention) {
      const double scores =
          4 * rows() * length() * length() * static_cast<double>(model_.query_width());
      return scores / workers() / rate() + score_bytes() / machine_.memory_bandwidth;
    }
    return state_bytes() * (4.0 / shards() + wide() / tensor()) / machine_.memory_bandwidth;
  }

  double head() const { return 3 * model_.head_flops(rows(), length()) / workers() / rate(); }

  double tensor_seconds(double all_reduces) const {
    const Link& link = machine_.link(tensor());
    const double steps = 2 * std::ceil(std::log2(tensor()));
    return all_reduces * (all_reduce_bytes() / link.bandwidth + steps * link.latency);
  }

  double sequence_seconds(bool of_forward) const {
    if (sequence() == 1) return 0;
    const Link& link = machine_.link(tensor() * sequence());
    return sequence_bytes(of_forward) / link.bandwidth + 4 * (sequence() - 1) * link.latency;
  }

  double bubbles(double forward, double backward) const {
    switch (layout_.schedule) {
      case parallel::PipelineKind::zero_bubble:  // weight gradients fill half of a backward
        return (stages() - 1) * forward;
      case parallel::PipelineKind::zb_v:
        return 0;
      default:
        return (stages() - 1) * (forward + backward) / layout_.chunks;
    }
  }

  double data_seconds(double pass, double last_backward) const {
    if (replicas() == 1) return 0;
    const Link& link = machine_.link(replicas() * tensor());
    const double one =
        parameter_bytes() / link.bandwidth + std::ceil(std::log2(replicas())) * link.latency;
    const double k = micro_batches();
    const auto beside = [&](double sent, double work) {
      return machine_.overlaps ? std::max(0.0, sent - work) : sent;
    };
    switch (layout_.stage) {
      case 0:
        return beside(2 * one, last_backward);
      case 1:
        return beside(one, last_backward) + one;
      case 2:
        return k * beside(one, last_backward) + one;
      default:
        return k * beside(3 * one, pass);
    }
  }

  double optimizer_seconds() const {
    const std::int64_t elements = first_stage_.padded() / (layout_.stage == 0 ? 1 : replicas());
    return 28 * static_cast<double>(elements) / machine_.memory_bandwidth;
  }

  TimeForecast seconds() const {
    const double m = micro_batches(), l = static_cast<double>(layers());
    const double forward = l * layer_forward(),
                 backward = l * (2 * layer_forward() + layer_recompute());
    const double tensor_forward = l * tensor_seconds(all_reduces(true));
    const double tensor_backward = l * tensor_seconds(all_reduces(false));
    const double sequence_forward = l * sequence_seconds(true);
    const double sequence_backward = l * sequence_seconds(false);
    TimeForecast time;
    time.compute = m * (forward + backward + head());
    time.tensor = m * (tensor_forward + tensor_backward);
    time.sequence = m * (sequence_forward + sequence_backward);
    const double whole_forward = forward + tensor_forward + sequence_forward + head() / 3;
    const double whole_backward = backward + tensor_backward + sequence_backward + head() * 2 / 3;
    time.bubble = bubbles(whole_forward, whole_backward);
    if (stages() > 1) {
      const Link& link = machine_.link(replicas() * tensor() + 1);
      const double message = message_bytes() / link.bandwidth + link.latency;
      time.pipeline = 2 * message * (machine_.overlaps ? stages() - 1 : m * layout_.chunks);
    }
    time.data = data_seconds(whole_forward + whole_backward, whole_backward);
    time.optimizer = optimizer_seconds();
    return time;
  }

  const Workload& work_;
  const TransformerShape& model_;
  const Machine& machine_;
  const Layout& layout_;
  zero::FlatLayout first_stage_;
};

}  // namespace

Forecast forecast(const Workload& work, const Machine& machine, const Layout& layout) {
  return Accountant(work, machine, layout).account();
}

}  // namespace tessera::planning
