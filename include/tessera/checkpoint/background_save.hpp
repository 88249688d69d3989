// SPDX-License-Identifier: Apache-2.0
// A save that writes while its caller goes on.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "tessera/checkpoint/snapshot.hpp"
#include "tessera/checkpoint/writer.hpp"
#include "tessera/comm/communicator.hpp"

namespace tessera::checkpoint {

/// When the copy is made: by the thread beside training, or before construction returns, for pieces
/// that only the calling thread can fill (those of a GPU).
enum class CopyTime : std::uint8_t { later, at_once };

/// Construction starts a thread that copies this rank's pieces into `snapshot` and then writes the
/// copy. The originals may be read meanwhile, and change after wait_for_copy(): forward and
/// backward passes hide the copy, the optimizer's step waits for it. commit() makes the file.
/// Destruction without commit waits for the thread and leaves no file. `group` and `snapshot` must
/// outlive it; one save a snapshot at a time.
///
/// Collective: construction and commit, over `group`; errors as Writer's, the same on every rank.
class BackgroundSave {
 public:
  BackgroundSave(Communicator& group, const std::string& path, const Header& header,
                 const std::vector<TensorRecord>& tensors, const State& state, Snapshot& snapshot,
                 const WriteOptions& options = {}, CopyTime copy_time = CopyTime::later);
  ~BackgroundSave();
  BackgroundSave(const BackgroundSave&) = delete;
  BackgroundSave& operator=(const BackgroundSave&) = delete;

  /// Local.
  void wait_for_copy() const;
  /// This rank has written its part, or failed to. Local; does not wait.
  bool written() const { return written_.load(std::memory_order_acquire); }
  /// Waits for all ranks' parts.
  WriteReport commit();

 private:
  void copy() noexcept;
  void write() noexcept;

  Communicator& group_;
  Snapshot& snapshot_;
  Writer writer_;
  std::string copy_error_;
  std::atomic<bool> copied_{false};
  std::atomic<bool> written_{false};
  std::thread thread_;
};

}  // namespace tessera::checkpoint
