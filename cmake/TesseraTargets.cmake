include(GNUInstallDirs)

# An installed tree can be moved; whoever sets CMAKE_INSTALL_RPATH (Spack does) knows better.
if(NOT DEFINED CMAKE_INSTALL_RPATH)
  set(CMAKE_INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
  set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)
endif()

# Compile settings shared by every target of the project; never exported to consumers.
add_library(tessera_settings INTERFACE)
target_compile_features(tessera_settings INTERFACE cxx_std_20)
target_compile_options(tessera_settings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Wshadow>
  # Same bits on every build of one instruction set: no contraction that depends on the optimizer's mood.
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wshadow,-ffp-contract=off;--expt-relaxed-constexpr>
  $<$<AND:$<BOOL:${TESSERA_WARNINGS_AS_ERRORS}>,$<COMPILE_LANGUAGE:C,CXX>>:-Werror>
  $<$<AND:$<BOOL:${TESSERA_WARNINGS_AS_ERRORS}>,$<COMPILE_LANGUAGE:CUDA>>:-Werror=all-warnings>)
if(TESSERA_SANITIZE)
  target_compile_options(tessera_settings INTERFACE -fsanitize=${TESSERA_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=undefined)
  target_link_options(tessera_settings INTERFACE -fsanitize=${TESSERA_SANITIZE})
  if(NOT BUILD_SHARED_LIBS)
    add_library(tessera_keep_modules OBJECT ${PROJECT_SOURCE_DIR}/test/support/keep_modules.cpp)
    target_link_libraries(tessera_settings INTERFACE $<TARGET_OBJECTS:tessera_keep_modules>)
  endif()
endif()

# Linkers without version scripts (macOS) export what the compiler leaves visible.
set(tessera_map ${CMAKE_CURRENT_LIST_DIR}/tessera.map)
include(CheckLinkerFlag)
check_linker_flag(CXX LINKER:--version-script=${tessera_map} TESSERA_HAVE_VERSION_SCRIPTS)

# tessera_library_properties(target): what all installed libraries have in common.
function(tessera_library_properties target)
  set_target_properties(${target} PROPERTIES
    POSITION_INDEPENDENT_CODE ON
    DEFINE_SYMBOL ""  # static and shared builds compile the same objects, so the compiler cache serves both
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  if(BUILD_SHARED_LIBS AND TESSERA_HAVE_VERSION_SCRIPTS)
    target_link_options(${target} PRIVATE LINKER:--version-script=${tessera_map})
    set_target_properties(${target} PROPERTIES LINK_DEPENDS ${tessera_map})
  endif()
endfunction()

set_property(GLOBAL PROPERTY TESSERA_LAYERS "")

# tessera_add_layer(comm SOURCES a.cpp … USES base device [PRIVATE hwy::hwy …] [PUBLIC MPI::MPI_C …])
#
# Adds the library tessera_<name>, its alias Tessera::<name>, and links the layers that it may use. The include linter
# (scripts/lint-includes) checks the same edges in the sources.
function(tessera_add_layer name)
  cmake_parse_arguments(arg "" "" "SOURCES;USES;PRIVATE;PUBLIC" ${ARGN})
  add_library(tessera_${name} ${arg_SOURCES})
  add_library(Tessera::${name} ALIAS tessera_${name})
  tessera_library_properties(tessera_${name})
  set_target_properties(tessera_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(tessera_${name}
    PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
    PRIVATE ${PROJECT_SOURCE_DIR}/lib)
  target_compile_features(tessera_${name} PUBLIC cxx_std_20)
  target_link_libraries(tessera_${name} PRIVATE $<BUILD_INTERFACE:tessera_settings>)
  foreach(used IN LISTS arg_USES)
    target_link_libraries(tessera_${name} PUBLIC tessera_${used})
  endforeach()
  target_link_libraries(tessera_${name} PUBLIC ${arg_PUBLIC} PRIVATE ${arg_PRIVATE})
  set_property(GLOBAL APPEND PROPERTY TESSERA_LAYERS ${name})
endfunction()
