// SPDX-License-Identifier: Apache-2.0
// The scheduler of a block's fibers, and the barriers at which they switch.
#include "emulation/block.hpp"

#include <cstring>
#include <exception>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "emulation/builtin.hpp"

namespace tessera::emulation {

namespace {

bool same_place(const Site& a, const Site& b) {
  return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

}  // namespace

std::string to_string(const Site& site) {
  const char* name = std::strrchr(site.file_name(), '/');
  return fmt::format("{}:{}", name == nullptr ? site.file_name() : name + 1, site.line());
}

int choose(std::uint32_t set, Order order, Choices& choices) {
  if (order == Order::forward) {
    return std::countr_zero(set);
  }
  if (order == Order::reverse) {
    return 31 - std::countl_zero(set);
  }
  for (auto skip = choices.below(static_cast<std::uint64_t>(std::popcount(set))); skip > 0;
       --skip) {
    set &= set - 1;
  }
  return std::countr_zero(set);
}

Block& running_block() {
  static auto* const block = new Block;  // not destroyed before the last buffer in a static
  return *block;
}

void Block::reshape(dim3 threads) {
  count_ = static_cast<int>(threads.x * threads.y * threads.z);
  int i = 0;
  for (unsigned z = 0; z < threads.z; ++z) {
    for (unsigned y = 0; y < threads.y; ++y) {
      for (unsigned x = 0; x < threads.x; ++x) {
        indices_[static_cast<std::size_t>(i++)] = {x, y, z};
      }
    }
  }
}

std::optional<Fault> Block::run(const std::function<void()>& thread, Schedule schedule,
                                Choices& choices) {
  thread_ = &thread;
  schedule_ = schedule;
  choices_ = &choices;
  reset();
  if constexpr (race::kWatched) {
    choose_cast();
    race::release(&tokens_->start);
  }
  switch_to(pick(), outside_);
  if constexpr (race::kWatched) {
    race::acquire(&tokens_->end);
  }
  if (!fault_ && alive_ > 0) {
    fault_ = Fault{FaultKind::divergence,
                   "threads wait for others that wait elsewhere: " + describe_waiting()};
  }
  if (!race::kWatched) {
    release_stacks();
  } else if (fault_) {
    dismiss_cast();
  }
  return std::exchange(fault_, std::nullopt);
}

void Block::choose_cast() {
  const race::Unwatched unwatched;
  outside_actor_ = race::current();
  tokens_ = std::make_unique<Tokens>();
  cast_ = &casts_[outside_actor_];
  while (cast_->size() < static_cast<std::size_t>(count_)) {
    cast_->push_back({.actor = race::create(), .stack = stacks_.take()});
  }
}

// After a fault threads are in the middle of something, which they would never leave.
void Block::dismiss_cast() {
  const race::Unwatched unwatched;
  for (const Player& player : *cast_) {
    race::destroy(player.actor);
  }
  casts_.erase(outside_actor_);
}

void Block::reset() {
  alive_ = count_;
  arrived_ = 0;
  current_warp_ = 0;
  runnable_warps_ = 0;
  for (int w = 0; w * kLanes < count_; ++w) {
    Warp& warp = warps_[static_cast<std::size_t>(w)];
    const int lanes = std::min(kLanes, count_ - w * kLanes);
    warp.alive = lanes == kLanes ? ~std::uint32_t{0} : (std::uint32_t{1} << lanes) - 1;
    warp.runnable = 0;
    warp.at_barrier = 0;
    for (Gathering& gathering : warp.gatherings) {
      gathering.arrived = 0;
    }
    make_runnable(w, warp.alive);
  }
  for (int i = 0; i < count_; ++i) {
    threads_[static_cast<std::size_t>(i)].started = false;
  }
}

void Block::make_runnable(int warp, std::uint32_t lanes) {
  warps_[static_cast<std::size_t>(warp)].runnable |= lanes;
  if (lanes != 0) {
    runnable_warps_ |= std::uint32_t{1} << warp;
  }
}

// The next thread to run, −1 if none can.
int Block::pick() {
  if (runnable_warps_ == 0) {
    return -1;
  }
  if ((runnable_warps_ >> current_warp_ & 1u) == 0) {
    current_warp_ = choose(runnable_warps_, schedule_.warps, *choices_);
  }
  const auto runnable = warps_[static_cast<std::size_t>(current_warp_)].runnable;
  return current_warp_ * kLanes + choose(runnable, schedule_.lanes, *choices_);
}

void Block::enter(int thread) {
  Warp& warp = warps_[static_cast<std::size_t>(thread / kLanes)];
  warp.runnable &= ~(std::uint32_t{1} << (thread % kLanes));
  if (warp.runnable == 0) {
    runnable_warps_ &= ~(std::uint32_t{1} << (thread / kLanes));
  }
  current_ = thread;
  threadIdx = indices_[static_cast<std::size_t>(thread)];
}

void Block::switch_to(int next, Context& from) {
  if (next < 0) {
    race::become(outside_actor_);
    switch_context(from, outside_);
    return;
  }
  enter(next);
  Thread& thread = threads_[static_cast<std::size_t>(next)];
  if (!thread.started) {
    thread.started = true;
    thread.stack = race::kWatched ? (*cast_)[static_cast<std::size_t>(next)].stack : stacks_.take();
    prepare_context(thread.context, thread.stack, thread_main);
  }
  if constexpr (race::kWatched) {
    race::become((*cast_)[static_cast<std::size_t>(next)].actor);
  }
  switch_context(from, thread.context);
}

void Block::yield() {
  const int me = current_;
  const int next = pick();
  if (next == me) {
    enter(me);
  } else {
    switch_to(next, threads_[static_cast<std::size_t>(me)].context);
  }
}

void Block::thread_main() {
  Block& block = running_block();
  while (true) {
    Thread& mine = block.threads_[static_cast<std::size_t>(block.current_)];
    block.run_thread();
    block.end_thread();
    const int next = block.pick();
    if (race::kWatched) {
      block.switch_to(next, mine.context);
    } else if (next >= 0 && !block.threads_[static_cast<std::size_t>(next)].started) {
      // Threads that never block follow each other on one stack, without a switch.
      Thread& thread = block.threads_[static_cast<std::size_t>(next)];
      thread.started = true;
      thread.stack = std::exchange(mine.stack, {});
      block.enter(next);
    } else {
      block.stacks_.give_back(std::exchange(mine.stack, {}));
      block.switch_to(next, mine.context);
    }
  }
}

void Block::run_thread() {
  std::string problem;
  try {
    if constexpr (race::kWatched) {
      race::acquire(&tokens_->start);
      (*thread_)();
      race::release(&tokens_->end);
    } else {
      (*thread_)();
    }
    return;
  } catch (const std::exception& error) {
    problem = error.what();
  } catch (...) {
    problem = "of unknown type";
  }
  // Outside of the handler, which a fiber must not leave by a switch.
  fail(FaultKind::misuse, "an exception left the kernel: " + problem);
}

void Block::end_thread() {
  const int w = current_ / kLanes;
  Warp& warp = warps_[static_cast<std::size_t>(w)];
  warp.alive &= ~own_lane();
  --alive_;
  // Whoever waited only for this thread can go on.
  if (arrived_ > 0 && arrived_ == alive_) {
    finish_barrier();
  }
  for (Gathering& gathering : warp.gatherings) {
    if (gathering.arrived != 0 && (gathering.mask & own_lane()) != 0 &&
        gathering.arrived == (gathering.mask & warp.alive)) {
      act(w, gathering);
    }
  }
}

std::uint64_t* Block::token_of(int warp, const Gathering& gathering) {
  if constexpr (!race::kWatched) {
    return nullptr;
  }
  const auto slot = static_cast<std::size_t>(std::countr_zero(gathering.mask));
  return &tokens_->warps[static_cast<std::size_t>(warp)][slot][gathering.generation % 2];
}

// The last lane to arrive acts for all, and wakes them.
void Block::act(int warp, Gathering& gathering) {
  std::uint64_t* const token = token_of(warp, gathering);
  const std::uint32_t lanes = std::exchange(gathering.arrived, 0);
  race::acquire(token);
  gathering.action(gathering.contributions.data(), lanes);
  race::release(token);
  ++gathering.generation;
  make_runnable(warp, lanes);
}

int Block::barrier(BarrierKind kind, int predicate, const Site& site) {
  if (arrived_ == 0) {
    barrier_kind_ = kind;
    barrier_site_ = site;
    predicates_ = 0;
  } else if (kind != barrier_kind_ || !same_place(site, barrier_site_)) {
    fail(FaultKind::divergence,
         fmt::format("{} threads of the block wait at the barrier at {}, and this one at {}",
                     arrived_, to_string(barrier_site_), to_string(site)));
  }
  Thread& me = threads_[static_cast<std::size_t>(current_)];
  me.waits_at = site;
  warps_[static_cast<std::size_t>(current_ / kLanes)].at_barrier |= own_lane();
  predicates_ += predicate != 0;
  std::uint64_t* const token =
      race::kWatched ? &tokens_->barrier[barrier_generation_ % 2] : nullptr;
  race::release(token);
  if (++arrived_ == alive_) {
    finish_barrier();
  }
  yield();
  race::acquire(token);
  return me.barrier_result;
}

void Block::finish_barrier() {
  int result = predicates_;
  if (barrier_kind_ == BarrierKind::any) {
    result = predicates_ > 0;
  } else if (barrier_kind_ == BarrierKind::all) {
    result = predicates_ == arrived_;
  }
  for (int i = 0; i < count_; ++i) {
    threads_[static_cast<std::size_t>(i)].barrier_result = result;
  }
  for (int w = 0; w * kLanes < count_; ++w) {
    make_runnable(w, std::exchange(warps_[static_cast<std::size_t>(w)].at_barrier, 0));
  }
  arrived_ = 0;
  ++barrier_generation_;
}

void Block::together(std::uint32_t mask, WarpAction action, void* contribution, bool orders_memory,
                     const Site& site) {
  const int w = current_ / kLanes;
  Warp& warp = warps_[static_cast<std::size_t>(w)];
  if ((mask & own_lane()) == 0) {
    fail(FaultKind::divergence,
         fmt::format("the mask {:#010x} at {} lacks the calling lane", mask, to_string(site)));
  }
  Thread& me = threads_[static_cast<std::size_t>(current_)];
  me.waits_at = site;
  Gathering& gathering = warp.gatherings[static_cast<std::size_t>(std::countr_zero(mask))];
  if (gathering.arrived == 0) {
    gathering.mask = mask;
    gathering.action = action;
  } else if (gathering.mask != mask || gathering.action != action) {
    fail(FaultKind::divergence,
         fmt::format("lanes of a warp are in different operations: this one at {}, others wait: {}",
                     to_string(site), describe_waiting()));
  }
  gathering.arrived |= own_lane();
  gathering.contributions[static_cast<std::size_t>(current_ % kLanes)] = contribution;
  std::uint64_t* const token = orders_memory ? token_of(w, gathering) : nullptr;
  race::release(token);
  if (gathering.arrived != (mask & warp.alive)) {
    yield();
  } else {
    act(w, gathering);
    warp.runnable &= ~own_lane();  // it runs on
    runnable_warps_ &= ~(std::uint32_t{warp.runnable == 0} << w);
  }
  race::acquire(token);
}

std::string Block::describe_waiting() const {
  std::map<std::string, int> waiting;
  for (int i = 0; i < count_; ++i) {
    const Warp& warp = warps_[static_cast<std::size_t>(i / kLanes)];
    const Thread& thread = threads_[static_cast<std::size_t>(i)];
    const std::uint32_t lane = std::uint32_t{1} << (i % kLanes);
    if (i != current_ && thread.started && (warp.alive & ~warp.runnable & lane) != 0) {
      ++waiting[to_string(thread.waits_at)];
    }
  }
  std::string text;
  for (const auto& [place, threads] : waiting) {
    text += fmt::format("{}{} at {}", text.empty() ? "" : ", ", threads, place);
  }
  return text;
}

void Block::fail(FaultKind kind, const std::string& message) {
  fault_ = Fault{kind, message};
  Context never_resumed;
  race::become(outside_actor_);
  switch_context(never_resumed, outside_);
  std::terminate();
}

void Block::release_stacks() {
  for (int i = 0; i < count_; ++i) {
    Thread& thread = threads_[static_cast<std::size_t>(i)];
    if (thread.stack.lowest != nullptr) {
      stacks_.give_back(std::exchange(thread.stack, {}));
    }
  }
}

}  // namespace tessera::emulation
