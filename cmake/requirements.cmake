# What the build needs, checked before anything else prints a log. Each message is one sentence that says how
# to mend it.
include(CheckLanguage)

string(REGEX MATCH "^(x86_64|amd64|AMD64)$" TINYGRAD_NM_X86 "${CMAKE_SYSTEM_PROCESSOR}")
if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux" OR NOT (TINYGRAD_NM_X86 OR CMAKE_SYSTEM_PROCESSOR STREQUAL "aarch64"))
  message(FATAL_ERROR
    "tinygrad_nm runs on 64-bit Linux on x86_64 or aarch64, not on ${CMAKE_SYSTEM_NAME} on ${CMAKE_SYSTEM_PROCESSOR}: use one of these systems.")
endif()

check_language(CXX)
if(NOT CMAKE_CXX_COMPILER)
  message(FATAL_ERROR
    "tinygrad_nm needs a C++20 compiler and found none: install g++ 11 or newer (Debian, Ubuntu: apt install g++) or set CXX.")
endif()
enable_language(CXX)

set(oldest_GNU 11)
set(oldest_Clang 14)
if(NOT DEFINED oldest_${CMAKE_CXX_COMPILER_ID})
  message(FATAL_ERROR
    "tinygrad_nm is built with g++ or clang++, not with ${CMAKE_CXX_COMPILER_ID}: set CXX=g++.")
elseif(CMAKE_CXX_COMPILER_VERSION VERSION_LESS oldest_${CMAKE_CXX_COMPILER_ID})
  message(FATAL_ERROR
    "tinygrad_nm needs C++20, which ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION} lacks: set CXX to g++ 11 or newer, or to clang++ 14 or newer.")
endif()

if(TINYGRAD_NM_BINDINGS)
  find_package(Python 3.10 COMPONENTS Interpreter QUIET)
  if(NOT Python_Interpreter_FOUND)
    message(FATAL_ERROR
      "tinygrad_nm needs Python 3.10 or newer: install it or set Python_EXECUTABLE, or set TINYGRAD_NM_BINDINGS=OFF for the kernels alone.")
  endif()
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "import sysconfig; print(sysconfig.get_path('include'), end='')"
    OUTPUT_VARIABLE python_include COMMAND_ERROR_IS_FATAL ANY)
  if(NOT EXISTS "${python_include}/Python.h")
    message(FATAL_ERROR
      "The headers of Python ${Python_VERSION} are missing (no ${python_include}/Python.h): install them (Debian, Ubuntu: apt install python3-dev).")
  endif()
  find_package(Python 3.10 COMPONENTS Interpreter Development.Module REQUIRED)
endif()
