// SPDX-License-Identifier: Apache-2.0
// The ledger of bytes by purpose.
#include "tessera/device/memory.hpp"

#include <fstream>
#include <limits>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(MemoryLedger, KeepsNowAndPeakByPurpose) {
  MemoryLedger ledger;
  ledger.add(Purpose::parameters, 100);
  ledger.add(Purpose::gradients, 50);
  ledger.remove(Purpose::gradients, 50);
  ledger.add(Purpose::gradients, 20);
  EXPECT_EQ(ledger.current(Purpose::parameters), 100);
  EXPECT_EQ(ledger.current(Purpose::gradients), 20);
  EXPECT_EQ(ledger.peak(Purpose::gradients), 50);
  EXPECT_EQ(ledger.current(Purpose::optimizer), 0);
  EXPECT_EQ(ledger.current_total(), 120);
  EXPECT_EQ(ledger.peak_total(), 150);
}

TEST(MemoryLedger, PeakOfTheSumIsNotTheSumOfPeaks) {
  MemoryLedger ledger;
  ledger.add(Purpose::activations, 100);
  ledger.remove(Purpose::activations, 100);
  ledger.add(Purpose::buckets, 80);
  EXPECT_EQ(ledger.peak(Purpose::activations) + ledger.peak(Purpose::buckets), 180);
  EXPECT_EQ(ledger.peak_total(), 100);
}

TEST(MemoryLedger, ResetStartsPeaksFromWhatIsInUse) {
  MemoryLedger ledger;
  ledger.add(Purpose::gathered, 100);
  ledger.remove(Purpose::gathered, 70);
  ledger.reset_peaks();
  EXPECT_EQ(ledger.peak(Purpose::gathered), 30);
  EXPECT_EQ(ledger.peak_total(), 30);
}

TEST(MemoryLedger, ThreadsLoseNothing) {
  MemoryLedger ledger;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) {
        ledger.add(Purpose::workspace, 8);
        ledger.remove(Purpose::workspace, 8);
      }
      ledger.add(Purpose::workspace, 1);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ledger.current(Purpose::workspace), 4);
  EXPECT_EQ(ledger.current_total(), 4);
  EXPECT_GE(ledger.peak_total(), 9);
  EXPECT_LE(ledger.peak_total(), 4 * 9);
}

TEST(MemoryLedger, TableNamesEveryPurpose) {
  MemoryLedger ledger;
  ledger.add(Purpose::optimizer, 1536);
  const std::string table = ledger.to_string();
  std::set<std::string> names;
  for (int i = 0; i < kPurposes; ++i) {
    const std::string name = to_string(static_cast<Purpose>(i));
    names.insert(name);
    EXPECT_NE(table.find(name), std::string::npos) << table;
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(kPurposes));
  EXPECT_NE(table.find("1.5 KiB"), std::string::npos) << table;
}

TEST(MemoryLedger, OnePerDevice) {
  EXPECT_EQ(&memory_ledger(Device{}), &memory_ledger(Device{}));
  EXPECT_NE(&memory_ledger(Device{}), &memory_ledger(Device{DeviceType::cuda, 0}));
}

TEST(AvailableHostMemory, IsPositiveAndNoMoreThanTheMachineHas) {
  std::ifstream info("/proc/meminfo");
  std::string key;
  std::int64_t kibibytes = 0;
  ASSERT_TRUE(info >> key >> kibibytes);
  ASSERT_EQ(key, "MemTotal:");
  EXPECT_GT(available_host_memory(), 0);
  EXPECT_LE(available_host_memory(), kibibytes * 1024);
}

TEST(Device, Names) {
  EXPECT_EQ(Device{}.to_string(), "cpu");
  EXPECT_EQ((Device{DeviceType::cuda, 3}).to_string(), "cuda:3");
}

}  // namespace
}  // namespace tessera
