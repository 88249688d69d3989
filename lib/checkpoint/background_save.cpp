// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/background_save.hpp"

#include <exception>

#include "tessera/base/background_thread.hpp"
#include "tessera/base/error.hpp"

namespace tessera::checkpoint {
namespace {

std::vector<TensorRecord> prepare_on_all(Communicator& group, Snapshot& snapshot,
                                         const std::vector<TensorRecord>& tensors) {
  const Traffic::Pause pause(group.traffic());
  std::vector<TensorRecord> copies;
  agreeing(group, [&] { copies = snapshot.prepare(tensors); });
  return copies;
}

}  // namespace

BackgroundSave::BackgroundSave(Communicator& group, const std::string& path, const Header& header,
                               const std::vector<TensorRecord>& tensors, const State& state,
                               Snapshot& snapshot, const WriteOptions& options, CopyTime copy_time)
    : group_(group),
      snapshot_(snapshot),
      writer_(group, path, header, prepare_on_all(group, snapshot, tensors), state, options) {
  writer_.create();
  if (copy_time == CopyTime::at_once) copy();
  thread_ = start_background_thread([this, copy_time] {
    if (copy_time == CopyTime::later) copy();
    write();
  });
}

BackgroundSave::~BackgroundSave() {
  if (thread_.joinable()) thread_.join();
}

void BackgroundSave::copy() noexcept {
  try {
    snapshot_.copy();
  } catch (const std::exception& error) {
    copy_error_ = error.what();
  }
  copied_.store(true, std::memory_order_release);
  copied_.notify_all();
}

// Here and not in the header: libraries have lists of waiters of their own (cmake/tessera.map).
void BackgroundSave::wait_for_copy() const {
  copied_.wait(false, std::memory_order_acquire);
}

void BackgroundSave::write() noexcept {
  if (copy_error_.empty()) writer_.write();
  written_.store(true, std::memory_order_release);
}

WriteReport BackgroundSave::commit() {
  if (thread_.joinable()) thread_.join();
  const Traffic::Pause pause(group_.traffic());
  group_.agree(copy_error_, Code::io);
  return writer_.commit();
}

}  // namespace tessera::checkpoint
