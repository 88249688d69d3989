// SPDX-License-Identifier: Apache-2.0
// Networks that are saved while they go on learning.
#include <filesystem>
#include <string>
#include <vector>

#include "tessera/base/error.hpp"

#include "c/network_support.hpp"
#include "checkpoint/fault_point.hpp"

namespace tessera::c::testing {
namespace {

int saving(tessera_network* network) {
  int under_way = -1;
  EXPECT_OK(tessera_network_saving(network, &under_way));
  return under_way;
}

/// While it lives no save gets through.
struct BrokenDisk {
  BrokenDisk() {
    checkpoint::fault_hook() = [](const char* point) {
      if (std::string(point) == "write") fail(Code::io, "the disk is on fire");
    };
  }
  ~BrokenDisk() { checkpoint::fault_hook() = nullptr; }
  BrokenDisk(const BrokenDisk&) = delete;
  BrokenDisk& operator=(const BrokenDisk&) = delete;
};

TEST(CSave, BesideTrainingHasTheNetworkAsItWas) {
  const World world;
  const SharedFolder folder;
  Samples samples(world);
  const std::string file = folder.path() + "/beside.h5", late = folder.path() + "/late.h5";
  for (int stage = 0; stage <= 3; ++stage) {
    tessera_network *network = make(world, mlp("", stage)), *plain = make(world, mlp("", stage));
    train(network, samples, 5);
    const std::vector<float> then = predict(network, samples);
    EXPECT_EQ(saving(network), 0);
    ASSERT_OK(tessera_network_save_async(network, file.c_str(), "{\"t\": 1}"));
    EXPECT_EQ(saving(network), 1);
    train(network, samples, 20);
    EXPECT_OK(tessera_network_finish_save(network));
    EXPECT_OK(tessera_network_finish_save(network));
    EXPECT_EQ(saving(network), 0);
    train(plain, samples, 25);
    EXPECT_EQ(predict(network, samples), predict(plain, samples)) << "stage " << stage;
    // The end waits for a file too.
    ASSERT_OK(tessera_network_save_async(network, late.c_str(), nullptr));
    EXPECT_OK(tessera_network_destroy(&network));
    ASSERT_OK(tessera_network_load(plain, late.c_str()));
    ASSERT_OK(tessera_network_load(plain, file.c_str()));
    const char* state = nullptr;
    ASSERT_OK(tessera_network_client_state(plain, &state));
    EXPECT_STREQ(state, "{\"t\": 1}");
    EXPECT_EQ(predict(plain, samples), then) << "stage " << stage;
    EXPECT_OK(tessera_network_destroy(&plain));
  }
}

TEST(CSave, BesideTrainingSaysOnceWhyItFailed) {
  const World world;
  const SharedFolder folder;
  Samples samples(world);
  const std::string file = folder.path() + "/never.h5", good = folder.path() + "/good.h5";
  tessera_network* network = make(world, mlp());
  {
    const BrokenDisk disk;
    ASSERT_OK(tessera_network_save_async(network, file.c_str(), nullptr));
    while (saving(network) == 1) train(network, samples, 1);  // a step notices
  }
  EXPECT_REFUSED(tessera_network_finish_save(network), TESSERA_IO, "on fire");
  EXPECT_OK(tessera_network_finish_save(network));
  for (const bool asynchronous : {false, true}) {
    {
      const BrokenDisk disk;
      ASSERT_OK(tessera_network_save_async(network, file.c_str(), nullptr));
      EXPECT_REFUSED(asynchronous ? tessera_network_save_async(network, good.c_str(), nullptr)
                                  : tessera_network_save(network, good.c_str(), nullptr),
                     TESSERA_IO, "on fire");
    }
    EXPECT_OK(tessera_network_save(network, good.c_str(), nullptr));
  }
  EXPECT_FALSE(std::filesystem::exists(file));
  EXPECT_OK(tessera_network_load(network, good.c_str()));
  {
    const BrokenDisk disk;
    ASSERT_OK(tessera_network_save_async(network, file.c_str(), nullptr));
    EXPECT_REFUSED(tessera_network_destroy(&network), TESSERA_IO, "on fire");
  }
  EXPECT_EQ(network, nullptr);
  EXPECT_REFUSED(tessera_network_finish_save(nullptr), TESSERA_INVALID_ARGUMENT, "NULL");
}

}  // namespace
}  // namespace tessera::c::testing
