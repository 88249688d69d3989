// SPDX-License-Identifier: Apache-2.0
// Arrays of a GPU for benchmarks, and runs that are long enough to time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tessera/base/random.hpp"
#include "tessera/device/cuda.hpp"

#include "support/bench.hpp"

namespace tessera::bench {

class GpuArrays {
 public:
  explicit GpuArrays(Device device) : stream_(current_stream(device)) {}
  const Stream& stream() const { return stream_; }

  /// Elements in [-0.5, 0.5): zeros would let the GPU clock higher than real numbers do.
  void* random(std::int64_t count, DType dtype) {
    constexpr std::int64_t kPattern = 1 << 20;
    const RandomStream random(1, buffers_.size());
    std::vector<float> values(kPattern);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = random.uniform(i) - 0.5f;
    std::vector<std::byte> bytes(values.size() * size_of(dtype));
    convert(values.data(), DType::fp32, bytes.data(), dtype, values.size());
    auto* const target = static_cast<std::byte*>(empty(count, dtype));
    for (std::int64_t done = 0; done < count; done += kPattern)
      stream_.copy(target + static_cast<std::size_t>(done) * size_of(dtype), bytes.data(),
                   static_cast<std::size_t>(std::min(kPattern, count - done)) * size_of(dtype));
    return target;
  }
  void* empty(std::int64_t count, DType dtype) {
    buffers_.push_back(allocate(static_cast<std::size_t>(count) * size_of(dtype), stream_.device(),
                                Purpose::workspace));
    return buffers_.back().data();
  }

  /// Several calls and one wait are timed, so that launching and waiting do not count.
  Variant variant(std::string name, std::function<void()> call, double work) const {
    constexpr int kCalls = 10;
    return {.name = std::move(name),
            .run =
                [stream = stream_, call = std::move(call)] {
                  for (int i = 0; i < kCalls; ++i) call();
                  stream.synchronize();
                },
            .work = kCalls * work};
  }

 private:
  Stream stream_;
  std::vector<Buffer> buffers_;
};

}  // namespace tessera::bench
