// SPDX-License-Identifier: Apache-2.0
// Saving and loading a training state against what the file system does with the same bytes, and
// against other ways to do it. With --seconds 10 or more the state has 1.5 GB (GPT-2 124M with
// Adam). Files go to the current folder, or to $TESSERA_BENCH_FOLDER.
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <unistd.h>

#include "tessera/base/error.hpp"
#include "tessera/checkpoint/background_save.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/parallel/model_state.hpp"

#include "baselines.hpp"
#include "support/bench.hpp"
#include "support/ranks.hpp"

namespace tessera::bench {
namespace {

constexpr const char* kSmall =
    R"({"model_type": "gpt2", "n_layer": 4, "n_embd": 256, "n_head": 4, "n_positions": 64,
        "vocab_size": 257})";
constexpr const char* kGpt2 =
    R"({"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024,
        "vocab_size": 50257})";

/// A folder that exists as long as this does. Collective.
class Folder {
 public:
  explicit Folder(Communicator& world) : root_(world.rank() == 0) {
    const char* parent = std::getenv("TESSERA_BENCH_FOLDER");
    const std::filesystem::path base = parent != nullptr ? parent : ".";
    path_ = world.broadcast_text(
        (base / ("checkpoint-bench-" + std::to_string(::getpid()))).string(), 0);
    agreeing(world, [&] {
      if (root_) std::filesystem::create_directories(path_);
    });
  }
  ~Folder() {
    std::error_code ignored;
    if (root_) std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string operator/(const char* name) const { return path_ + "/" + name; }

 private:
  bool root_;
  std::string path_;
};

/// A model in ZeRO-3 with its optimizer states: what a save has to bring to disk.
struct Training {
  Training(Communicator& world, const char* json) {
    nn::ModelOptions options;
    options.dtype = DType::bf16;
    model = nn::make_model(json, options);
    zero::Options storage;
    storage.stage = 3;
    storage.dtype = DType::bf16;
    optimizer = std::make_unique<zero::PartitionedOptimizer>(world, storage);
    parallel::add_parameters(*model, *optimizer);
    optimizer->commit();
    parallel::initialize(*model, *optimizer, 1234);
    for (const std::string& state : optimizer->state_names())
      for (int i = 0; i < static_cast<int>(model->parameters().size()); ++i)
        if (const auto count = static_cast<std::size_t>(optimizer->held(i).count); count > 0)
          fill_with_noise(std::as_writable_bytes(std::span(optimizer->state(i, state), count)));
  }

  std::unique_ptr<nn::Model> model;
  std::unique_ptr<zero::PartitionedOptimizer> optimizer;
};

std::int64_t bytes_of(const std::vector<checkpoint::TensorRecord>& tensors) {
  std::int64_t bytes = 0;
  for (const auto& tensor : tensors)
    bytes += tensor.shape.numel() * static_cast<std::int64_t>(size_of(tensor.dtype));
  return bytes;
}

class IoBench {
 public:
  IoBench(Program& program, Runtime& runtime)
      : program_(program),
        world_(runtime.world()),
        comm_(runtime.control()),
        training_(world_, program.seconds() >= 10 ? kGpt2 : kSmall),
        tensors_(parallel::records(*training_.model, *training_.optimizer)),
        bytes_(bytes_of(tensors_)),
        raw_(comm_, folder_ / "raw", bytes_) {}

  void measure() {
    writing();
    blocking();
    reading();
    program_.value("state_bytes", static_cast<double>(bytes_));
  }

 private:
  void save(const std::string& path) {
    report_ = checkpoint::save(world_, path, {}, tensors_, {}, {.replace = true});
  }

  void load(const std::string& path, bool verified) {
    const checkpoint::Reader reader(world_, path);
    TESSERA_CHECK(!verified || reader.verify(world_).empty(), Code::io, path + " is damaged");
    parallel::load_parameters(*training_.model, *training_.optimizer, reader);
    parallel::load_optimizer_states(*training_.model, *training_.optimizer, reader);
  }

  void writing() {
    const auto anew = [this] { raw_.remove(); };
    // Blocks of the last round are given back before the next: freeing them is not part of a save.
    const auto without = [this](const char* name) {
      return [this, path = folder_ / name] {
        if (world_.rank() == 0) std::filesystem::remove(path);
        world_.barrier();
      };
    };
    Case work{"write", {}, "raw buffered", static_cast<double>(bytes_), "byte"};
    work.variants = {
        {"raw buffered", [this] { raw_.write_buffered(); }, anew},
        {"tessera", [this] { save(folder_ / "ours.h5"); }, without("ours.h5")},
        {"HDF5 collective", [this] { write_by_hdf5(comm_, folder_ / "hdf5.h5", tensors_); },
         without("hdf5.h5")},
        {"one rank writes", [this] { write_by_one_rank(comm_, folder_ / "single", tensors_); },
         without("single")}};
    raw_.remove();
    if (raw_.write_direct())
      work.variants.push_back({"raw direct", [this] { raw_.write_direct(); }, anew});
    const CaseResult result = program_.measure(work, 0.5);
    if (result.variants.empty()) return;
    program_.value("write.ratio_to_raw", result["tessera"].speed_ratio);
    program_.value("write.transfers_of_rank_0", static_cast<double>(report_.writes));
    program_.value("write.bytes_of_rank_0", static_cast<double>(report_.bytes));
  }

  /// How long a save keeps its caller: all of it, or making the copy and, when every rank has
  /// written, the commit.
  void blocking() {
    const std::string path = folder_ / "background.h5";
    std::unique_ptr<checkpoint::BackgroundSave> pending;
    const auto start = [&] {
      pending = std::make_unique<checkpoint::BackgroundSave>(
          world_, path, checkpoint::Header{}, tensors_, checkpoint::State{}, snapshot_,
          checkpoint::WriteOptions{.replace = true});
    };
    const auto commit = [&] {
      if (pending) pending->commit();
      pending.reset();
    };
    const auto anew = [&] {
      commit();
      if (world_.rank() == 0) std::filesystem::remove(path);
      world_.barrier();
    };
    const auto written = [&] {
      anew();
      start();
      while (!pending->written()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    };
    const CaseResult result =
        program_.measure({.name = "blocked",
                          .variants = {{"synchronous", [&] { save(path); }, anew},
                                       {"asynchronous: start", start, anew},
                                       {"asynchronous: commit", commit, written}}},
                         0.2);
    commit();
    if (result.variants.empty()) return;
    const double blocked =
        result["asynchronous: start"].median + result["asynchronous: commit"].median;
    program_.value("blocked.asynchronous_over_synchronous", blocked / result["synchronous"].median);
  }

  /// Where the file has what this rank owns, neighbours joined.
  std::vector<BytePlace> own_places(const std::string& path) const {
    const checkpoint::Reader reader(world_, path);
    std::vector<BytePlace> places;
    for (const checkpoint::TensorRecord& tensor : tensors_)
      for (const checkpoint::Piece& piece : tensor.pieces) {
        const checkpoint::DatasetInfo& info = reader.dataset(tensor.path);
        const auto item = static_cast<std::int64_t>(size_of(info.dtype));
        const std::int64_t begin = info.offset + piece.begin * item;
        if (places.empty() || places.back().end != begin) places.push_back({begin, begin});
        places.back().end = begin + piece.count * item;
      }
    return places;
  }

  void reading() {
    if (!program_.wants("read")) return;
    save(folder_ / "ours.h5");
    raw_.remove();
    raw_.write_buffered();
    world_.barrier();
    const std::vector<BytePlace> own = own_places(folder_ / "ours.h5");
    const auto cold = [this](const char* name) {
      return [path = folder_ / name] { forget_cached(path); };
    };
    const Case work{
        "read",
        {{"raw", [this] { raw_.read(); }, cold("raw")},
         {"raw, own slices", [&] { raw_.read_from(folder_ / "ours.h5", own); }, cold("ours.h5")},
         {"tessera", [this] { load(folder_ / "ours.h5", false); }, cold("ours.h5")},
         {"tessera, verified", [this] { load(folder_ / "ours.h5", true); }, cold("ours.h5")}},
        "raw",
        static_cast<double>(bytes_),
        "byte"};
    const CaseResult result = program_.measure(work, 0.3);
    if (result.variants.empty()) return;
    const double ratio = result["tessera"].speed_ratio;
    program_.value("read.ratio_to_raw", ratio);
    program_.value("read.ratio_to_raw_of_own_slices",
                   ratio / result["raw, own slices"].speed_ratio);
  }

  Program& program_;
  Communicator& world_;
  MPI_Comm comm_;
  Folder folder_{world_};
  Training training_;
  std::vector<checkpoint::TensorRecord> tensors_;
  std::int64_t bytes_;
  RawFile raw_;
  checkpoint::Snapshot snapshot_;
  checkpoint::WriteReport report_;
};

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  Runtime runtime;
  Communicator& world = runtime.world();
  bench::Program program("checkpoint_io", argc, argv, bench::ranks_of(world));
  bench::IoBench(program, runtime).measure();
  return program.finish();
}
