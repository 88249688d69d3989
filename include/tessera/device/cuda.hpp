// SPDX-License-Identifier: Apache-2.0
// GPUs: which there are, which one a rank takes, their streams and memory. In builds without CUDA,
// and on machines without a driver, there are none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tessera/device/buffer.hpp"
#include "tessera/device/device.hpp"
#include "tessera/device/stream.hpp"

namespace tessera {

/// GPUs that this process sees; 0 without a driver and in builds without CUDA. Never throws.
int cuda_device_count();
/// Why there are none, for people; empty when there are some.
std::string cuda_unavailable_reason();
/// "13.0", of the toolkit of this build; empty in builds without CUDA.
std::string cuda_build_version();
/// "13.0", the newest that the driver knows; empty without a driver.
std::string cuda_driver_version();

struct CudaDeviceInfo {
  std::string name;
  std::string identity;  ///< "GPU-…": equal for two processes that see the same card
  int major = 0, minor = 0;
  int multiprocessors = 0;
  std::int64_t total_memory = 0, free_memory = 0;  ///< bytes
};
/// Errors: invalid_argument for a device that is not there.
CudaDeviceInfo describe_cuda_device(Device device);

/// The GPU whose memory `address` is in; the CPU for all that the host can read: page-locked and
/// managed memory too. May make CUDA prepare a GPU for this process, which takes memory there.
Device device_of_address(const void* address);

/// The GPU of the rank `local_rank` among the `local_ranks` of its node: the only visible one (the
/// launcher gave each rank its own, or ranks share it), else number local_rank modulo their number,
/// with a warning when ranks must share. Errors: not_supported with cuda_unavailable_reason().
Device choose_cuda_device(int local_rank, int local_ranks);

enum class StreamPriority { normal, high };
/// A new queue of the device; the CPU's is Stream{}. Errors: not_supported without CUDA.
Stream make_stream(Device device, StreamPriority priority = StreamPriority::normal);

/// The stream on which `device` memory that this thread allocates is born: that of the innermost
/// StreamScope of this thread, else one default stream for each device and process. CPU: Stream{}.
///
/// Order of device memory: a buffer from allocate() may be used at once by work of the stream that
/// was current then; work of another stream must first wait for an event of that stream. Its memory
/// is taken back on that same stream when the buffer is destroyed, after the work enqueued so far:
/// what other streams still do with the buffer must be waited for by that stream before.
Stream current_stream(Device device);

/// Makes `stream` the current stream of its device on this thread while the scope lives.
class StreamScope {
 public:
  explicit StreamScope(const Stream& stream);
  ~StreamScope();
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;
};

/// Page-locked host memory, which copies to and from a GPU read directly and asynchronously; plain
/// host memory without CUDA. Uninitialised, cached for reuse, counted in the CPU's ledger. No
/// stream may still work on it when it is destroyed. Errors: out_of_memory.
Buffer allocate_pinned(std::size_t bytes, Purpose purpose);
/// The same, except that `stream` may still work on it when it is destroyed: nobody else gets the
/// memory before that is done.
Buffer allocate_pinned(std::size_t bytes, Purpose purpose, const Stream& stream);

}  // namespace tessera
