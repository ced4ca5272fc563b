# The emulated CUDA device: each .cu file compiled by the host's compiler for each architecture, once to run fast, and
# once with every access of memory reported to the device (csrc/cuda/emulation/watch.cpp).
set(emulation_sources
  csrc/shared/checked.cpp
  csrc/shared/dispatch.cpp
  csrc/shared/dropout.cpp
  csrc/shared/loss.cpp
  csrc/cuda/emulation/fibre.cpp
  csrc/cuda/emulation/machine.cpp
  csrc/cuda/emulation/memory.cpp
  csrc/cuda/emulation/isas.cpp
  csrc/cuda/emulation/module.cpp)

# add_emulated(<module> [STRICT])
function(add_emulated name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "STRICT" "" "")
  set(sources ${emulation_sources} ${bindings_sources})
  set(definitions TINYGRAD_NM_EMULATED TINYGRAD_NM_MODULE=${name})
  set(watch "")
  set(extras "")
  if(arg_STRICT)
    list(APPEND sources csrc/cuda/emulation/watch.cpp)
    list(APPEND definitions TINYGRAD_NM_STRICT)
    set(watch -fsanitize=thread,alignment -g1)
    set(extras NO_EXTRAS)  # not stripped: its errors name source lines
  endif()
  pybind11_add_module(${name} MODULE ${extras} ${sources})
  target_include_directories(${name} PRIVATE csrc)
  target_compile_definitions(${name} PRIVATE ${definitions})
  target_compile_options(${name} PRIVATE ${flags} -Wall -Wextra -Wno-unknown-pragmas)
  foreach(architecture 750 800)
    add_library(${name}_${architecture} OBJECT ${cuda_sources})
    set_source_files_properties(${cuda_sources} PROPERTIES LANGUAGE CXX)
    target_include_directories(${name}_${architecture} PRIVATE csrc)
    target_compile_definitions(${name}_${architecture} PRIVATE ${definitions} __CUDA_ARCH__=${architecture})
    target_compile_options(${name}_${architecture} PRIVATE
      -x c++ -O2 ${flags} ${watch} -Wall -Wextra -Wno-unknown-pragmas)
    target_link_libraries(${name} PRIVATE $<TARGET_OBJECTS:${name}_${architecture}>)
  endforeach()
  target_link_libraries(${name} PRIVATE ${CMAKE_DL_LIBS})
  install(TARGETS ${name} LIBRARY DESTINATION tinygrad_nm)
endfunction()

add_emulated(_cuda_emulated)
add_emulated(_cuda_emulated_strict STRICT)
