// SPDX-License-Identifier: Apache-2.0
// What this process does when: spans of time, recorded while somebody asks for them.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tessera {

/// What a span is of.
enum class SpanKind : std::uint8_t {
  step,
  input,  ///< reads a batch
  forward,
  backward,         ///< input and weight gradients in one, or the input's alone
  backward_weight,  ///< the rest of a backward that was split
  optimizer,
  validation,
  checkpoint,
  communication,  ///< moves or reduces bytes
  idle,           ///< waits for other ranks
  in_flight,      ///< an operation from its call until it is done, beside everything else
};
const char* to_string(SpanKind kind);

/// What is known of a span beside its time; what does not apply is left out.
struct SpanDetails {
  std::int64_t step = -1;
  int micro_batch = -1;
  int stage = -1;
  int peer = -1;
  std::int64_t bytes = -1;
  std::string group{};  ///< a communicator's name
  std::string label{};  ///< anything else: a unit's name, what is waited for
};

/// Nanoseconds of a steady clock that is this process's own (see measure_clock in comm).
struct Span {
  const char* name = "";  ///< static text
  SpanKind kind = SpanKind::step;
  std::int64_t begin = 0, end = 0;
  SpanDetails details{};
};

/// The spans of the thread that called start(); those of other threads are left out. Spans other
/// than in_flight are nested, or apart.
class Timeline {
 public:
  /// Beyond it spans are only counted.
  static constexpr std::size_t kMostSpans = 500'000;

  struct Recording {
    std::vector<Span> spans;  ///< by their beginning, outer ones first
    std::int64_t dropped = 0;
  };

  /// Starts anew.
  static void start();
  /// What was recorded since start(); spans that are still open end now.
  static Recording stop();
  static bool recording() { return recording_.load(std::memory_order_relaxed); }
  static std::int64_t now();
  /// A span that is over already, and had none inside it.
  static void add(Span span);

 private:
  friend class ScopedSpan;
  static std::int64_t open(const char* name, SpanKind kind);
  static SpanDetails& details_of(std::int64_t span);
  static void close(std::int64_t span);

  static inline std::atomic<bool> recording_ = false;
};

/// A span from here to the end of the scope. Costs one predictable branch while nothing is
/// recorded: `details`, a function that returns SpanDetails, is called only while something is.
class ScopedSpan {
 public:
  ScopedSpan(SpanKind kind, const char* name)
      : span_(Timeline::recording() ? Timeline::open(name, kind) : kNone) {}
  template <typename Details>
  ScopedSpan(SpanKind kind, const char* name, Details&& details) : ScopedSpan(kind, name) {
    if (span_ != kNone) [[unlikely]]
      Timeline::details_of(span_) = std::forward<Details>(details)();
  }
  ~ScopedSpan() {
    if (span_ != kNone) [[unlikely]]
      Timeline::close(span_);
  }
  ScopedSpan(const ScopedSpan&) = delete;
  ScopedSpan& operator=(const ScopedSpan&) = delete;

 private:
  friend class Timeline;
  static constexpr std::int64_t kNone = -1;
  std::int64_t span_;
};

}  // namespace tessera
