// SPDX-License-Identifier: Apache-2.0
#include "tessera/device/arena.hpp"

#include <bit>
#include <cuda_runtime_api.h>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/number_format.hpp"

#include "device/cuda/arena_blocks.hpp"
#include "device/cuda/check.hpp"
#include "device/cuda/device_pool.hpp"

namespace tessera {

namespace {

std::vector<std::shared_ptr<Arena::Blocks>>& scopes() {
  thread_local std::vector<std::shared_ptr<Arena::Blocks>> arenas;
  return arenas;
}

/// Scratch comes in many sizes that are used one after the other: few classes let them share.
std::size_t block_bytes(std::size_t bytes, Purpose purpose) {
  return purpose == Purpose::workspace ? std::bit_ceil(bytes) : bytes;
}

bool is_recorded(const Stream& stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cuda::check_cuda(
      cudaStreamIsCapturing(static_cast<cudaStream_t>(stream.native_handle()), &status),
      "asking whether a stream is recorded");
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace

Arena::Blocks::~Blocks() {
  for (const auto& [kind, blocks] : free_)
    for (void* block : blocks) {
      memory_ledger(stream_.device()).remove(kind.first, kind.second);
      cuda::release_memory(block, stream_);
    }
}

std::shared_ptr<Arena::Blocks> Arena::Blocks::current(const Stream& stream) {
  const auto& inner = scopes();
  for (auto blocks = inner.rbegin(); blocks != inner.rend(); ++blocks)
    if ((*blocks)->stream_.native_handle() == stream.native_handle()) return *blocks;
  return nullptr;
}

void* Arena::Blocks::grow(const Kind& kind) {
  const auto& [purpose, bytes] = kind;
  TESSERA_CHECK(!is_recorded(stream_), Code::internal,
                fmt::format("work that is recorded needs {} for {}, which the same work did not "
                            "need when it ran before",
                            format_bytes(static_cast<double>(bytes)), to_string(purpose)));
  void* block = cuda::take_memory(bytes, stream_, purpose);
  memory_ledger(stream_.device()).add(purpose, bytes);
  return block;
}

void* Arena::Blocks::take(const Kind& kind) {
  {
    const std::lock_guard lock(mutex_);
    std::vector<void*>& free = free_[kind];
    if (!free.empty()) {
      void* block = free.back();
      free.pop_back();
      return block;
    }
  }
  return grow(kind);
}

void Arena::Blocks::give_back(void* block, std::size_t bytes, const Kind& kind) {
  memory_ledger(stream_.device()).add(kind.first, bytes);
  const std::lock_guard lock(mutex_);
  free_[kind].push_back(block);
}

Buffer Arena::Blocks::allocate(std::size_t bytes, Purpose purpose) {
  const Kind kind{purpose, block_bytes(bytes, purpose)};
  void* block = take(kind);
  // The buffer counts its bytes by itself while it lives.
  memory_ledger(stream_.device()).remove(purpose, bytes);
  return Buffer(block, bytes, stream_.device(), purpose,
                [self = shared_from_this(), kind](void* used, std::size_t size) {
                  self->give_back(used, size, kind);
                });
}

Arena::Arena(const Stream& stream) : blocks_(std::make_shared<Blocks>(stream)) {
  TESSERA_CHECK(!stream.device().is_cpu(), Code::not_supported,
                "an arena holds memory of a GPU, not of the CPU");
}

Arena::Scope::Scope(const Arena& arena) {
  scopes().push_back(arena.blocks_);
}

Arena::Scope::~Scope() {
  scopes().pop_back();
}

}  // namespace tessera
