include(CMakePackageConfigHelpers)

get_property(layers GLOBAL PROPERTY TESSERA_LAYERS)
set(targets ${layers})
list(TRANSFORM targets PREPEND tessera_)
add_library(tessera_tessera INTERFACE)
add_library(Tessera::tessera ALIAS tessera_tessera)
set_target_properties(tessera_tessera PROPERTIES EXPORT_NAME tessera)
target_link_libraries(tessera_tessera INTERFACE ${targets})

set(exported ${targets} tessera_tessera)
if(TARGET tessera_cuda_toolkit)
  list(APPEND exported tessera_cuda_toolkit)
endif()
if(TARGET tessera_fortran)
  list(APPEND exported tessera_fortran)
  get_target_property(modules tessera_fortran Fortran_MODULE_DIRECTORY)
  install(FILES ${modules}/tessera.mod DESTINATION ${TESSERA_FORTRAN_MODULES})
  configure_file(cmake/tessera-fortran.pc.in ${CMAKE_CURRENT_BINARY_DIR}/tessera-fortran.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/tessera-fortran.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
install(TARGETS ${exported} EXPORT TesseraTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

# find_package(Tessera)
set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Tessera)
install(EXPORT TesseraTargets NAMESPACE Tessera:: DESTINATION ${config_dir})
configure_package_config_file(cmake/TesseraConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/TesseraConfig.cmake
  INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/TesseraConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/TesseraConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/TesseraConfigVersion.cmake
  DESTINATION ${config_dir})
if(TESSERA_NCCL)
  install(FILES cmake/FindNCCL.cmake DESTINATION ${config_dir})
endif()

# pkg-config: a static library names what it needs itself; a shared one knows.
set(pc_libs ${layers})
list(REVERSE pc_libs)  # who uses comes before who is used
list(TRANSFORM pc_libs PREPEND -ltessera_)
set(pc_cflags ${MPI_C_INCLUDE_DIRS})
list(TRANSFORM pc_cflags PREPEND -I)
list(APPEND pc_cflags -DOMPI_SKIP_MPICXX -DMPICH_SKIP_MPICXX)  # the C++ bindings of old MPI libraries are not used
set(pc_private -lyaml-cpp -ldnnl -lhwy -lfmt ${HDF5_C_LIBRARIES} ${OpenMP_CXX_FLAGS})
if(TESSERA_CUDA STREQUAL real)
  list(APPEND pc_private -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -lcublasLt)
  if(TESSERA_NCCL)
    list(APPEND pc_private ${NCCL_LIBRARY})
  endif()
  list(APPEND pc_private -ldl -lrt)
endif()
# Programs in C link with the C compiler.
set(pc_cxx ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
list(REMOVE_ITEM pc_cxx ${CMAKE_C_IMPLICIT_LINK_LIBRARIES})
list(REMOVE_DUPLICATES pc_cxx)
list(TRANSFORM pc_cxx PREPEND -l)
list(APPEND pc_private ${pc_cxx})
if(BUILD_SHARED_LIBS)
  set(pc_private "")
endif()
list(APPEND pc_libs ${pc_private} ${MPI_C_LIBRARIES} -pthread)
list(REMOVE_DUPLICATES pc_cflags)
list(JOIN pc_libs " " TESSERA_PC_LIBS)
list(JOIN pc_cflags " " TESSERA_PC_CFLAGS)
configure_file(cmake/tessera.pc.in ${CMAKE_CURRENT_BINARY_DIR}/tessera.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/tessera.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
