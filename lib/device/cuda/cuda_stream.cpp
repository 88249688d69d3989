// SPDX-License-Identifier: Apache-2.0
#include "device/cuda/cuda_stream.hpp"

#include <map>
#include <mutex>
#include <vector>

#include "device/cuda/check.hpp"
#include "device/cuda/device_guard.hpp"

namespace tessera::cuda {

namespace {

/// Events without timing, kept for reuse: creating one costs more than recording it.
class EventPool {
 public:
  cudaEvent_t take(int device) {
    {
      const std::lock_guard lock(mutex_);
      std::vector<cudaEvent_t>& free = free_[device];
      if (!free.empty()) {
        const cudaEvent_t event = free.back();
        free.pop_back();
        return event;
      }
    }
    cudaEvent_t event = nullptr;
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
    return event;
  }

  // Streams that wait for the recorded mark keep waiting for it when the event is recorded anew.
  void give_back(int device, cudaEvent_t event) {
    const std::lock_guard lock(mutex_);
    free_[device].push_back(event);
  }

 private:
  std::mutex mutex_;
  std::map<int, std::vector<cudaEvent_t>> free_;
};

// Never destroyed: events in other statics may outlive it.
EventPool& event_pool() {
  static auto* pool = new EventPool;
  return *pool;
}

}  // namespace

CudaStream::CudaStream(int device, bool high_priority) : device_(device) {
  const DeviceGuard guard(device_);
  int least = 0, greatest = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for stream priorities");
  check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking,
                                          high_priority ? greatest : least),
             "creating a stream");
}

CudaStream::~CudaStream() {
  warn_cuda(cudaStreamDestroy(stream_), "destroying a stream");
}

void CudaStream::copy(void* target, const void* source, std::size_t bytes) {
  const DeviceGuard guard(device_);
  check_cuda(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, stream_), "a copy");
}

void CudaStream::fill_zero(void* target, std::size_t bytes) {
  const DeviceGuard guard(device_);
  check_cuda(cudaMemsetAsync(target, 0, bytes, stream_), "filling memory with zeros");
}

void CudaStream::synchronize() {
  check_cuda(cudaStreamSynchronize(stream_), "waiting for a stream");
}

std::shared_ptr<void> CudaStream::record() {
  const DeviceGuard guard(device_);
  const cudaEvent_t event = event_pool().take(device_);
  const int device = device_;
  std::shared_ptr<void> mark(event, [device](void* used) {
    event_pool().give_back(device, static_cast<cudaEvent_t>(used));
  });
  check_cuda(cudaEventRecord(event, stream_), "recording an event");
  return mark;
}

void CudaStream::wait(void* event) {
  const DeviceGuard guard(device_);
  check_cuda(cudaStreamWaitEvent(stream_, static_cast<cudaEvent_t>(event), 0),
             "letting a stream wait for an event");
}

void CudaStream::wait_on_host(void* event) {
  check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "waiting for an event");
}

bool CudaStream::reached(void* event) {
  const cudaError_t result = cudaEventQuery(static_cast<cudaEvent_t>(event));
  if (result == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  check_cuda(result, "asking for an event");
  return true;
}

}  // namespace tessera::cuda
