// SPDX-License-Identifier: Apache-2.0
// Messages to and from several peers that are in flight together.
#include "comm/mpi/messages.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

#include "comm/limits.hpp"

namespace tessera::comm {

Messages::~Messages() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized) return;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    if (receives_from_[i] >= 0) MPI_Cancel(&requests_[i]);
    MPI_Request_free(&requests_[i]);
  }
}

void Messages::send(const void* data, std::int64_t bytes, int to) {
  TESSERA_CHECK(to >= 0 && to < group_.size(), Code::invalid_argument,
                fmt::format("send to rank {} in a group of {}", to, group_.size()));
  for (std::int64_t done = 0; done < bytes; done += limits().message_bytes) {
    const auto piece = static_cast<int>(std::min(limits().message_bytes, bytes - done));
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Isend(static_cast<const std::byte*>(data) + done, piece, MPI_BYTE, to, tag_,
                        group_.data(), &request),
              "MPI_Isend");
    requests_.push_back(request);
    receives_from_.push_back(-1);
  }
}

void Messages::receive(void* data, std::int64_t bytes, int from) {
  TESSERA_CHECK(from >= 0 && from < group_.size(), Code::invalid_argument,
                fmt::format("receive from rank {} in a group of {}", from, group_.size()));
  for (std::int64_t done = 0; done < bytes; done += limits().message_bytes) {
    const auto piece = static_cast<int>(std::min(limits().message_bytes, bytes - done));
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Irecv(static_cast<std::byte*>(data) + done, piece, MPI_BYTE, from, tag_,
                        group_.data(), &request),
              "MPI_Irecv");
    requests_.push_back(request);
    receives_from_.push_back(from);
  }
}

bool Messages::test() {
  if (requests_.empty()) return true;
  int done = 0;
  check_mpi(
      MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE),
      "MPI_Testall");
  if (!done) return false;
  requests_.clear();
  receives_from_.clear();
  return true;
}

std::vector<int> Messages::missing() const {
  std::vector<int> peers;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL || receives_from_[i] < 0) continue;
    int done = 0;
    check_mpi(MPI_Request_get_status(requests_[i], &done, MPI_STATUS_IGNORE),
              "MPI_Request_get_status");
    if (!done) peers.push_back(receives_from_[i]);
  }
  std::sort(peers.begin(), peers.end());
  peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
  return peers;
}

PointMessage::PointMessage(Group& group, int tag) : messages_(group, kFirstPointTag + tag) {
  constexpr int kHighestTag = 32767 - kFirstPointTag;  // what every MPI allows
  TESSERA_CHECK(tag >= 0 && tag <= kHighestTag, Code::invalid_argument,
                fmt::format("tag {}: tags go from 0 to {}", tag, kHighestTag));
}

std::vector<int> PointMessage::missing() const {
  std::vector<int> peers = messages_.missing();
  if (peers.empty()) peers.push_back(signature.root);
  return peers;
}

}  // namespace tessera::comm
