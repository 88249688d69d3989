// SPDX-License-Identifier: Apache-2.0
// Totals of the operation timer.
#include "tessera/autograd/profiler.hpp"

namespace tessera::autograd {
namespace {

bool profiling = false;

std::map<std::string, double>& totals() {
  static std::map<std::string, double> seconds;
  return seconds;
}

}  // namespace

void Profiler::enable(bool on) {
  profiling = on;
}

bool Profiler::enabled() {
  return profiling;
}

const std::map<std::string, double>& Profiler::seconds() {
  return totals();
}

void Profiler::clear() {
  totals().clear();
}

ProfileScope::~ProfileScope() {
  if (name_ != nullptr) totals()[name_] += timer_.seconds();
}

}  // namespace tessera::autograd
