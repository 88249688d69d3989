// SPDX-License-Identifier: Apache-2.0
// Random models, saved by random ranks in a random stage and type, loaded by others: nothing
// changes and nothing is read or written twice.
#include "tessera/parallel/model_state.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <numeric>

#include <gtest/gtest.h>

#include "tessera/checkpoint/checksum.hpp"
#include "tessera/comm/runtime.hpp"

#include "parallel/list_model.hpp"
#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::parallel {
namespace {

constexpr int kTrials = 12;

std::int64_t from_environment(const char* name, std::int64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::atoll(text) : otherwise;
}

/// Any finite number, the smallest and largest included; depends on nothing but its place.
float value_at(std::uint64_t seed, const std::string& path, std::int64_t element) {
  const auto stream = checkpoint::checksum_range(path, 0, path.data(), DType::uint8,
                                                 static_cast<std::int64_t>(path.size()));
  const std::uint32_t bits = RandomStream(seed, stream).bits(static_cast<std::uint64_t>(element));
  // An exponent below the last two, so that rounding to bf16 does not overflow either.
  return std::bit_cast<float>((bits >> 23 & 0xffu) >= 0xfeu ? bits & ~0x40000000u : bits);
}

std::vector<float> values_of(std::uint64_t seed, const std::string& path, std::int64_t begin,
                             std::int64_t count) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(value_at(seed, path, begin + i));
  return values;
}

bool same_bits(const std::vector<float>& a, const float* b) {
  return a.empty() || std::memcmp(a.data(), b, a.size() * sizeof(float)) == 0;
}

/// Who holds the state, and how.
struct Setting {
  std::vector<int> members;  // world ranks, in the order of the group
  int tensor = 1;            // neighbours that hold the model together; divides the members
  int stage = 0;
  DType dtype = DType::fp32;

  std::string to_string() const {
    return fmt::format("{} rank(s) from {}, tensor {}, stage {}, {}", members.size(),
                       members.front(), tensor, stage, tessera::to_string(dtype));
  }
};

Setting random_setting(Dice& dice, int ranks) {
  Setting setting;
  setting.members.resize(static_cast<std::size_t>(ranks));
  std::iota(setting.members.begin(), setting.members.end(), 0);
  for (int i = ranks - 1; i > 0; --i)
    std::swap(setting.members[static_cast<std::size_t>(i)],
              setting.members[static_cast<std::size_t>(dice.pick(i + 1))]);
  setting.members.resize(static_cast<std::size_t>(dice.between(1, ranks)));
  do {
    setting.tensor = dice.between(1, static_cast<int>(setting.members.size()));
  } while (setting.members.size() % static_cast<std::size_t>(setting.tensor) != 0);
  setting.stage = dice.pick(4);
  const DType types[] = {DType::fp32, DType::bf16, DType::fp16};
  setting.dtype = types[dice.pick(3)];
  return setting;
}

const char* random_rule(Dice& dice) {
  return dice.pick(4) == 0 ? "SGD" : "AdamW";
}

/// One model held by the ranks of a setting.
class Holder {
 public:
  Holder(Communicator& group, const Setting& setting, const std::vector<ListModel::Item>& items,
         const std::string& rule)
      : tensor(setting.tensor),
        data_group(group.split(group.rank() % tensor, group.rank(), "data")),
        model(items, {.size = tensor, .rank = group.rank() % tensor}),
        optimizer(*data_group, options(group, setting, rule)) {
    add_parameters(model, optimizer);
    optimizer.commit();
  }

  /// Values of a file's dataset in a range of this rank's parameter.
  std::vector<float> expected(std::uint64_t seed, const std::string& path, int index,
                              zero::Range range) const {
    std::vector<float> values(static_cast<std::size_t>(range.count));
    const nn::NamedParameter named = model.parameters()[static_cast<std::size_t>(index)];
    nn::for_each_run(named.parameter->partition, range.begin, range.count,
                     [&](std::int64_t local, std::int64_t logical, std::int64_t count) {
                       const auto run = values_of(seed, path, logical, count);
                       std::ranges::copy(run, values.begin() + (local - range.begin));
                     });
    return values;
  }

  /// body(path, held range, parameter index, state name or "")
  template <typename Body>
  void for_each_dataset(Body&& body) {
    const auto parameters = model.parameters();
    for (int i = 0; i < static_cast<int>(parameters.size()); ++i) {
      const std::string& name = parameters[static_cast<std::size_t>(i)].name;
      body("parameters/" + name, optimizer.held(i), i, "");
      for (const std::string& state : optimizer.state_names())
        body("optimizer/" + state + "/" + name, optimizer.held(i), i, state);
    }
  }

  void fill(std::uint64_t seed) {
    for_each_dataset(
        [&](const std::string& path, zero::Range held, int index, const std::string& state) {
          const auto values = expected(seed, path, index, held);
          if (state.empty())
            optimizer.load(index, held.begin, held.count, values.data());
          else
            std::copy(values.begin(), values.end(), optimizer.state(index, state));
        });
    optimizer.finish_load();
  }

  void expect_filled(std::uint64_t seed) {
    for_each_dataset(
        [&](const std::string& path, zero::Range held, int index, const std::string& state) {
          const auto wanted = expected(seed, path, index, held);
          std::vector<float> master(wanted.size());
          if (state.empty()) optimizer.master(index, held.begin, held.count, master.data());
          const float* found = state.empty() ? master.data() : optimizer.state(index, state);
          EXPECT_TRUE(same_bits(wanted, found)) << path;
        });
  }

  /// Bytes of all datasets.
  std::int64_t bytes() const {
    return model.parameter_count() * 4 *
           static_cast<std::int64_t>(1 + optimizer.state_names().size());
  }
  /// The same with what each tensor rank has for itself.
  std::int64_t bytes_read() const {
    std::int64_t copies = 0;
    for (const auto& [name, parameter] : model.parameters())
      if (parameter->partition.whole()) copies += (tensor - 1) * parameter->shape().numel();
    return bytes() + copies * 4 * static_cast<std::int64_t>(1 + optimizer.state_names().size());
  }
  std::uint64_t checksum() const { return weights_checksum(model, optimizer); }

  int tensor;
  std::unique_ptr<Communicator> data_group;
  ListModel model;
  zero::PartitionedOptimizer optimizer;

 private:
  static zero::Options options(Communicator& group, const Setting& setting,
                               const std::string& rule) {
    zero::Options options;
    options.everyone = &group;
    options.stage = setting.stage;
    options.dtype = setting.dtype;
    options.rule.type = rule;
    options.rule.momentum = 0.9;
    return options;
  }
};

std::uint64_t expected_checksum(const std::vector<ListModel::Item>& items, std::uint64_t seed) {
  std::uint64_t sum = 0;
  for (const ListModel::Item& item : items) {
    const std::int64_t count = item.shape.numel();
    const auto values = values_of(seed, "parameters/" + item.name, 0, count);
    sum += checkpoint::checksum_range(item.name, 0, values.data(), DType::fp32, count);
  }
  return sum;
}

class ModelStateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (world().rank() == 0) folder_ = std::make_unique<test::TemporaryFolder>();
    folder_path_ = world().broadcast_text(folder_ ? folder_->path() : "", 0);
    seed_ = static_cast<std::uint64_t>(from_environment("TESSERA_PROPERTY_SEED", 4));
  }
  void TearDown() override { world().barrier(); }

  Communicator& world() { return runtime_.world(); }

  /// body(group) on the ranks of the setting; the others wait. Collective over the world.
  template <typename Body>
  void among(const Setting& setting, Body&& body) {
    SCOPED_TRACE(setting.to_string());
    const auto place = std::find(setting.members.begin(), setting.members.end(), world().rank());
    const bool member = place != setting.members.end();
    const int key = static_cast<int>(place - setting.members.begin());
    {
      const auto group = world().split(member ? 0 : -1, key, "some");
      if (member) body(*group);
    }
    world().barrier();
  }

  Runtime runtime_;
  std::unique_ptr<test::TemporaryFolder> folder_;
  std::string folder_path_;
  std::uint64_t seed_ = 0;
};

/// A rank's slice of a unit is one run of the file; HDF5's blocks of metadata and the staging
/// buffer cut it.
void expect_few_writes(const checkpoint::WriteReport& report, Holder& holder,
                       std::int64_t staging_bytes) {
  const auto arrays = static_cast<std::int64_t>(1 + holder.optimizer.state_names().size());
  const auto units = static_cast<std::int64_t>(holder.model.units().size());
  const std::int64_t metadata_blocks = ceil_divide(report.file_bytes - holder.bytes(), 16384);
  EXPECT_LE(report.writes, arrays * units + metadata_blocks + report.bytes / (staging_bytes - 4));
}

void save_and_check(Communicator& group, const Setting& setting, const std::string& path,
                    const std::vector<ListModel::Item>& items, const std::string& rule,
                    std::uint64_t seed) {
  Holder holder(group, setting, items, rule);
  holder.fill(seed);
  EXPECT_EQ(holder.checksum(), expected_checksum(items, seed));
  checkpoint::WriteOptions options;
  options.staging_bytes = seed % 2 == 0 ? 4096 : 65536;
  const checkpoint::WriteReport report =
      checkpoint::save(group, path, {}, records(holder.model, holder.optimizer), {}, options);
  EXPECT_EQ(group.all_reduce_scalar(report.bytes, Reduction::sum), holder.bytes());
  if (setting.tensor == 1) expect_few_writes(report, holder, options.staging_bytes);
}

void load_and_check(Communicator& group, const Setting& setting, const std::string& path,
                    const std::vector<ListModel::Item>& items, const std::string& rule,
                    std::uint64_t seed) {
  Holder holder(group, setting, items, rule);
  const checkpoint::Reader reader(group, path);
  load_parameters(holder.model, holder.optimizer, reader);
  load_optimizer_states(holder.model, holder.optimizer, reader);
  EXPECT_EQ(group.all_reduce_scalar(reader.bytes_read(), Reduction::sum), holder.bytes_read());
  EXPECT_EQ(holder.checksum(), expected_checksum(items, seed));
  EXPECT_EQ(reader.weights_checksum(), expected_checksum(items, seed));
  EXPECT_TRUE(reader.verify(group).empty());
  holder.expect_filled(seed);
}

TEST_F(ModelStateTest, MovesBetweenAnyRanksStagesAndTypes) {
  const auto trials = from_environment("TESSERA_PROPERTY_TRIALS", kTrials);
  if (world().rank() == 0)
    fmt::print("TESSERA_PROPERTY_SEED={} TESSERA_PROPERTY_TRIALS={}\n", seed_, trials);
  for (std::int64_t trial = 0; trial < trials; ++trial) {
    SCOPED_TRACE(fmt::format("seed {}, trial {}", seed_, trial));
    Dice dice(seed_, static_cast<std::uint64_t>(trial));
    const auto items = random_items(dice);
    const std::string rule = random_rule(dice);
    const std::uint64_t values = seed_ + static_cast<std::uint64_t>(trial);
    const std::string path = fmt::format("{}/step-{:08}.h5", folder_path_, trial);
    const Setting saver = random_setting(dice, world().size());
    among(saver,
          [&](Communicator& group) { save_and_check(group, saver, path, items, rule, values); });
    for (int i = 0; i < 2; ++i) {
      const Setting loader = random_setting(dice, world().size());
      among(loader,
            [&](Communicator& group) { load_and_check(group, loader, path, items, rule, values); });
    }
  }
}

TEST_F(ModelStateTest, AFileOfAnotherModelIsNamed) {
  const std::vector<ListModel::Item> items = {{"a", "wte.weight", Shape{5, 3}},
                                              {"b", "ln_f.weight", Shape{3}}};
  const std::string path = folder_path_ + "/step-00000001.h5";
  Setting setting;
  setting.members.resize(static_cast<std::size_t>(world().size()));
  std::iota(setting.members.begin(), setting.members.end(), 0);
  save_and_check(world(), setting, path, items, "AdamW", 1);
  for (const int stage : {0, 1, 2, 3}) {
    SCOPED_TRACE(stage);
    setting.stage = stage;
    const auto refuse = [&](const std::vector<ListModel::Item>& others,
                            std::initializer_list<std::string_view> parts) {
      Holder holder(world(), setting, others, "AdamW");
      const checkpoint::Reader reader(world(), path);
      test::expect_error(Code::io, parts,
                         [&] { load_parameters(holder.model, holder.optimizer, reader); });
    };
    refuse({{"a", "wte.weight", Shape{5, 4}}, {"b", "ln_f.weight", Shape{3}}},
           {"wte.weight", "[5, 3]", "[5, 4]"});
    refuse({{"a", "wte.weight", Shape{5, 3}}, {"b", "ln_g.weight", Shape{3}}}, {"ln_g.weight"});
  }
  Holder holder(world(), setting, items, "SGD");
  const checkpoint::Reader reader(world(), path);
  test::expect_error(Code::io, {path, "optimizer/momentum_buffer/wte.weight"},
                     [&] { load_optimizer_states(holder.model, holder.optimizer, reader); });
}

}  // namespace
}  // namespace tessera::parallel
