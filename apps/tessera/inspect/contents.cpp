// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/contents.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <tuple>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"
#include "tessera/checkpoint/checksum.hpp"
#include "tessera/checkpoint/model_weights.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/data/token_file.hpp"
#include "tessera/inference/served_model.hpp"

namespace tessera::app {
namespace {

namespace fs = std::filesystem;

template <typename T>
void widen(const std::vector<std::byte>& bytes, double* out) {
  const auto* values = reinterpret_cast<const T*>(bytes.data());
  for (std::size_t i = 0; i < bytes.size() / sizeof(T); ++i)
    out[i] = static_cast<double>(values[i]);
}

// `read(type, target)` reads the elements; files convert floating types, integers are widened here.
template <typename Read>
void read_as_doubles(DType stored, std::int64_t count, Read&& read, double* out) {
  if (is_floating(stored)) return read(DType::fp64, out);
  std::vector<std::byte> bytes(static_cast<std::size_t>(count) * size_of(stored));
  read(stored, bytes.data());
  if (stored == DType::int64) return widen<std::int64_t>(bytes, out);
  if (stored == DType::int32) return widen<std::int32_t>(bytes, out);
  widen<std::uint8_t>(bytes, out);
}

Json parsed_or_text(const std::string& text) {
  Json parsed = Json::parse(text, nullptr, false);
  return parsed.is_discarded() ? Json(text) : parsed;
}

class CheckpointContents : public Contents {
 public:
  explicit CheckpointContents(const std::string& path) : reader_(path) {
    for (const auto& dataset : reader_.datasets()) {
      const auto [group, name] = split(dataset.path);
      tensors_.push_back(
          {group, name, dataset.path, to_string(dataset.dtype), dataset.shape,
           dataset.shape.numel() * static_cast<std::int64_t>(size_of(dataset.dtype))});
    }
    sort();
    const checkpoint::Header& header = reader_.header();
    facts_["kind"] = "checkpoint";
    facts_["file"] = path;
    facts_["file_bytes"] = fs::file_size(path);
    facts_["format_version"] = reader_.format_version();
    facts_["library_version"] = reader_.library_version();
    facts_["step"] = header.step;
    facts_["samples"] = header.samples;
    facts_["tokens"] = header.tokens;
    facts_["weights_checksum"] = checkpoint::format_checksum(reader_.weights_checksum());
    facts_["model"] = parsed_or_text(header.model);
    facts_["config"] = header.config;
    facts_["state"] = Json::object();
    for (const auto& [name, text] : reader_.state()) facts_["state"][name] = parsed_or_text(text);
  }

  void read(const TensorEntry& entry, std::int64_t begin, std::int64_t count,
            double* out) const override {
    read_as_doubles(
        reader_.dataset(entry.path).dtype, count,
        [&](DType type, void* target) { reader_.read(entry.path, begin, count, type, target); },
        out);
  }

 private:
  // "optimizer/exp_avg/h.0.w" -> "optimizer/exp_avg", "h.0.w"
  static std::pair<std::string, std::string> split(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    if (slash == std::string::npos) return {"other", path};
    return {path.substr(0, slash), path.substr(slash + 1)};
  }

  checkpoint::Reader reader_;
};

class FolderContents : public Contents {
 public:
  explicit FolderContents(const std::string& folder) : weights_(folder) {
    for (const std::string& name : weights_.names()) {
      const DType dtype = weights_.dtype(name);
      const Shape& shape = weights_.shape(name);
      tensors_.push_back({"parameters", name, name, to_string(dtype), shape,
                          shape.numel() * static_cast<std::int64_t>(size_of(dtype))});
    }
    sort();
    facts_["kind"] = "model folder";
    facts_["file"] = folder;
    const fs::path config = fs::path(folder) / "config.json";
    if (fs::exists(config)) facts_["model"] = parsed_or_text(read_text(config));
  }

  void read(const TensorEntry& entry, std::int64_t begin, std::int64_t count,
            double* out) const override {
    read_as_doubles(
        weights_.dtype(entry.path), count,
        [&](DType type, void* target) {
          weights_.read_range(entry.path, begin, count, type, target);
        },
        out);
  }

 private:
  checkpoint::ModelWeights weights_;
};

class SafetensorsContents : public Contents {
 public:
  explicit SafetensorsContents(const std::string& path) : file_(path) {
    for (const auto& entry : file_.entries())
      tensors_.push_back(
          {"parameters", entry.name, entry.name, entry.stored_type, entry.shape, entry.bytes});
    sort();
    facts_["kind"] = "safetensors";
    facts_["file"] = path;
    for (const auto& [key, value] : file_.metadata()) facts_["metadata"][key] = value;
  }

  void read(const TensorEntry& entry, std::int64_t begin, std::int64_t count,
            double* out) const override {
    read_as_doubles(
        file_.dtype(entry.path), count,
        [&](DType type, void* target) { file_.read_range(entry.path, begin, count, type, target); },
        out);
  }

 private:
  checkpoint::SafetensorsFile file_;
};

class TokenContents : public Contents {
 public:
  explicit TokenContents(const std::string& prefix) {
    const data::TokenFile file(prefix);
    facts_["kind"] = "indexed tokens";
    facts_["file"] = prefix;
    facts_["tokens"] = file.tokens();
    facts_["documents"] = file.documents();
  }
  void read(const TensorEntry&, std::int64_t, std::int64_t, double*) const override {
    fail(Code::internal, "a token file has no tensors");
  }
};

bool is_digit(char c) {
  return std::isdigit(static_cast<unsigned char>(c)) != 0;
}

// The run of digits at `from`, without leading zeros.
std::string digits(const std::string& text, std::size_t& from) {
  std::string number;
  for (; from < text.size() && is_digit(text[from]); ++from)
    if (!number.empty() || text[from] != '0') number += text[from];
  return number;
}

}  // namespace

bool natural_less(const std::string& a, const std::string& b) {
  std::size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      const std::string x = digits(a, i), y = digits(b, j);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
    } else if (a[i] != b[j]) {
      return a[i] < b[j];
    } else {
      ++i, ++j;
    }
  }
  return a.size() - i < b.size() - j;
}

void Contents::sort() {
  std::sort(tensors_.begin(), tensors_.end(), [](const TensorEntry& a, const TensorEntry& b) {
    const bool a_last = a.group != "parameters", b_last = b.group != "parameters";
    if (std::tie(a_last, a.group) != std::tie(b_last, b.group))
      return std::tie(a_last, a.group) < std::tie(b_last, b.group);
    return natural_less(a.name, b.name);
  });
}

std::unique_ptr<Contents> open_contents(const std::string& name) {
  const fs::path path(name);
  fs::path prefix = path;
  if (path.extension() == ".bin" || path.extension() == ".idx") prefix.replace_extension();
  if (data::TokenFile::present(prefix.string()))
    return std::make_unique<TokenContents>(prefix.string());
  if (path.extension() == ".safetensors") return std::make_unique<SafetensorsContents>(name);
  if (fs::is_directory(path) && checkpoint::ModelWeights::present(name))
    return std::make_unique<FolderContents>(name);
  const auto location = inference::locate_model(name);
  TESSERA_CHECK(location.is_checkpoint, Code::io,
                fmt::format("'{}' has a config.json but no weights", name));
  return std::make_unique<CheckpointContents>(location.path);
}

}  // namespace tessera::app
