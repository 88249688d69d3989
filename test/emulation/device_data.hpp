// SPDX-License-Identifier: Apache-2.0
// Streams, events and arrays for the emulation's tests.
#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "emulation/emulation.hpp"

namespace tessera::emulation_test {

class TestStream {
 public:
  TestStream() {
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
  }
  TestStream(const TestStream&) = delete;
  TestStream& operator=(const TestStream&) = delete;
  ~TestStream() { cudaStreamDestroy(stream_); }
  operator cudaStream_t() const { return stream_; }  // NOLINT: reads like the handle
  void synchronize() const { EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess); }

 private:
  cudaStream_t stream_ = nullptr;
};

class TestEvent {
 public:
  TestEvent() { EXPECT_EQ(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), cudaSuccess); }
  TestEvent(const TestEvent&) = delete;
  TestEvent& operator=(const TestEvent&) = delete;
  ~TestEvent() { cudaEventDestroy(event_); }
  operator cudaEvent_t() const { return event_; }  // NOLINT: reads like the handle

 private:
  cudaEvent_t event_ = nullptr;
};

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t size) : size_(size) {
    void* data = nullptr;
    EXPECT_EQ(cudaMalloc(&data, size * sizeof(T)), cudaSuccess);
    data_ = static_cast<T*>(data);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    const TestStream stream;
    cudaMemcpyAsync(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice, stream);
    stream.synchronize();
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }
  T* data() const { return data_; }

  /// Copies back on `stream`, after what it holds.
  std::vector<T> read(const TestStream& stream) const {
    std::vector<T> values(size_);
    cudaMemcpyAsync(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost, stream);
    stream.synchronize();
    return values;
  }

 private:
  std::size_t size_;
  T* data_ = nullptr;
};

/// Collects faults while it lives.
class Faults {
 public:
  Faults()
      : previous_(emulation::set_fault_handler(
            [this](const emulation::Fault& fault) { all_.push_back(fault); })) {}
  Faults(const Faults&) = delete;
  Faults& operator=(const Faults&) = delete;
  ~Faults() { emulation::set_fault_handler(std::move(previous_)); }
  const std::vector<emulation::Fault>& all() const { return all_; }
  std::string text() const {
    std::string all;
    for (const auto& fault : all_) {
      all += fault.message + "\n";
    }
    return all;
  }

 private:
  std::vector<emulation::Fault> all_;
  emulation::FaultHandler previous_;
};

}  // namespace tessera::emulation_test
