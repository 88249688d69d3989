// SPDX-License-Identifier: Apache-2.0
// A made-up training state that any number of ranks can own in slices that cut tensors anywhere.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/random.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/checkpoint/writer.hpp"
#include "tessera/comm/runtime.hpp"

#include "checkpoint/fault_point.hpp"
#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::checkpoint {

struct TestTensor {
  std::string path;
  Shape shape;
  DType dtype = DType::fp32;
  std::vector<std::byte> bytes;  // whole, on every rank
};

/// Gives every tensor its made-up bytes.
inline std::vector<TestTensor> filled(std::vector<TestTensor> tensors, std::uint64_t seed = 1) {
  std::uint64_t stream = 0;
  for (TestTensor& tensor : tensors) {
    const RandomStream random(seed, stream++);
    tensor.bytes.resize(static_cast<std::size_t>(tensor.shape.numel()) * size_of(tensor.dtype));
    for (std::size_t i = 0; i < tensor.bytes.size(); ++i)
      tensor.bytes[i] = static_cast<std::byte>(random.bits(i) & 0x3f);  // no NaN in any type
  }
  return tensors;
}

inline std::vector<TestTensor> test_tensors(std::uint64_t seed = 1) {
  const std::vector<std::pair<std::string, Shape>> shapes = {
      {"transformer.wte.weight", {37, 16}},
      {"transformer.h.0.ln_1.weight", {16}},
      {"transformer.h.0.ln_1.bias", {1}},
      {"transformer.h.0.attn.c_attn.weight", {16, 48}},
      {"scale", {}},
      {"empty", {0, 3}},
      {"cube", {2, 3, 5}},
      {"lm_head.weight", {101, 7}}};
  std::vector<TestTensor> tensors;
  for (const char* group : {"parameters/", "optimizer/exp_avg/", "optimizer/exp_avg_sq/"})
    for (const auto& [name, shape] : shapes)
      tensors.push_back({group + name, shape, DType::fp32, {}});
  tensors.push_back({"parameters/half", {33}, DType::bf16, {}});
  tensors.push_back({"parameters/short", {7}, DType::fp16, {}});
  tensors.push_back({"optimizer/wide", {9}, DType::fp64, {}});
  tensors.push_back({"optimizer/steps", {5}, DType::int64, {}});
  tensors.push_back({"optimizer/codes", {5}, DType::uint8, {}});
  return filled(std::move(tensors), seed);
}

/// Rank r's pieces when all tensors, laid end to end, are cut into equal slices; every other piece
/// is handed over through `fill`.
inline std::vector<TensorRecord> sliced(const std::vector<TestTensor>& tensors, int rank,
                                        int ranks) {
  std::int64_t total = 0;
  for (const TestTensor& tensor : tensors) total += tensor.shape.numel();
  const std::int64_t first = total * rank / ranks;
  const std::int64_t last = total * (rank + 1) / ranks;
  std::vector<TensorRecord> records;
  std::int64_t position = 0;
  bool use_fill = false;
  for (const TestTensor& tensor : tensors) {
    TensorRecord record{tensor.path, tensor.shape, tensor.dtype, {}};
    const std::int64_t begin = std::max(first, position);
    const std::int64_t end = std::min(last, position + tensor.shape.numel());
    if (begin < end) {
      const auto item = static_cast<std::int64_t>(size_of(tensor.dtype));
      const std::byte* data = tensor.bytes.data() + (begin - position) * item;
      Piece piece{begin - position, end - begin, nullptr, {}};
      if (use_fill)
        piece.fill = [data, item](std::int64_t offset, std::int64_t count, void* target) {
          std::copy_n(data + offset * item, count * item, static_cast<std::byte*>(target));
        };
      else
        piece.data = data;
      use_fill = !use_fill;
      record.pieces.push_back(piece);
    }
    position += tensor.shape.numel();
    records.push_back(std::move(record));
  }
  return records;
}

inline Header test_header() {
  return {100, 3200, 819200, R"({"model_type": "gpt2"})", "run:\n  steps: 300 # \xc3\xa9\n"};
}
inline State test_state() {
  return {{"schedule", R"({"step": 100})"}, {"client", ""}, {"data", R"({"samples": 3200})"}};
}

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (rank() == 0) folder_ = std::make_unique<test::TemporaryFolder>();
    folder_path_ = world().broadcast_text(folder_ ? folder_->path() : "", 0);
    path_ = folder_path_ + "/step-00000100.h5";
  }
  void TearDown() override {
    fault_hook() = nullptr;
    world().barrier();
  }

  Communicator& world() { return runtime_.world(); }
  int rank() const { return runtime_.rank(); }
  int ranks() const { return runtime_.size(); }

  WriteReport save_test_file(const WriteOptions& options = {}) {
    const auto tensors = test_tensors();
    return save(world(), path_, test_header(), sliced(tensors, rank(), ranks()), test_state(),
                options);
  }
  std::size_t files_in_folder() {
    world().barrier();
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder_path_))
      ++count;
    world().barrier();
    return count;
  }

  Runtime runtime_;
  std::unique_ptr<test::TemporaryFolder> folder_;
  std::string folder_path_;
  std::string path_;
};

}  // namespace tessera::checkpoint
