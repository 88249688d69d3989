if(TESSERA_ENABLE_TESTS)
  find_package(GTest REQUIRED)
  # Build every test with that label; tests added by hand add their programs to these.
  add_custom_target(fast_tests)
  add_custom_target(cuda_tests)
  add_custom_target(gpu_tests)
endif()

set(TESSERA_TEST_LAUNCHER "" CACHE STRING "Launcher of multi-rank tests; empty: mpiexec as CMake found it")

# tessera_add_test(NAME comm_mesh SOURCES mesh_test.cpp LINK comm [RANKS 1 2 4] [CUDA_RANKS 1 2] [LABELS fast] [TIMEOUT 120] [ENVIRONMENT A=b])
#
# One GoogleTest program, registered once for each rank count as <NAME>.<ranks>. Without RANKS it runs without a launcher.
# CUDA_RANKS registers it once more as <NAME>_cuda, in CUDA builds, with TESSERA_TEST_DEVICE=cuda and its labels.
# Every test has a timeout. LABELS fast marks what the sanitizer build runs (on up to four ranks: more take long there
# and find no other faults), cuda what the emulated CUDA build runs,
# gpu what a real GPU runs.
function(tessera_add_test)
  cmake_parse_arguments(arg "" "NAME;TIMEOUT" "SOURCES;LINK;RANKS;CUDA_RANKS;LABELS;ENVIRONMENT" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  if(TESSERA_SANITIZE)
    math(EXPR arg_TIMEOUT "3 * ${arg_TIMEOUT}")
  endif()
  set(target test_${arg_NAME})
  add_executable(${target} ${arg_SOURCES})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/lib ${PROJECT_SOURCE_DIR}/test)
  target_link_libraries(${target} PRIVATE tessera_settings GTest::gtest fmt::fmt)
  foreach(layer IN LISTS arg_LINK)
    if(TARGET tessera_${layer})
      target_link_libraries(${target} PRIVATE tessera_${layer})
    else()
      target_link_libraries(${target} PRIVATE ${layer})
    endif()
  endforeach()
  foreach(label fast cuda gpu)
    if(${label} IN_LIST arg_LABELS)
      add_dependencies(${label}_tests ${target})
    endif()
  endforeach()
  if(TESSERA_CUDA STREQUAL emulated)
    # The emulated GPU of every rank calls itself the same card.
    list(APPEND arg_ENVIRONMENT TESSERA_TEST_EXPECTS_GPU=1 NCCL_MULTI_RANK_GPU_ENABLE=1)
  endif()
  target_compile_definitions(${target} PRIVATE TESSERA_TEST_DATA="${PROJECT_SOURCE_DIR}/test/data")
  if(arg_RANKS OR arg_CUDA_RANKS)
    target_sources(${target} PRIVATE ${PROJECT_SOURCE_DIR}/test/support/mpi_main.cpp)
    target_link_libraries(${target} PRIVATE MPI::MPI_C)
  else()
    target_link_libraries(${target} PRIVATE GTest::gtest_main)
    add_test(NAME ${arg_NAME} COMMAND ${target})
    set_tests_properties(${arg_NAME} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}"
      ENVIRONMENT "OMP_NUM_THREADS=2;${arg_ENVIRONMENT}")
  endif()
  foreach(ranks IN LISTS arg_RANKS)
    if(ranks GREATER 4)
      list(REMOVE_ITEM arg_LABELS fast)
    endif()
    add_test(NAME ${arg_NAME}.${ranks}
             COMMAND ${PROJECT_SOURCE_DIR}/scripts/mpirun -n ${ranks} $<TARGET_FILE:${target}>)
    set_tests_properties(${arg_NAME}.${ranks} PROPERTIES TIMEOUT ${arg_TIMEOUT} PROCESSORS ${ranks}
      LABELS "${arg_LABELS}" ENVIRONMENT "OMP_NUM_THREADS=1;${arg_ENVIRONMENT}")
  endforeach()
  if(arg_CUDA_RANKS AND NOT TESSERA_CUDA STREQUAL off)
    add_dependencies(cuda_tests ${target})
    add_dependencies(gpu_tests ${target})
    foreach(ranks IN LISTS arg_CUDA_RANKS)
      add_test(NAME ${arg_NAME}_cuda.${ranks}
               COMMAND ${PROJECT_SOURCE_DIR}/scripts/mpirun -n ${ranks} $<TARGET_FILE:${target}>)
      set_tests_properties(${arg_NAME}_cuda.${ranks} PROPERTIES TIMEOUT 300 PROCESSORS ${ranks} LABELS "cuda;gpu"
        ENVIRONMENT "OMP_NUM_THREADS=1;TESSERA_TEST_DEVICE=cuda;${arg_ENVIRONMENT}")
    endforeach()
  endif()
endfunction()
