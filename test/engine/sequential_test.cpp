// SPDX-License-Identifier: Apache-2.0
// Lists of layers in the stages of pipelines: one rank's curve and bits in every schedule and cut,
// with parameters that layers share, micro-batches of different shapes, and checkpoints.
#include "tessera/nn/sequential.hpp"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/autograd/activation.hpp"
#include "tessera/autograd/dropout.hpp"
#include "tessera/base/cpu_features.hpp"
#include "tessera/base/random.hpp"
#include "tessera/comm/mesh.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/parallel/model_state.hpp"
#include "tessera/parallel/pipeline_simulation.hpp"
#include "tessera/parallel/pipeline_stages.hpp"

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::test {
namespace {

using parallel::PipelineKind;

constexpr int kTokens = 11, kWidth = 6, kMicroBatches = 4, kSteps = 3;

/// x + gelu(W x + b).
class Block final : public nn::Layer {
 public:
  std::vector<nn::NamedParameter> parameters() override { return linear_.parameters(); }
  autograd::Value forward(autograd::Tape& tape, const autograd::Value& x,
                          const nn::Batch& batch) override {
    const autograd::Value y = linear_.forward(tape, x, batch);
    return autograd::dropout_add(tape, x, autograd::activation(tape, y, kernels::Activation::gelu),
                                 {});
  }

 private:
  nn::Linear linear_{kWidth, kWidth};
};

struct Trial {
  int pipeline = 1;
  PipelineKind kind = PipelineKind::one_forward_one_backward;
  int stage = 0;
  std::string partition = "parameters";
  bool thrice = false;  // a weight in three layers
  nn::Recompute recompute = nn::Recompute::none;
  DType dtype = DType::fp32;
  double clipping = 0;
  bool regression = false;

  std::string to_string() const {
    return fmt::format("pipeline {}, {}, stage {}, {}, thrice {}, recompute {}, {}", pipeline,
                       parallel::to_string(kind), stage, partition, thrice,
                       static_cast<int>(recompute), tessera::to_string(dtype));
  }
};

/// The table is in the first and the last layer, a block's weight in one that is neither.
std::unique_ptr<nn::Sequential> token_network(const Trial& trial) {
  auto network = std::make_unique<nn::Sequential>(
      nn::ModelOptions{.dtype = trial.dtype, .recompute = trial.recompute}, DType::int32,
      nn::cross_entropy());
  network->add<nn::Embedding>("embedding", kTokens, kWidth)
      .add<Block>("h.0")
      .add<nn::Dropout>("noise", 0.2f, 7)
      .add<Block>("h.1")
      .add("h.2", std::make_unique<Block>(), {{"weight", "h.0.weight"}, {"bias", "h.0.bias"}})
      .add<nn::Function>("cap", [](autograd::Tape& tape, const autograd::Value& x) {
        return autograd::activation(tape, x, kernels::Activation::tanh);
      });
  if (trial.thrice)
    network->add("h.3", std::make_unique<Block>(), {{"weight", "h.0.weight"}});
  else
    network->add<Block>("h.3");
  network->add<nn::LayerNorm>("norm", kWidth)
      .add("head", std::make_unique<nn::Linear>(kWidth, kTokens, false),
           {{"weight", "embedding.weight"}});
  return network;
}

std::unique_ptr<nn::Sequential> number_network(const Trial& trial) {
  auto network = std::make_unique<nn::Sequential>(nn::ModelOptions{.dtype = trial.dtype},
                                                  DType::fp32, nn::squared_error());
  network->add<nn::Linear>("in", 3, kWidth);
  for (int i = 0; i < 6; ++i) network->add<Block>(fmt::format("h.{}", i));
  network->add<nn::Linear>("out", kWidth, 2);
  return network;
}

/// Micro-batch `index` of a step, counted over all ranks: 1 to 3 rows of 2 to 5 tokens.
nn::Batch some_batch(bool regression, std::int64_t step, int index) {
  const RandomStream random(5, static_cast<std::uint64_t>(step * 64 + index));
  const std::int64_t rows = 1 + (step + index) % 3, length = 2 + (step * 2 + index) % 4;
  nn::Batch batch;
  batch.first_row = index * 3;
  const DType type = regression ? DType::fp32 : DType::int32;
  batch.ids = Tensor(Shape{rows, regression ? 3 : length}, type);
  batch.targets = Tensor(Shape{rows, regression ? 2 : length}, type);
  std::uint64_t next = 0;
  for (const Tensor* tensor : {&batch.ids, &batch.targets})
    for (std::int64_t i = 0; i < tensor->numel(); ++i)
      if (regression)
        tensor->as<float>()[i] = random.uniform(next++);
      else
        tensor->as<std::int32_t>()[i] = static_cast<std::int32_t>(random.bits(next++) % kTokens);
  return batch;
}

/// A list of layers with its optimizer on a mesh of pipeline and data axis.
class Trainee {
 public:
  Trainee(Communicator& world, const Trial& trial)
      : trial_(trial), mesh_(world, MeshShape{trial.pipeline, 0, 1, 1}) {
    network_ = trial.regression ? number_network(trial) : token_network(trial);
    if (trial.pipeline > 1) take_stages();
    engine::EngineOptions options;
    options.zero.stage = trial.stage;
    options.zero.dtype = trial.dtype;
    options.zero.rule.lr = 0.01;
    options.zero.gradient_clipping = trial.clipping;
    options.zero.accumulation_steps = micro_batches();
    options.zero.everyone = &mesh_.group("pipeline+data");
    options.pipeline = trial.kind;
    engine_.emplace(mesh_.group("data"), *network_, options);
    parallel::initialize(*network_, engine_->optimizer(), 3);
  }

  engine::StepOutcome step() {
    std::vector<nn::Batch> batches;
    for (int m = 0; m < micro_batches(); ++m)
      batches.push_back(some_batch(trial_.regression, engine_->step(),
                                   engine_->data_rank() * micro_batches() + m));
    return engine_->train_step(batches);
  }
  std::vector<double> train() {
    std::vector<double> losses;
    for (int i = 0; i < kSteps; ++i) losses.push_back(step().loss);
    return losses;
  }
  std::uint64_t checksum() { return parallel::weights_checksum(*network_, engine_->optimizer()); }
  engine::Engine& engine() { return *engine_; }
  nn::Sequential& network() { return *network_; }

 private:
  int micro_batches() const { return kMicroBatches / mesh_.size("data"); }
  void take_stages() {
    const auto shape =
        parallel::PipelineShape{trial_.kind, trial_.pipeline, micro_batches(), 0}.resolved();
    const auto cuts = parallel::cut_layers(network_->layers(), shape.stages(),
                                           parallel::StageCut::parse(trial_.partition));
    ties_ = parallel::take_stages(*network_, mesh_.group("pipeline"), shape, cuts);
  }

  Trial trial_;
  Mesh mesh_;
  parallel::TieGroups ties_;
  std::unique_ptr<nn::Sequential> network_;
  std::optional<engine::Engine> engine_;
};

class SequentialTest : public ::testing::Test {
 protected:
  void SetUp() override { set_threads(1); }
  Communicator& world() { return runtime_.world(); }

  /// Those that leave 1, 2 or 4 data ranks.
  std::vector<int> pipelines() {
    std::vector<int> sizes;
    for (int size = 2; size <= world().size(); ++size)
      if (world().size() % size == 0 && kMicroBatches % (world().size() / size) == 0)
        sizes.push_back(size);
    return sizes;
  }
  struct Outcome {
    std::vector<double> losses;
    std::uint64_t checksum;
  };
  Outcome train(Communicator& group, const Trial& trial) {
    Trainee trainee(group, trial);
    const std::vector<double> losses = trainee.train();
    return {losses, trainee.checksum()};
  }
  /// Each rank for itself.
  Outcome train_alone(Trial trial) {
    const auto self = world().split(world().rank(), 0, "alone");
    trial.pipeline = 1;
    return train(*self, trial);
  }
  static void expect_near(const Outcome& found, const Outcome& expected, double tolerance) {
    for (std::size_t i = 0; i < expected.losses.size(); ++i)
      EXPECT_NEAR(found.losses.at(i), expected.losses[i], tolerance) << "step " << i;
  }
  /// On pipelines of every length.
  void expect_schedules_follow_one_rank(Trial trial) {
    const Outcome alone = train_alone(trial);
    for (const int pipeline : pipelines())
      for (const PipelineKind kind : parallel::pipeline_kinds()) {
        trial.pipeline = pipeline;
        trial.kind = kind;
        SCOPED_TRACE(trial.to_string());
        expect_near(train(world(), trial), alone, 1e-5);
      }
  }
  /// Same stages over the data ranks sum otherwise; beside them it is one rank's sums.
  bool has_one_rank_s_sums(int pipeline) { return pipeline == world().size(); }

  Runtime runtime_;
};

TEST_F(SequentialTest, EveryScheduleFollowsOneRank) {
  Trial trial;
  const Outcome alone = train_alone(trial);
  for (const int pipeline : pipelines())
    for (const PipelineKind kind : parallel::pipeline_kinds())
      for (const int stage : {0, 1}) {
        trial.pipeline = pipeline;
        trial.kind = kind;
        trial.stage = stage;
        SCOPED_TRACE(trial.to_string());
        const Outcome found = train(world(), trial);
        expect_near(found, alone, 1e-5);
        if (has_one_rank_s_sums(pipeline)) {
          EXPECT_EQ(found.checksum, alone.checksum);
        }
      }
}

TEST_F(SequentialTest, EveryCutFollowsOneRank) {
  Trial trial;
  const Outcome alone = train_alone(trial);
  const std::map<int, std::string> lists = {{2, "1,8"}, {3, "2,1,6"}, {4, "2,1,5,1"}};
  for (const int pipeline : pipelines())
    for (const std::string& partition :
         {std::string("uniform"), std::string("type:^h"), lists.at(pipeline)})
      for (const int stage : {0, 2, 3}) {
        trial.pipeline = pipeline;
        trial.partition = partition;
        trial.stage = stage;
        SCOPED_TRACE(trial.to_string());
        const Outcome found = train(world(), trial);
        expect_near(found, alone, 1e-5);
        if (stage == 0 && has_one_rank_s_sums(pipeline)) {
          EXPECT_EQ(found.checksum, alone.checksum);
        }
      }
}

TEST_F(SequentialTest, LayersMayShareAParameterManyTimes) {
  for (const bool clips : {false, true}) {
    const Trial trial{
        .thrice = true, .recompute = nn::Recompute::full, .clipping = clips ? 0.1 : 0.0};
    expect_schedules_follow_one_rank(trial);
  }
}

// The copies of a parameter are one in the model, and stay equal to the bit.
TEST_F(SequentialTest, TiedParametersStayOne) {
  std::vector<int> sizes = pipelines();
  if (kMicroBatches % world().size() == 0) sizes.push_back(1);
  for (const int pipeline : sizes) {
    Trial trial{.pipeline = pipeline, .kind = PipelineKind::zb_v, .thrice = true};
    trial.dtype = DType::bf16;
    if (pipeline == 1) trial.kind = PipelineKind::gpipe;
    Trainee trainee(world(), trial);
    trainee.train();
    zero::PartitionedOptimizer& optimizer = trainee.engine().optimizer();
    std::map<std::string, std::string> bits;  // of every copy in turn, over all ranks
    std::string mine;
    int index = 0;
    for (const auto& [name, parameter] : trainee.network().parameters()) {
      std::vector<float> values(static_cast<std::size_t>(parameter->shape().numel()));
      optimizer.master(index++, 0, std::ssize(values), values.data());
      mine += fmt::format("{} {:a}\n", name, fmt::join(values, " "));
    }
    for (const std::string& text : world().all_gather_text(mine))
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text.find('\n', at), space = text.find(' ', at);
        const std::string name = text.substr(at, space - at);
        const std::string values = text.substr(space, end - space);
        EXPECT_EQ(bits.emplace(name, values).first->second, values) << name;
        at = end + 1;
      }
    EXPECT_EQ(bits.size(), trainee.network().logical_parameters().size());
    EXPECT_EQ(trainee.network().parameter_count(),
              kTokens * kWidth + 2 * kWidth + 2 * (kWidth * kWidth + kWidth) + kWidth);
  }
}

TEST_F(SequentialTest, NumbersGoThroughToo) {
  expect_schedules_follow_one_rank({.regression = true});
}

TEST_F(SequentialTest, ACheckpointFitsAnyPipeline) {
  const TemporaryFolder own;
  const std::string folder = world().broadcast_text(own.path(), 0);
  std::vector<int> sizes = pipelines();
  if (kMicroBatches % world().size() == 0) sizes.push_back(1);
  for (const int from : sizes) {
    Trainee saver(world(), {.pipeline = from, .stage = 1});
    saver.train();
    saver.engine().save_checkpoint(folder, {.tag = "a"});
    const std::uint64_t saved = saver.checksum();
    const Outcome expected{saver.train(), 0};
    for (const int to : sizes) {
      SCOPED_TRACE(fmt::format("from {} to {}", from, to));
      Trainee loader(world(), {.pipeline = to, .stage = 1});
      loader.engine().load_checkpoint(folder + "/a.h5");
      EXPECT_EQ(loader.checksum(), saved);
      expect_near({loader.train(), 0}, expected, 1e-5);
    }
  }
}

TEST(Sequential, SaysWhatIsWrongWithALayer) {
  nn::Sequential network({}, DType::int32, nn::cross_entropy());
  network.add<nn::Embedding>("embedding", kTokens, kWidth);
  expect_error(Code::invalid_argument, {"two layers 'embedding'"},
               [&] { network.add<nn::LayerNorm>("embedding", kWidth); });
  const auto head = [] { return std::make_unique<nn::Linear>(kWidth, kTokens + 1, false); };
  expect_error(Code::invalid_argument, {"'weight'", "[12, 6]", "embedding.weight", "[11, 6]"}, [&] {
    network.add("head", head(), {{"weight", "embedding.weight"}});
  });
  expect_error(Code::invalid_argument, {"'embedding.table'", "no layer before"}, [&] {
    network.add("head", head(), {{"weight", "embedding.table"}});
  });
  expect_error(Code::invalid_argument, {"no parameter 'bias' to tie"}, [&] {
    network.add("head", head(), {{"bias", "embedding.weight"}});
  });
  expect_error(Code::not_supported, {"recompute"}, [] {
    nn::Sequential(nn::ModelOptions{.recompute = nn::Recompute::selective}, DType::int32,
                   nn::cross_entropy());
  });
}

}  // namespace
}  // namespace tessera::test
