// SPDX-License-Identifier: Apache-2.0
// The ranks of one communicator: MPI handles, waiting with a deadline, small host exchanges.
#include "comm/group.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <sched.h>
#include <thread>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tessera/base/error.hpp"

#include "comm/base_communicator.hpp"
#include "comm/session.hpp"
#include "comm/watchdog.hpp"

namespace tessera::comm {
namespace {

constexpr int kRollAsk = 1;
constexpr int kRollAnswer = 2;
constexpr int kFailure = 3;

Waiting waiting_for(const char* what) {
  return {[what] { return std::string(what); }};
}

}  // namespace

void Environment::progress_all() {
  if (progressing_) return;
  progressing_ = true;
  for (std::size_t i = 0; i < communicators.size(); ++i) communicators[i]->progress_quietly();
  progressing_ = false;
}

Group::Group(std::shared_ptr<Environment> environment, OwnedComm control, OwnedComm data,
             std::string name, NodeMap nodes, NodeMap real_nodes)
    : environment_(std::move(environment)),
      control_(std::move(control)),
      data_(std::move(data)),
      rank_(rank_in(control_.get())),
      size_(size_of(control_.get())),
      name_(std::move(name)),
      nodes_(std::move(nodes)),
      real_nodes_(std::move(real_nodes)),
      present_(static_cast<std::size_t>(size_), false) {}

bool Group::Patience::rest() {
  if (!sleeps_ && ++rests_ % 16 != 0) {
    sched_yield();
    return false;
  }
  const double waited = std::chrono::duration<double>(Clock::now() - start_).count();
  if (timeout_ > 0 && waited > timeout_) return true;
  sleeps_ = waited > (eager_ ? 2e-3 : 2e-4);
  if (sleeps_) {
    rests_ = 15;  // asleep there is always time
    std::this_thread::sleep_for(std::chrono::microseconds(waited < 0.1 ? 20 : 200));
  }
  return false;
}

void Group::await(MPI_Request& request, const Waiting& waiting) {
  await(
      [&] {
        int done = 0;
        check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
        return done != 0;
      },
      waiting);
}

void Group::throw_timeout(const Waiting& waiting) {
  std::vector<int> missing;
  if (waiting.missing) missing = waiting.missing();
  if (missing.empty()) missing = call_roll();
  const std::string who = missing.empty()
                              ? "all ranks answer, so they wait for different operations"
                              : fmt::format("did not arrive: rank {}", fmt::join(missing, ", "));
  const std::string text =
      fmt::format("{} on \"{}\" waited longer than comm.timeout_seconds = {}; {}",
                  waiting.describe(), name_, timeout(), who);
  if (failed()) fail(failure_code_, failure_);  // a peer was quicker
  mark_failed(Code::timeout, text);
  fail(Code::timeout, text);
}

bool Group::hear_peer() {
  int any = 0;
  MPI_Status status;
  check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, control(), &any, &status), "MPI_Iprobe");
  if (!any) return false;
  int bytes = 0;
  check_mpi(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
  std::string text(static_cast<std::size_t>(bytes), '\0');
  const int from = status.MPI_SOURCE;
  check_mpi(
      MPI_Recv(text.data(), bytes, MPI_BYTE, from, status.MPI_TAG, control(), MPI_STATUS_IGNORE),
      "MPI_Recv");
  if (status.MPI_TAG == kFailure) {
    if (failure_.empty()) {
      failure_code_ = static_cast<Code>(text[0]);
      failure_ = fmt::format("rank {}: {}", from, text.substr(1));
    }
    return true;
  }
  std::int64_t theirs = 0;
  std::memcpy(&theirs, text.data(), sizeof theirs);
  if (theirs >= sequence) present_[static_cast<std::size_t>(from)] = true;
  if (status.MPI_TAG == kRollAsk) tell(from, kRollAnswer, &sequence, sizeof sequence);
  return true;
}

/// Small enough to leave at once, whether or not the peer listens.
void Group::tell(int to, int tag, const void* data, std::size_t bytes) {
  check_mpi(MPI_Send(data, static_cast<int>(bytes), MPI_BYTE, to, tag, control()), "MPI_Send");
}

void Group::serve_peers() {
  if (size_ == 1 || closed_) return;
  while (hear_peer()) {
  }
  if (failed()) fail(failure_code_, failure_);
}

/// Asks everybody where they are. Ranks that do not answer soon, or that are at an earlier
/// operation, have not arrived.
std::vector<int> Group::call_roll() {
  using Clock = std::chrono::steady_clock;
  for (int r = 0; r < size_; ++r)
    if (r != rank_) tell(r, kRollAsk, &sequence, sizeof sequence);
  present_[static_cast<std::size_t>(rank_)] = true;
  const auto patience = static_cast<int>(std::clamp(timeout() * 500, 500.0, 2000.0));
  const Clock::time_point end = Clock::now() + std::chrono::milliseconds(patience);
  const auto all_here = [this] {
    return std::all_of(present_.begin(), present_.end(), [](bool here) { return here; });
  };
  while (Clock::now() < end && !all_here())
    if (!hear_peer()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::vector<int> missing;
  for (int r = 0; r < size_; ++r)
    if (!present_[static_cast<std::size_t>(r)]) missing.push_back(r);
  return missing;
}

std::vector<std::byte> Group::all_gather_fixed(const void* data, std::size_t bytes,
                                               const char* what) {
  std::vector<std::byte> all(bytes * static_cast<std::size_t>(size_));
  MPI_Request request = MPI_REQUEST_NULL;
  const int count = static_cast<int>(bytes);
  check_mpi(MPI_Iallgather(data, count, MPI_BYTE, all.data(), count, MPI_BYTE, control(), &request),
            "MPI_Iallgather");
  await(request, waiting_for(what));
  return all;
}

std::vector<std::string> Group::all_gather_text(const std::string& text) {
  const auto length = static_cast<std::int64_t>(text.size());
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(size_));
  const auto raw = all_gather_fixed(&length, sizeof length, "all_gather_text");
  std::copy(raw.begin(), raw.end(), reinterpret_cast<std::byte*>(lengths.data()));
  const std::int64_t total = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  TESSERA_CHECK(
      total <= std::numeric_limits<int>::max(), Code::invalid_argument,
      fmt::format("all_gather_text of {} bytes in all: it is for small host data", total));
  std::vector<std::string> texts(lengths.size());
  if (total == 0) return texts;
  std::vector<int> counts(lengths.begin(), lengths.end());
  std::vector<int> starts(counts.size(), 0);
  std::partial_sum(counts.begin(), counts.end() - 1, starts.begin() + 1);
  std::string all(static_cast<std::size_t>(total), '\0');
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallgatherv(text.data(), static_cast<int>(length), MPI_CHAR, all.data(),
                            counts.data(), starts.data(), MPI_CHAR, control(), &request),
            "MPI_Iallgatherv");
  await(request, waiting_for("all_gather_text"));
  for (std::size_t r = 0; r < texts.size(); ++r)
    texts[r] = all.substr(static_cast<std::size_t>(starts[r]), static_cast<std::size_t>(counts[r]));
  return texts;
}

std::string Group::broadcast_text(const std::string& text, int root) {
  TESSERA_CHECK(root >= 0 && root < size_, Code::invalid_argument,
                fmt::format("broadcast_text from rank {} in a group of {}", root, size_));
  auto length = static_cast<std::int64_t>(text.size());
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibcast(&length, 1, MPI_INT64_T, root, control(), &request), "MPI_Ibcast");
  await(request, waiting_for("broadcast_text"));
  std::string result = rank_ == root ? text : std::string(static_cast<std::size_t>(length), '\0');
  constexpr std::int64_t kPiece = std::int64_t{1} << 30;
  for (std::int64_t done = 0; done < length; done += kPiece) {
    const auto piece = static_cast<int>(std::min(kPiece, length - done));
    check_mpi(MPI_Ibcast(result.data() + done, piece, MPI_CHAR, root, control(), &request),
              "MPI_Ibcast");
    await(request, waiting_for("broadcast_text"));
  }
  return result;
}

void Group::barrier() {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(control(), &request), "MPI_Ibarrier");
  await(request, waiting_for("barrier"));
}

void Group::check_usable(const char* operation) const {
  TESSERA_CHECK(
      !closed_, Code::invalid_argument,
      fmt::format("{} on \"{}\", which is closed: its Runtime was finalised", operation, name_));
  TESSERA_CHECK(failure_.empty(), Code::peer_failed,
                fmt::format("{} on \"{}\", which failed before: {}", operation, name_, failure_));
}

void Group::mark_failed(Code code, const std::string& reason) {
  environment_->broken = true;
  Session::instance().note_breakdown();
  if (failed() || closed_) return;
  failure_ = reason;
  failure_code_ = code;
  constexpr std::size_t kLongest = 1000;  // leaves without waiting for the receiver
  std::string text;
  text.push_back(static_cast<char>(code));
  text.append(reason, 0, kLongest);
  for (int r = 0; r < size_; ++r)
    if (r != rank_) tell(r, kFailure, text.data(), text.size());
}

void Group::close() {
  if (closed_) return;
  if (!failed() && size_ > 1)
    while (hear_peer()) {
    }
  closed_ = true;
  if (failed()) {
    environment_->broken = true;
    return;
  }
  const Watchdog::Section guard("MPI_Comm_free of \"" + name_ + "\"", timeout());
  data_.close();
  control_.close();
}

}  // namespace tessera::comm
