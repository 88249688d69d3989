// SPDX-License-Identifier: Apache-2.0
// A small harness that times variants of one piece of work in turns, so that a machine whose speed
// drifts does not decide who wins, and prints one JSON document.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tessera::bench {

struct Variant {
  std::string name;
  std::function<void()> run;  ///< what is timed
  std::function<void()> prepare =
      {};           ///< before each timed run, not timed: rewrite the buffers here
  double work = 0;  ///< amount that one call of `run` does, in Case::unit; 0: Case::work
};

struct Case {
  std::string name;
  std::vector<Variant> variants;
  std::string baseline = {};  ///< name of a variant; empty: the first
  double work = 0;            ///< amount that one call of `run` does; 0: no rate is printed
  std::string unit = {};      ///< of `work`: "flop", "byte", "token", …; rates are <unit>/s
};

struct VariantResult {
  std::string name;
  std::vector<double> seconds;  ///< of each round
  double median = 0, min = 0;   ///< seconds
  double rate = 0;              ///< work / median
  /// Median over the rounds of (this variant's rate / the baseline's rate in that round): above 1
  /// is faster than the baseline.
  double speed_ratio = 1;
};

struct CaseResult {
  std::string name;
  std::vector<VariantResult> variants;
  const VariantResult& operator[](const std::string& variant) const;
};

/// For programs of several ranks. Both are called by every rank at the same points.
struct Ranks {
  /// The largest value over the ranks. A repetition takes as long as its slowest rank.
  std::function<double(double)> max = [](double value) { return value; };
  std::function<void()> barrier = [] {};
  int rank = 0;
  int size = 1;
};

/// One benchmark program: options, measured cases, printed document.
class Program {
 public:
  /// Options: --seconds S (in all, default 10), --threads N, --only TEXT (cases whose name contains
  /// it). A usage error or --help ends the program as such programs do.
  Program(std::string name, int argc, char** argv, Ranks ranks = {});
  ~Program();

  double seconds() const;
  /// False if --only excludes the case; ask before allocating its buffers.
  bool wants(const std::string& case_name) const;
  /// Runs every variant once as warm-up and then in turns for `share` of the program's seconds, at
  /// least one round. A case that --only excludes is skipped and gives an empty result.
  CaseResult measure(const Case& work, double share);
  /// Adds a number to the document's "values".
  void value(const std::string& name, double number);
  /// Prints the document on rank 0's standard output. Returns the exit code of main.
  int finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

double median(std::vector<double> values);

}  // namespace tessera::bench
