// SPDX-License-Identifier: Apache-2.0
// The ranks of one communicator: MPI handles, waiting with a deadline, small host exchanges.
#include "comm/group.hpp"

#include <algorithm>
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
  mark_failed(text);
  fail(Code::timeout, text);
}

/// Answers ranks that ask who is here, which also lets MPI move other traffic on.
void Group::serve_roll_calls() {
  if (size_ == 1 || closed_) return;
  int asked = 0;
  MPI_Status status;
  check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, kRollAsk, control(), &asked, &status), "MPI_Iprobe");
  if (!asked) return;
  std::int64_t theirs = 0;
  check_mpi(
      MPI_Recv(&theirs, 1, MPI_INT64_T, status.MPI_SOURCE, kRollAsk, control(), MPI_STATUS_IGNORE),
      "MPI_Recv");
  if (theirs >= sequence) present_[static_cast<std::size_t>(status.MPI_SOURCE)] = true;
  check_mpi(MPI_Send(&sequence, 1, MPI_INT64_T, status.MPI_SOURCE, kRollAnswer, control()),
            "MPI_Send");
}

/// Asks everybody where they are. Ranks that do not answer soon, or that are at an earlier
/// operation, have not arrived.
std::vector<int> Group::call_roll() {
  for (int r = 0; r < size_; ++r)
    if (r != rank_)
      check_mpi(MPI_Send(&sequence, 1, MPI_INT64_T, r, kRollAsk, control()), "MPI_Send");
  present_[static_cast<std::size_t>(rank_)] = true;
  const auto end =
      std::chrono::steady_clock::now() +
      std::chrono::milliseconds(static_cast<int>(std::clamp(timeout() * 500, 200.0, 2000.0)));
  while (std::chrono::steady_clock::now() < end &&
         !std::all_of(present_.begin(), present_.end(), [](bool here) { return here; })) {
    serve_roll_calls();
    int answered = 0;
    MPI_Status status;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, kRollAnswer, control(), &answered, &status), "MPI_Iprobe");
    if (answered) {
      std::int64_t theirs = 0;
      check_mpi(MPI_Recv(&theirs, 1, MPI_INT64_T, status.MPI_SOURCE, kRollAnswer, control(),
                         MPI_STATUS_IGNORE),
                "MPI_Recv");
      if (theirs >= sequence) present_[static_cast<std::size_t>(status.MPI_SOURCE)] = true;
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
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

void Group::mark_failed(const std::string& reason) {
  if (failure_.empty()) failure_ = reason;
  environment_->broken = true;
  Session::instance().note_breakdown();
}

void Group::close() {
  if (closed_) return;
  closed_ = true;
  if (failed()) return;
  const Watchdog::Section guard("MPI_Comm_free of \"" + name_ + "\"", timeout());
  data_.close();
  control_.close();
}

}  // namespace tessera::comm
