// SPDX-License-Identifier: Apache-2.0
// A group of one rank: everything is a copy or nothing.
#pragma once

#include <memory>
#include <vector>

#include "comm/base_communicator.hpp"

namespace tessera::comm {

class SelfCommunicator : public BaseCommunicator {
 public:
  using BaseCommunicator::BaseCommunicator;
  const char* transport() const override { return "self"; }

 protected:
  Started start_all_reduce(std::byte*, std::int64_t, DType, Reduction) override { return nullptr; }
  Started start_reduce_scatter(std::vector<Part> parts, DType dtype, Reduction) override {
    return copy(parts, dtype);
  }
  Started start_all_gather(std::vector<Part> parts, DType dtype) override {
    return copy(parts, dtype);
  }
  Started start_broadcast(std::byte*, std::int64_t, int) override { return nullptr; }
  Started start_all_to_all(const std::byte* send, Pieces send_bytes, std::byte* receive,
                           Pieces) override {
    copy_bytes(receive, send, send_bytes.length(0));
    return nullptr;
  }

 private:
  static Started copy(const std::vector<Part>& parts, DType dtype) {
    for (const Part& part : parts)
      copy_bytes(part.receive, part.send,
                 part.pieces.length(0) * static_cast<std::int64_t>(size_of(dtype)));
    return nullptr;
  }
};

}  // namespace tessera::comm
