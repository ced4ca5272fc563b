# The emulated CUDA device: each .cu file compiled by the host's compiler for each architecture, once to run fast, and
# once with every access of memory reported to the device (csrc/cuda/emulation/sanitizer.cpp).
option(TINYGRAD_NM_COVERAGE "Count lines of CUDA kernels in the strict module, in place of watching memory" OFF)

set(machine_sources_FAST
  csrc/cuda/emulation/block.cpp
  csrc/cuda/emulation/fibre.cpp
  csrc/cuda/emulation/machine.cpp
  csrc/cuda/emulation/memory.cpp
  csrc/cuda/emulation/site.cpp)
set(machine_sources_STRICT
  ${machine_sources_FAST}
  csrc/cuda/emulation/sanitizer.cpp
  csrc/cuda/emulation/watch.cpp)

set(definitions_FAST TINYGRAD_NM_EMULATED)
set(definitions_STRICT TINYGRAD_NM_EMULATED TINYGRAD_NM_STRICT)
# The compiler reports accesses as the source has them, and calls stay where they are, for the lines in messages.
set(kernel_flags_STRICT
  -fsanitize=thread,alignment,bounds,integer-divide-by-zero
  -fno-threadsafe-statics -fno-tree-vectorize -fno-optimize-sibling-calls
  $<$<NOT:$<CONFIG:Debug,RelWithDebInfo>>:-g1>
  $<$<CXX_COMPILER_ID:GNU>:-fno-crossjumping>
  $<$<CXX_COMPILER_ID:GNU>:-fno-tree-tail-merge>)
if(TINYGRAD_NM_COVERAGE)  # watching the counters as well would take several times as long
  set(machine_sources_STRICT ${machine_sources_FAST})
  set(definitions_STRICT ${definitions_FAST})
  set(kernel_flags_STRICT --coverage -fno-early-inlining)
endif()

foreach(mode FAST STRICT)
  add_library(emulated_${mode} INTERFACE)
  target_include_directories(emulated_${mode} INTERFACE csrc)
  target_compile_definitions(emulated_${mode} INTERFACE ${definitions_${mode}})
  target_compile_options(emulated_${mode} INTERFACE ${flags} -Wall -Wextra -Wno-unknown-pragmas)
  add_library(emulated_machine_${mode} OBJECT ${machine_sources_${mode}})
  target_link_libraries(emulated_machine_${mode} PRIVATE emulated_${mode})
endforeach()

# add_emulated_kernels(<target> <FAST or STRICT> <.cu file>...): gives a module or a program kernels, and the device.
function(add_emulated_kernels target mode)
  set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX)
  # The kernels come last: of an inline function that others have too, the linker keeps the copy that is not watched.
  target_link_libraries(${target} PRIVATE
    emulated_${mode} $<TARGET_OBJECTS:emulated_machine_${mode}> ${CMAKE_DL_LIBS})
  foreach(architecture 750 800)
    add_library(${target}_${architecture} OBJECT ${ARGN})
    target_link_libraries(${target}_${architecture} PRIVATE emulated_${mode})
    target_compile_definitions(${target}_${architecture} PRIVATE __CUDA_ARCH__=${architecture})
    target_compile_options(${target}_${architecture} PRIVATE
      -x c++ $<$<NOT:$<CONFIG:Debug>>:-O2> ${kernel_flags_${mode}})
    target_link_libraries(${target} PRIVATE $<TARGET_OBJECTS:${target}_${architecture}>)
  endforeach()
  if(TINYGRAD_NM_COVERAGE AND mode STREQUAL STRICT)
    target_link_options(${target} PRIVATE --coverage)
  endif()
endfunction()

# Without extras of pybind11: line tables must stay in the strict module.
function(add_emulated_module name mode)
  pybind11_add_module(${name} MODULE NO_EXTRAS
    csrc/shared/checked.cpp
    csrc/shared/dispatch.cpp
    csrc/shared/dropout.cpp
    csrc/shared/loss.cpp
    csrc/cuda/emulation/isas.cpp
    csrc/cuda/emulation/module.cpp
    ${bindings_sources})
  compile_together(${name})
  target_compile_definitions(${name} PRIVATE TINYGRAD_NM_MODULE=${name})
  add_emulated_kernels(${name} ${mode} ${cuda_sources})
  install(TARGETS ${name} LIBRARY DESTINATION tinygrad_nm)
endfunction()

if(TINYGRAD_NM_BINDINGS)
  add_emulated_module(_cuda_emulated FAST)
  if(NOT CMAKE_BUILD_TYPE MATCHES "^(Debug|RelWithDebInfo)$")
    pybind11_strip(_cuda_emulated)
  endif()
  add_emulated_module(_cuda_emulated_strict STRICT)
endif()

# The device's own tests: emulation_tests, strict, and emulation_tests_fast.
if(TINYGRAD_NM_TESTS)
  foreach(test emulation_tests:STRICT emulation_tests_fast:FAST)
    string(REPLACE ":" ";" test ${test})
    list(POP_BACK test mode)
    add_executable(${test} tests/cuda/main.cpp)
    target_include_directories(${test} PRIVATE tests)
    add_emulated_kernels(${test} ${mode} ${emulation_test_sources})
    foreach(architecture 750 800)
      target_include_directories(${test}_${architecture} PRIVATE tests)
    endforeach()
    add_test(NAME ${test} COMMAND ${test})
  endforeach()
endif()
