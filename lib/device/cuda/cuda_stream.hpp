// SPDX-License-Identifier: Apache-2.0
// A CUDA stream behind Stream.
#pragma once

#include <cuda_runtime_api.h>
#include <memory>

#include "tessera/device/stream.hpp"

namespace tessera::cuda {

/// Non-blocking with regard to the default stream, which the library never uses. Destroyed after
/// its work without waiting for it.
class CudaStream final : public Stream::Backend {
 public:
  CudaStream(int device, bool high_priority);
  ~CudaStream() override;

  void copy(void* target, const void* source, std::size_t bytes) override;
  void fill_zero(void* target, std::size_t bytes) override;
  void synchronize() override;
  void* native_handle() override { return stream_; }
  std::shared_ptr<void> record() override;
  void wait(void* event) override;
  void wait_on_host(void* event) override;
  bool reached(void* event) override;

 private:
  int device_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace tessera::cuda
