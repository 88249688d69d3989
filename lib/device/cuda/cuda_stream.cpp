// SPDX-License-Identifier: Apache-2.0
#include "device/cuda/cuda_stream.hpp"

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "device/cuda/check.hpp"
#include "device/cuda/device_guard.hpp"
#include "device/cuda/wait_hook.hpp"

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

std::function<void()>& wait_hook() {
  static auto* hook = new std::function<void()>;
  return *hook;
}

/// Blocks until `query` is no longer cudaErrorNotReady: inside CUDA, or with the hook's work.
template <class Query, class Block>
void wait_for(Query&& query, Block&& block, const char* what) {
  if (!wait_hook()) return check_cuda(block(), what);
  for (int turn = 0;; ++turn) {
    const cudaError_t result = query();
    if (result != cudaErrorNotReady) return check_cuda(result, what);
    cudaGetLastError();
    if (turn % 16 == 15) wait_hook()();
    turn < 1000 ? std::this_thread::yield()
                : std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

// Never destroyed: events in other statics may outlive it.
EventPool& event_pool() {
  static auto* pool = new EventPool;
  return *pool;
}

}  // namespace

void set_wait_hook(std::function<void()> hook) {
  wait_hook() = std::move(hook);
}

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
  wait_for([this] { return cudaStreamQuery(stream_); },
           [this] { return cudaStreamSynchronize(stream_); }, "waiting for a stream");
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
  const auto mark = static_cast<cudaEvent_t>(event);
  wait_for([mark] { return cudaEventQuery(mark); }, [mark] { return cudaEventSynchronize(mark); },
           "waiting for an event");
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
