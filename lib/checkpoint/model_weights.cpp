// SPDX-License-Identifier: Apache-2.0
// Finding and opening the weight files of a model folder.
#include "tessera/checkpoint/model_weights.hpp"

#include <filesystem>
#include <map>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

bool is_file(const std::string& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

/// tensor name -> file name
std::map<std::string, std::string> read_index(const std::string& path) {
  Json index;
  try {
    index = Json::parse(read_text(path));
  } catch (const Json::exception& error) {
    fail(Code::io, fmt::format("{} is not JSON: {}", path, error.what()));
  }
  const bool valid = index.is_object() && index.contains("weight_map") &&
                     index["weight_map"].is_object() && !index["weight_map"].empty();
  TESSERA_CHECK(valid, Code::io, fmt::format("{} has no 'weight_map'", path));
  std::map<std::string, std::string> files;
  for (const auto& [name, file] : index["weight_map"].items()) {
    const bool plain = file.is_string() && !file.get_ref<const std::string&>().empty() &&
                       file.get_ref<const std::string&>().find('/') == std::string::npos;
    TESSERA_CHECK(plain, Code::io,
                  fmt::format("{}: tensor '{}' is in {}, expected a file name without folders",
                              path, name, file.dump()));
    files[name] = file.get<std::string>();
  }
  return files;
}

}  // namespace

bool ModelWeights::present(const std::string& folder) {
  return is_file(folder + "/" + kSingle) || is_file(folder + "/" + kIndex);
}

ModelWeights::ModelWeights(const std::string& folder) : folder_(folder) {
  const std::string single = folder + "/" + kSingle;
  const std::string index = folder + "/" + kIndex;
  if (is_file(single)) {
    files_.emplace_back(single);
    for (const SafetensorsEntry& entry : files_[0].entries()) places_[entry.name] = 0;
    return;
  }
  TESSERA_CHECK(is_file(index), Code::io,
                fmt::format("{} has neither {} nor {}", folder, kSingle, kIndex));
  std::map<std::string, std::size_t> opened;
  const auto listed = read_index(index);
  for (const auto& [name, file] : listed) {
    if (!opened.contains(file)) {
      const std::string path = folder + "/" + file;
      TESSERA_CHECK(is_file(path), Code::io,
                    fmt::format("{} lists the shard {}, which is missing", index, file));
      opened[file] = files_.size();
      files_.emplace_back(path);
    }
    const std::size_t place = opened[file];
    TESSERA_CHECK(files_[place].contains(name), Code::io,
                  fmt::format("{} says that tensor '{}' is in {}, which does not have it", index,
                              name, file));
    places_[name] = place;
  }
  for (const auto& [file, place] : opened)
    for (const SafetensorsEntry& entry : files_[place].entries()) {
      const auto found = listed.find(entry.name);
      TESSERA_CHECK(found == listed.end() || found->second == file, Code::io,
                    fmt::format("{}: tensor '{}' is in {} and in {}", index, entry.name,
                                found->second, file));
      places_[entry.name] = place;
    }
}

std::vector<std::string> ModelWeights::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : places_) names.push_back(name);
  return names;
}

const SafetensorsFile& ModelWeights::file_of(const std::string& name) const {
  const auto found = places_.find(name);
  TESSERA_CHECK(found != places_.end(), Code::io,
                fmt::format("the weights in {} have no tensor '{}'", folder_, name));
  return files_[found->second];
}

const Shape& ModelWeights::shape(const std::string& name) const {
  return file_of(name).entry(name).shape;
}
DType ModelWeights::dtype(const std::string& name) const {
  return file_of(name).dtype(name);
}
void ModelWeights::read(const std::string& name, DType target, void* out) const {
  file_of(name).read(name, target, out);
}
void ModelWeights::read_range(const std::string& name, std::int64_t begin, std::int64_t count,
                              DType target, void* out) const {
  file_of(name).read_range(name, begin, count, target, out);
}

std::string ModelWeights::find(const std::string& name, std::string_view prefix) const {
  if (contains(name)) return name;
  if (name.starts_with(prefix)) {
    const std::string bare = name.substr(prefix.size());
    if (contains(bare)) return bare;
  }
  const std::string prefixed = std::string(prefix) + name;
  return contains(prefixed) ? prefixed : "";
}

}  // namespace tessera::checkpoint
