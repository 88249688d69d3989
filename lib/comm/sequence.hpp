// SPDX-License-Identifier: Apache-2.0
// One operation after the other, as one.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "comm/operation.hpp"

namespace tessera::comm {

class Sequence : public Operation {
 public:
  explicit Sequence(std::vector<std::shared_ptr<Operation>> steps) : steps_(std::move(steps)) {}

  bool execute() override {
    while (at_ < steps_.size() && steps_[at_]->execute()) ++at_;
    return at_ == steps_.size();
  }
  bool complete() override {
    return std::all_of(steps_.begin(), steps_.end(), [](auto& step) { return step->complete(); });
  }
  std::vector<int> missing() const override {
    return at_ < steps_.size() ? steps_[at_]->missing() : steps_.back()->missing();
  }

 private:
  std::vector<std::shared_ptr<Operation>> steps_;
  std::size_t at_ = 0;
};

}  // namespace tessera::comm
