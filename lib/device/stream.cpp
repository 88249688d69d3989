// SPDX-License-Identifier: Apache-2.0
#include "tessera/device/stream.hpp"

#include <cstring>

namespace tessera {

void Stream::copy(void* target, const void* source, std::size_t bytes) const {
  if (bytes == 0) return;
  if (backend_) return backend_->copy(target, source, bytes);
  std::memmove(target, source, bytes);
}

void Stream::fill_zero(void* target, std::size_t bytes) const {
  if (bytes == 0) return;
  if (backend_) return backend_->fill_zero(target, bytes);
  std::memset(target, 0, bytes);
}

void Stream::synchronize() const {
  if (backend_) backend_->synchronize();
}

Event Stream::record() const {
  return backend_ ? Event(backend_->record(), backend_) : Event();
}

void Stream::wait(const Event& event) const {
  if (backend_ && event.mark_) backend_->wait(event.mark_.get());
}

void Event::synchronize() const {
  if (mark_) backend_->wait_on_host(mark_.get());
}

bool Event::reached() const {
  return !mark_ || backend_->reached(mark_.get());
}

}  // namespace tessera
