// SPDX-License-Identifier: Apache-2.0
// Reads the keys of a Hugging Face config.json into a structure.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace tessera::nn::config_json {

using Json = nlohmann::json;

// Each throws invalid_config for a value of another type, naming model.<key> and the value.
void read(const std::string& key, const Json& value, std::int64_t& target);
void read(const std::string& key, const Json& value, double& target);
void read(const std::string& key, const Json& value, bool& target);
void read(const std::string& key, const Json& value, std::string& target);

template <typename Config>
using Reader = std::function<void(const std::string& key, const Json& value, Config& config)>;
template <typename Config>
using Readers = std::map<std::string, Reader<Config>>;

template <typename T, typename Config>
Reader<Config> into(T Config::*member) {
  return [member](const std::string& key, const Json& value, Config& config) {
    read(key, value, config.*member);
  };
}

/// Throws invalid_config unless it is an object.
Json parse(const std::string& text);
void check_model_type(const Json& value, const std::string& type);
/// Throws invalid_config for a key that is neither `known`, nor one that Hugging Face has for every
/// model and that decides nothing here.
void check_known(const std::string& key, const std::string& type, std::vector<std::string> known);

/// Gives every key to its reader; null leaves what there is. `strict` refuses keys that are not
/// known; those `without_effect` are.
template <typename Config>
void read_keys(const std::string& text, const std::string& type, const Readers<Config>& readers,
               const std::vector<std::string>& without_effect, bool strict, Config& config) {
  const Json json = parse(text);
  for (const auto& [key, value] : json.items()) {
    const auto reader = readers.find(key);
    if (key == "model_type") {
      check_model_type(value, type);
    } else if (reader != readers.end()) {
      if (!value.is_null()) reader->second(key, value, config);
    } else if (strict) {
      std::vector<std::string> known = without_effect;
      for (const auto& [name, unused] : readers) known.push_back(name);
      check_known(key, type, std::move(known));
    }
  }
}

// Of model.<key>; each throws invalid_config.
void check_size(const char* key, std::int64_t value, std::int64_t most);
void check_probability(const char* key, double value);
void check_positive(const char* key, double value);
void check_not_negative(const char* key, double value);

/// Ids and positions are 32-bit.
inline constexpr std::int64_t kMostIds = std::int64_t{1} << 24;

}  // namespace tessera::nn::config_json
