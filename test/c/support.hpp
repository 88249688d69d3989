// SPDX-License-Identifier: Apache-2.0
// Short words for tests of the C interface.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/tessera.h"

#include "support/temporary_folder.hpp"

#define EXPECT_OK(call) EXPECT_EQ(call, TESSERA_OK) << tessera_last_error()
#define ASSERT_OK(call) ASSERT_EQ(call, TESSERA_OK) << tessera_last_error()
/// The call fails with `code`, and the message contains `part`.
#define EXPECT_REFUSED(call, code, part)                                       \
  do {                                                                         \
    EXPECT_EQ(call, code);                                                     \
    EXPECT_NE(std::string(tessera_last_error()).find(part), std::string::npos) \
        << "the message is: " << tessera_last_error();                         \
  } while (false)

namespace tessera::c::testing {

template <typename T>
struct CType;
template <>
struct CType<float> {
  static constexpr tessera_dtype value = TESSERA_FP32;
};
template <>
struct CType<double> {
  static constexpr tessera_dtype value = TESSERA_FP64;
};
template <>
struct CType<std::int32_t> {
  static constexpr tessera_dtype value = TESSERA_INT32;
};
template <>
struct CType<std::int64_t> {
  static constexpr tessera_dtype value = TESSERA_INT64;
};

template <typename T>
tessera_array array_of(T* data, std::initializer_list<std::int64_t> dims) {
  tessera_array array{};
  array.data = data;
  array.dtype = CType<T>::value;
  for (const std::int64_t size : dims) array.dims[array.rank++] = size;
  return array;
}
template <typename T>
tessera_array array_of(std::vector<T>& values) {
  return array_of(values.data(), {static_cast<std::int64_t>(values.size())});
}

/// A folder of rank 0 that all ranks know; removed when all are done.
class SharedFolder {
 public:
  SharedFolder() {
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    char path[4096] = {};
    if (rank == 0) {
      mine_ = std::make_unique<test::TemporaryFolder>();
      mine_->path().copy(path, sizeof path - 1);
    }
    MPI_Bcast(path, sizeof path, MPI_CHAR, 0, MPI_COMM_WORLD);
    path_ = path;
  }
  ~SharedFolder() { MPI_Barrier(MPI_COMM_WORLD); }
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::unique_ptr<test::TemporaryFolder> mine_;
  std::string path_;
};

/// A runtime over all ranks, with its group.
struct World {
  explicit World(const char* transport = "auto") {
    tessera_runtime_options options{};
    options.struct_size = sizeof options;
    options.transport = transport;
    options.timeout_seconds = 60;
    EXPECT_OK(tessera_runtime_create(MPI_COMM_WORLD, &options, &runtime));
    EXPECT_OK(tessera_runtime_world(runtime, &group));
    EXPECT_OK(tessera_group_rank(group, &rank));
    EXPECT_OK(tessera_group_size(group, &size));
  }
  ~World() {
    EXPECT_OK(tessera_group_destroy(&group));
    EXPECT_OK(tessera_runtime_destroy(&runtime));
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  tessera_runtime* runtime = nullptr;
  tessera_group* group = nullptr;
  int rank = 0, size = 0;
};

}  // namespace tessera::c::testing
