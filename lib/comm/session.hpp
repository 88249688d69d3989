// SPDX-License-Identifier: Apache-2.0
// MPI's life in this process: started by us if nobody did, ended by us only then.
#pragma once

#include <list>

namespace tessera::comm {

/// Something that must be closed while MPI still works.
class Closable {
 public:
  virtual ~Closable() = default;
  virtual void close_inside_finalize() = 0;
};

/// One per process, never destroyed. MPI cannot be started twice, so when it is ours it lives until
/// the process ends normally (an exit hook finalises it); a Runtime can follow a Runtime.
class Session {
 public:
  static Session& instance();

  /// Starts MPI with MPI_THREAD_MULTIPLE unless it runs already; throws if it has ended.
  void ensure_initialized();
  /// Registered objects are closed, last first, inside MPI_Finalize if they still live then.
  void add(Closable* object);
  void remove(Closable* object) { open_.remove(object); }

  /// All ranks throw the same error now: leaving in order is possible.
  void note_agreed_error() { agreed_error_ = true; }
  /// They survived it: an error that one rank throws later is its own.
  void note_agreed_success() { agreed_error_ = false; }
  /// A communicator broke down: peers may never answer again, so nothing collective is tried.
  void note_breakdown() { breakdown_ = true; }
  /// False while an exception that this rank may have alone unwinds the stack.
  bool can_close_in_order() const;

  void close_all();
  void end_process(int status);

 private:
  std::list<Closable*> open_;
  bool owned_ = false;
  bool hooked_ = false;
  bool agreed_error_ = false;
  bool breakdown_ = false;
};

}  // namespace tessera::comm
