// SPDX-License-Identifier: Apache-2.0
#include "parallel/pipeline/stage_link.hpp"

#include <array>
#include <exception>
#include <string>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"

namespace tessera::parallel {
namespace {

constexpr std::size_t kMostDimensions = 8;
/// dtype, number of dimensions, dimensions
using Header = std::array<std::int64_t, kMostDimensions + 2>;

}  // namespace

StageLink::~StageLink() {
  if (std::uncaught_exceptions() > 0) return;
  try {
    finish();
  } catch (const std::exception& error) {
    log_error(std::string("while closing a pipeline with messages under way: ") + error.what());
  }
}

void StageLink::finish() {
  for (auto& [peer, flight] : flights_) flight.work.wait();
  flights_.clear();
}

void StageLink::send(Tensor tensor, int peer) {
  Flight& flight = flights_[peer];
  flight.work.wait();
  flight.tensor = std::move(tensor);
  const Tensor& sent = flight.tensor;
  const auto own = axis_.to.find(peer);
  if (own == axis_.to.end()) {
    flight.work = line_.send(sent.data(), sent.numel(), sent.dtype(), peer, 0, stream_);
    return;
  }
  line_.traffic().add("send", static_cast<std::int64_t>(sent.bytes()), 1);
  flight.work = own->second->send(sent.data(), sent.numel(), sent.dtype(), 1, 0, stream_);
}

Tensor StageLink::receive(int peer, const Shape& shape, DType dtype) {
  if (!axis_.from.contains(peer)) {
    Tensor tensor(shape, dtype, stream_.device());
    line_.receive(tensor.data(), tensor.numel(), dtype, peer, 0, stream_).wait();
    return tensor;
  }
  std::deque<Flight>& expected = expected_[peer];
  if (expected.empty()) expect(peer, shape, dtype);
  Flight first = std::move(expected.front());
  expected.pop_front();
  first.work.wait();
  return first.tensor;
}

void StageLink::expect(int peer, const Shape& shape, DType dtype) {
  const auto own = axis_.from.find(peer);
  if (own == axis_.from.end()) return;
  Flight& flight = expected_[peer].emplace_back();
  flight.tensor = Tensor(shape, dtype, stream_.device());
  flight.work =
      own->second->receive(flight.tensor.data(), flight.tensor.numel(), dtype, 0, 0, stream_);
}

bool StageLink::expect_activation(int peer, const Boundary& boundary) {
  const auto found = forms_.find(boundary);
  if (found == forms_.end()) return false;
  expect(peer, found->second.shape, found->second.dtype);
  return true;
}

void StageLink::send_form(const Tensor& tensor, int peer) {
  const Traffic::Pause pause(line_.traffic());
  const std::vector<std::int64_t>& sizes = tensor.shape().sizes();
  TESSERA_CHECK(sizes.size() <= kMostDimensions, Code::not_supported,
                fmt::format("a stage's result of shape {}: {} dimensions at most",
                            tensor.shape().to_string(), kMostDimensions));
  Header header{static_cast<std::int64_t>(tensor.dtype()), static_cast<std::int64_t>(sizes.size())};
  for (std::size_t i = 0; i < sizes.size(); ++i) header[i + 2] = sizes[i];
  // Small, so that it does not wait for the receiver.
  line_.send(header.data(), std::ssize(header), DType::int64, peer).wait();
}

StageLink::Form StageLink::receive_form(int peer) {
  Header header{};
  line_.receive(header.data(), std::ssize(header), DType::int64, peer).wait();
  const auto dimensions = static_cast<std::size_t>(header[1]);
  std::vector<std::int64_t> sizes(header.begin() + 2,
                                  header.begin() + 2 + static_cast<std::ptrdiff_t>(dimensions));
  return {Shape(std::move(sizes)), static_cast<DType>(header[0])};
}

void StageLink::send_activation(Tensor activation, int peer, const Boundary& boundary) {
  if (!announced_[boundary]) send_form(activation, peer);
  announced_[boundary] = true;
  send(std::move(activation), peer);
}

Tensor StageLink::receive_activation(int peer, const Boundary& boundary) {
  auto found = forms_.find(boundary);
  if (found == forms_.end()) found = forms_.emplace(boundary, receive_form(peer)).first;
  return receive(peer, found->second.shape, found->second.dtype);
}

}  // namespace tessera::parallel
