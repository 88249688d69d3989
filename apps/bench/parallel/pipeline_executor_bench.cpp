// SPDX-License-Identifier: Apache-2.0
// What the pipeline executor costs beside the work: schedules of stages that compute next to
// nothing, in turns with the same passes and messages written out by hand.
#include <memory>
#include <string>
#include <vector>

#include "tessera/comm/runtime.hpp"
#include "tessera/parallel/pipeline_executor.hpp"
#include "tessera/parallel/pipeline_stages.hpp"

#include "support/bench.hpp"
#include "support/ranks.hpp"

namespace tessera::bench {
namespace {

using autograd::Tape;
using autograd::Value;
using parallel::ActionKind;
using parallel::PipelineAction;

constexpr int kMicroBatches = 64;
constexpr std::int64_t kElements = 16;

/// Layers without parameters that pass something on, forward and back.
class Relay final : public nn::Network {
 public:
  Relay(const parallel::PipelineShape& shape, Communicator& line) : Network({}) {
    std::vector<int> cuts;
    for (int i = 0; i < shape.stages(); ++i) units_.push_back({std::to_string(i), {}, i, i});
    for (int i = 0; i <= shape.stages(); ++i) cuts.push_back(i);
    parallel::take_stages(*this, line, shape, cuts);  // of which none are tied
  }

  std::vector<nn::LayerInfo> layers() const override {
    return std::vector<nn::LayerInfo>(units_.size());
  }
  nn::StageOutput forward_stage(Tape& tape, int stage, const nn::Batch&,
                                const Value& input) override {
    const bool last = stage + 1 == pipeline().stages();
    Value output = tape.result(Tensor({kElements}, DType::fp32), true);
    tape.record({.name = "relay",
                 .output = last ? nullptr : output.slot(),
                 .backward_input =
                     [&stream = tape.stream(), slot = input.slot()](Tensor& gradient) {
                       if (!slot) return;
                       slot->add(stream, gradient ? gradient : Tensor({kElements}, DType::fp32));
                     },
                 .backward_weight = {}});
    return {last ? Value() : output, {}};
  }

  // It only runs in stages.
  std::string config_json() const override { return "{}"; }
  autograd::Loss forward_loss(Tape&, const nn::Batch&) override { return {}; }
  std::int64_t count_targets(const Tensor&) const override { return 0; }
  Tensor predict(Tape&, const Tensor&) override { return {}; }
  DType input_type() const override { return DType::fp32; }
  DType target_type() const override { return DType::fp32; }
  void check(const Tensor&, const Tensor*) const override {}
};

struct NoHooks final : autograd::UnitHooks {
  void acquire(int, autograd::Phase) override {}
  void release(int, autograd::Phase) override {}
  void gradients_ready(int) override {}
};

/// The same passes and messages without an executor.
class ByHand {
 public:
  ByHand(Relay& relay, Communicator& line, const std::vector<PipelineAction>& actions)
      : relay_(relay), line_(line), actions_(actions) {}

  void run(const std::vector<nn::Batch>& batches) {
    std::vector<std::unique_ptr<Tape>> tapes(actions_.size());
    std::vector<Value> outputs(tapes.size());
    for (const PipelineAction& action : actions_) {
      const auto at = static_cast<std::size_t>(action.stage * kMicroBatches + action.micro_batch) %
                      tapes.size();
      act(action, batches[static_cast<std::size_t>(action.micro_batch)], tapes[at], outputs[at]);
    }
    flight_.wait();
  }

 private:
  void act(const PipelineAction& action, const nn::Batch& batch, std::unique_ptr<Tape>& tape,
           Value& output) {
    if (action.is_send()) return send(action.peer);
    if (action.is_receive()) return receive(action.peer);
    if (action.kind == ActionKind::forward) {
      tape = std::make_unique<Tape>(autograd::Recording::on, &hooks_);
      output = relay_
                   .forward_stage(*tape, action.stage, batch,
                                  Value::leaf(Tensor({kElements}, DType::fp32)))
                   .value;
      return;
    }
    if (output.slot()) output.slot()->add(tape->stream(), Tensor({kElements}, DType::fp32));
    tape->backward();
    tape.reset();
  }
  void send(int peer) {
    flight_.wait();
    sent_ = Tensor({kElements}, DType::fp32);
    flight_ = line_.send(sent_.data(), kElements, DType::fp32, peer);
  }
  void receive(int peer) {
    const Tensor arrived({kElements}, DType::fp32);
    line_.receive(arrived.data(), kElements, DType::fp32, peer).wait();
  }

  Relay& relay_;
  Communicator& line_;
  const std::vector<PipelineAction>& actions_;
  NoHooks hooks_;
  Work flight_;
  Tensor sent_;
};

/// One kind of schedule on the ranks of `line`; others wait.
void measure(Program& program, Communicator* line, int ranks, parallel::PipelineKind kind) {
  const parallel::PipelineShape shape =
      parallel::PipelineShape{kind, ranks, kMicroBatches, 0}.resolved();
  Case runs;
  runs.name = shape.to_string();
  runs.unit = "action";
  runs.variants.push_back({.name = "by hand", .run = [] {}});
  runs.variants.push_back({.name = "executor", .run = [] {}});
  const parallel::PipelineSchedule schedule = parallel::make_pipeline_schedule(shape);
  const std::vector<PipelineAction>& actions = schedule.actions.front();
  runs.work = static_cast<double>(actions.size());
  nn::Batch batch;
  batch.ids = Tensor({1}, DType::fp32);
  batch.targets = Tensor({1}, DType::fp32);
  const std::vector<nn::Batch> batches(kMicroBatches, batch);
  std::unique_ptr<Relay> relay;
  std::unique_ptr<ByHand> hand;
  std::unique_ptr<parallel::PipelineExecutor> executor;
  NoHooks hooks;
  if (line != nullptr) {
    relay = std::make_unique<Relay>(shape, *line);
    const auto rank = static_cast<std::size_t>(line->rank());
    hand = std::make_unique<ByHand>(*relay, *line, schedule.actions[rank]);
    executor = std::make_unique<parallel::PipelineExecutor>(*relay, schedule, Stream());
    runs.variants[0].run = [&] { hand->run(batches); };
    runs.variants[1].run = [&] { executor->run(batches, hooks, [](int) {}); };
  }
  const CaseResult result = program.measure(runs, 0.3);
  if (result.variants.empty()) return;
  const auto microseconds = [&](const std::string& variant) {
    return 1e6 * result[variant].median / runs.work;
  };
  program.value("microseconds per action, " + runs.name, microseconds("executor"));
  program.value("of them the executor's own, " + runs.name,
                microseconds("executor") - microseconds("by hand"));
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  using parallel::PipelineKind;
  Runtime runtime;
  Communicator& world = runtime.world();
  bench::Program program("parallel_pipeline_executor", argc, argv, bench::ranks_of(world));
  const auto alone = world.split(world.rank(), 0, "alone");
  Communicator* const first = world.rank() == 0 ? alone.get() : nullptr;
  bench::measure(program, first, 1, PipelineKind::interleaved);
  if (world.size() > 1) {
    bench::measure(program, &world, world.size(), PipelineKind::one_forward_one_backward);
    bench::measure(program, &world, world.size(), PipelineKind::interleaved);
  }
  return program.finish();
}
