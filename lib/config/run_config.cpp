// SPDX-License-Identifier: Apache-2.0
#include "tessera/config/run_config.hpp"

#include <fmt/format.h>

namespace tessera::config {

std::string Source::to_string() const {
  switch (kind) {
    case Kind::file:
      return fmt::format("{}:{}", file, line);
    case Kind::set:
      return "--set";
    case Kind::derived:
      return "derived: " + reason;
    case Kind::fallback:
      break;
  }
  return "default";
}

const char* to_string(OnSaveError on_error) {
  return on_error == OnSaveError::stop ? "stop" : "continue";
}

const char* to_string(Recompute recompute) {
  switch (recompute) {
    case Recompute::selective:
      return "selective";
    case Recompute::full:
      return "full";
    case Recompute::none:
      break;
  }
  return "none";
}

bool RunConfig::operator==(const RunConfig& other) const {
  return model == other.model && data == other.data && run == other.run && mesh == other.mesh &&
         pipeline == other.pipeline && comm == other.comm && engine == other.engine &&
         device == other.device;
}

}  // namespace tessera::config
