// SPDX-License-Identifier: Apache-2.0
// The main of every multi-rank test: a failure on any rank fails the test, rank 0 prints progress,
// others only failures.
#include <gtest/gtest.h>
#include <mpi.h>

int main(int argc, char** argv) {
  int level = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &level);
  ::testing::InitGoogleTest(&argc, argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  if (rank != 0) {
    // Keep failure messages, drop the progress lines.
    class FailuresOnly : public ::testing::EmptyTestEventListener {
      void OnTestPartResult(const ::testing::TestPartResult& result) override {
        if (!result.failed()) return;
        int r = 0;
        MPI_Comm_rank(MPI_COMM_WORLD, &r);
        std::fprintf(stderr, "[rank %d] %s:%d: %s\n", r,
                     result.file_name() ? result.file_name() : "?", result.line_number(),
                     result.message());
      }
    };
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailuresOnly);
  }
  int failed = RUN_ALL_TESTS();
  int any = 0;
  MPI_Allreduce(&failed, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return any;
}
