// SPDX-License-Identifier: Apache-2.0
// The interleaving harness and its JSON document.
#include "support/bench.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/timer.hpp"

namespace tessera::bench {
namespace {

using Json = nlohmann::ordered_json;

// Jiffies since boot that the hypervisor gave to others, and all jiffies.
struct Jiffies {
  double steal = 0, all = 0;
};

Jiffies read_jiffies() {
  std::ifstream file("/proc/stat");
  std::string label;
  file >> label;
  Jiffies result;
  double value = 0;
  for (int i = 0; i < 8 && file >> value; ++i) {
    result.all += value;
    if (i == 7) result.steal = value;
  }
  return result;
}

void summarize(CaseResult& result, const Case& work) {
  const std::string& baseline = work.baseline.empty() ? work.variants[0].name : work.baseline;
  const auto amount_of = [&](std::size_t i) {
    return work.variants[i].work > 0 ? work.variants[i].work : work.work;
  };
  std::size_t base = 0;
  while (result.variants[base].name != baseline) ++base;
  for (std::size_t i = 0; i < result.variants.size(); ++i) {
    VariantResult& variant = result.variants[i];
    variant.median = median(variant.seconds);
    variant.min = *std::min_element(variant.seconds.begin(), variant.seconds.end());
    variant.rate = amount_of(i) / variant.median;
    const double size = amount_of(i) > 0 ? amount_of(i) / amount_of(base) : 1;
    std::vector<double> ratios(variant.seconds.size());
    for (std::size_t r = 0; r < ratios.size(); ++r)
      ratios[r] = size * result.variants[base].seconds[r] / variant.seconds[r];
    variant.speed_ratio = median(ratios);
  }
}

Json to_json(const CaseResult& result, const Case& work) {
  Json variants = Json::array();
  for (const VariantResult& variant : result.variants) {
    Json entry{{"name", variant.name}, {"median_s", variant.median}, {"min_s", variant.min}};
    if (variant.rate > 0) entry[work.unit + "_per_s"] = variant.rate;
    entry["speed_ratio"] = variant.speed_ratio;
    variants.push_back(std::move(entry));
  }
  return {{"name", result.name},
          {"rounds", result.variants[0].seconds.size()},
          {"baseline", work.baseline.empty() ? work.variants[0].name : work.baseline},
          {"variants", std::move(variants)}};
}

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

const VariantResult& CaseResult::operator[](const std::string& variant) const {
  for (const VariantResult& candidate : variants)
    if (candidate.name == variant) return candidate;
  fail(Code::invalid_argument, "case " + name + " has no variant " + variant);
}

struct Program::State {
  std::string name;
  Ranks ranks;
  double seconds = 10;
  int threads = 0;
  std::string only;
  Json cases = Json::array();
  Json values = Json::object();
  Jiffies start = read_jiffies();

  double time(const Variant& variant) const {
    if (variant.prepare) variant.prepare();
    // Who waits long in a barrier sleeps and leaves it late; in a second one nobody waits long.
    ranks.barrier();
    ranks.barrier();
    const Timer timer;
    variant.run();
    return ranks.max(timer.seconds());
  }
};

Program::Program(std::string name, int argc, char** argv, Ranks ranks)
    : state_(std::make_unique<State>()) {
  state_->name = std::move(name);
  state_->ranks = std::move(ranks);
  CLI::App app("Benchmark " + state_->name);
  app.add_option("--seconds", state_->seconds, "Time to measure, over all cases")
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", state_->threads, "OpenMP threads of a rank")
      ->check(CLI::PositiveNumber);
  app.add_option("--only", state_->only, "Measure only cases whose name contains this");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error));
  }
  if (state_->threads == 0) state_->threads = std::max(1, available_cores() / state_->ranks.size);
  set_threads(state_->threads);
}

Program::~Program() = default;

double Program::seconds() const {
  return state_->seconds;
}

bool Program::wants(const std::string& case_name) const {
  return case_name.find(state_->only) != std::string::npos;
}

CaseResult Program::measure(const Case& work, double share) {
  CaseResult result{work.name, {}};
  if (!wants(work.name)) return result;
  const auto is_baseline = [&](const Variant& v) { return v.name == work.baseline; };
  TESSERA_CHECK(work.baseline.empty() || std::ranges::any_of(work.variants, is_baseline),
                Code::invalid_argument, "case " + work.name + " lacks its baseline");
  for (const Variant& variant : work.variants) {
    state_->time(variant);
    result.variants.push_back({variant.name, {}});
  }
  const Timer timer;
  const double limit = share * state_->seconds;
  for (int round = 0; round < 1 || state_->ranks.max(timer.seconds()) < limit; ++round)
    for (std::size_t k = 0; k < work.variants.size(); ++k) {
      // There and back: what a variant leaves in the caches must not always meet the same one.
      const std::size_t i = round % 2 == 0 ? k : work.variants.size() - 1 - k;
      result.variants[i].seconds.push_back(state_->time(work.variants[i]));
    }
  summarize(result, work);
  state_->cases.push_back(to_json(result, work));
  return result;
}

void Program::value(const std::string& name, double number) {
  state_->values[name] = number;
}

int Program::finish() {
  if (state_->ranks.rank != 0) return 0;
  const Jiffies now = read_jiffies();
  const double passed = now.all - state_->start.all;
  const Json document{{"benchmark", state_->name},
                      {"version", TESSERA_GIT_VERSION},
                      {"machine",
                       {{"cpu", cpu_model_name()},
                        {"simd", simd_name()},
                        {"bf16_instructions", has_bf16_instructions()},
                        {"cores", available_cores()},
                        {"ranks", state_->ranks.size},
                        {"threads_per_rank", state_->threads},
                        {"steal", passed > 0 ? (now.steal - state_->start.steal) / passed : 0.0}}},
                      {"seconds", state_->seconds},
                      {"cases", state_->cases},
                      {"values", state_->values}};
  std::puts(document.dump(2).c_str());
  return 0;
}

}  // namespace tessera::bench
