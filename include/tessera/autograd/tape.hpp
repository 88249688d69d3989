// SPDX-License-Identifier: Apache-2.0
// Records operations in program order and replays them in reverse.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "tessera/autograd/value.hpp"
#include "tessera/device/stream.hpp"

namespace tessera {
class Communicator;
}

namespace tessera::autograd {

enum class Phase : std::uint8_t {
  forward,
  backward,
  // Of a backward pass in two parts, of units whose gradients wait:
  inputs,   ///< the first part
  weights,  ///< the second one
};

/// Told when the parameters of a unit (an index that the model gives out) are used. For each unit
/// and micro-batch, in this order: acquire(forward) before its first use, release(forward) after
/// its last; and when the tape records, acquire(backward) before its first use in the backward
/// pass, then release(backward) and gradients_ready after its last. Weight::value must be attached
/// between acquire and release, Weight::gradient of trainable weights between acquire(backward) and
/// gradients_ready. No gradient is ever written in the forward phase. Weights that received no
/// gradient have gradient_written == false at gradients_ready.
///
/// Where the backward pass is in two parts (Tape::split_backward), this is so for units whose
/// gradients are all there after the first part. For the others acquire(inputs) and
/// release(backward) are in the first part, without gradients; in the second one come
/// acquire(weights), with values, which recomputation may want, and gradients, release(weights) and
/// gradients_ready. Between the parts other micro-batches may go through the unit.
class UnitHooks {
 public:
  virtual ~UnitHooks() = default;
  virtual void acquire(int unit, Phase phase) = 0;
  virtual void release(int unit, Phase phase) = 0;
  virtual void gradients_ready(int unit) = 0;
  /// Between two operations, of either direction: communication under way may move on, and nothing
  /// may wait.
  virtual void progress() {}
};

/// One recorded operation. The gradient of its result is taken out of `output` and handed to both
/// closures; when none arrived, they do not run. The two are apart so that a schedule may delay the
/// weights' part; an operation whose kernel computes both at once does it all in backward_input.
struct Node {
  const char* name = "";
  std::shared_ptr<GradientSlot>
      output;  // nullptr: the closures always run, with an undefined tensor
  std::function<void(Tensor&)> backward_input;  // may move the gradient away if there is no other
  std::function<void(const Tensor&)> backward_weight;
  /// Whether gradients of weights wait where the backward pass is in two parts. nullopt: if there
  /// is a backward_weight.
  std::optional<bool> waits{};
};

enum class Recording : std::uint8_t { off, on };

class Tape {
 public:
  /// `hooks` must outlive the tape; nullptr: nobody wants to know.
  explicit Tape(Recording recording, UnitHooks* hooks = nullptr, Stream stream = {});
  /// For a region inside of an operation of this tape.
  Tape inside(Recording recording) const { return Tape(recording, hooks_, stream_); }
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  bool recording() const { return recording_ == Recording::on; }
  const Stream& stream() const { return stream_; }

  /// Around the uses of a unit's weights. Units may overlap (a tied embedding encloses the rest).
  void enter(int unit);
  void leave(int unit);

  /// Wraps a new result: with a gradient slot if the tape records and `requires_gradient`.
  Value result(Tensor data, bool requires_gradient) const;
  /// Only when recording().
  void record(Node node);

  /// Replays everything in reverse; each node and what it saved is freed as soon as it has run, so
  /// that the tape is empty afterwards. After an exception the rest of the tape is dropped.
  void backward();
  /// The same, starting from d(objective)/d(value) = `gradient`.
  void backward(const Value& value, Tensor gradient);

  /// backward() in two calls: first what the gradient of the input depends on, then the rest, which
  /// is gradients of weights and may wait. What an operation computes at once belongs to the first.
  /// Before anything is recorded.
  void split_backward() { split_ = true; }
  bool splits_backward() const { return split_; }
  void backward_input();
  void backward_weight();
  /// backward_input() of a tape inside of an operation of this one, whose rest waits with it.
  void backward_input(Tape& inside, const Value& value, Tensor gradient);

  std::size_t size() const { return nodes_.size(); }

 private:
  /// A unit between enter and leave, and whether an operation there leaves gradients for later.
  struct Use {
    std::int64_t waiting_before = 0;
    bool waits = false;
  };
  void record_last_use(int unit, const std::shared_ptr<Use>& use);
  void record_first_use(int unit, const std::shared_ptr<Use>& use);
  Recording recording_;
  UnitHooks* hooks_;
  Stream stream_;
  std::vector<Node> nodes_;
  struct Deferred {
    std::function<void(const Tensor&)> backward_weight;
    Tensor gradient;
  };
  void progress() const {
    if (hooks_ != nullptr) hooks_->progress();
  }
  /// Runs a node's first part, and the second or puts it off.
  void replay(Node node);
  bool split_ = false;
  std::map<int, std::shared_ptr<Use>> entered_;
  std::int64_t waiting_ = 0;  // operations so far that leave gradients for later
  std::vector<Deferred> deferred_;
};

/// How the input of a recomputed region waits for the backward pass.
struct KeptInputs {
  /// If given, they all have the same input: each keeps its share, and they gather it again
  /// (DeepSpeed's partitioned activations). They live longer than the tape.
  Communicator* holders = nullptr;
  /// In page-locked host memory, where the stream's device is a GPU: not for passes of a Graph.
  bool on_host = false;
};

/// Runs `body` without keeping what it computes inside; the backward pass runs it again from
/// `input` and goes back through that. The same bits as running it directly. `body` may not call
/// enter or leave: put those around the region, so that one acquire(backward) serves both. With
/// `kept.holders` the backward pass is collective.
Value recompute(Tape& tape, const Value& input,
                const std::function<Value(Tape&, const Value&)>& body, const KeptInputs& kept = {});

}  // namespace tessera::autograd
