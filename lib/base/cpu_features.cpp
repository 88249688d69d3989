// SPDX-License-Identifier: Apache-2.0
#include "tessera/base/cpu_features.hpp"

#include <algorithm>
#include <fstream>
#include <sched.h>
#include <string>
#include <thread>
#include <unistd.h>

#include <hwy/highway.h>
#include <omp.h>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace tessera {
namespace {

// cgroup v2 "cpu.max" holds "quota period" in microseconds, or "max period".
int quota_cores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return 0;
  return std::max(1, static_cast<int>(std::stod(quota) / period));
}

}  // namespace

std::string simd_name() {
  const auto targets = hwy::SupportedTargets();
  if (targets & (HWY_AVX3 | HWY_AVX3_DL)) return "avx512";
  if (targets & HWY_AVX2) return "avx2";
  if (targets & (HWY_SVE | HWY_SVE2)) return "sve";
  if (targets & HWY_NEON) return "neon";
  return "baseline";
}

bool has_bf16_instructions() {
#if defined(__x86_64__)
  unsigned eax = 7, ebx = 0, ecx = 1, edx = 0;  // leaf 7, subleaf 1: EAX bit 5 is AVX512_BF16
  __asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  const bool avx512_bf16 = (eax >> 5) & 1u;
  return avx512_bf16 && simd_name() == "avx512";
#elif defined(__aarch64__) && defined(HWCAP2_BF16)
  return getauxval(AT_HWCAP2) & HWCAP2_BF16;
#else
  return false;
#endif
}

int node_cores() {
  const int online = std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  const int quota = quota_cores();
  return quota > 0 ? std::min(online, quota) : online;
}

int available_cores() {
  cpu_set_t set;
  // The mask is too small for machines with more than 1024 processors; the library's count is not.
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cores = CPU_COUNT(&set);
  if (const int quota = quota_cores(); quota > 0) cores = std::min(cores, quota);
  return std::max(1, cores);
}

void set_threads(int count) {
  omp_set_num_threads(std::max(1, count));
}

int threads() {
  return omp_get_max_threads();
}

std::string cpu_model_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (const auto colon = line.find(": ");
        line.starts_with("model name") && colon != std::string::npos)
      return line.substr(colon + 2);
  return "unknown";
}

}  // namespace tessera
