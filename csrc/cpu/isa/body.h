// The body of every instruction set: included once by each file of this folder, after its macros
//   TINYGRAD_NM_ISA           name
//   TINYGRAD_NM_VECTOR_BYTES  bytes of a vector register
//   TINYGRAD_NM_TILE_ROWS     rows of the GEMM register tile (its columns are two vectors)
// Nothing here may leave a weak symbol in the object file: the linker would keep one copy for all instruction
// sets, perhaps the one that older processors cannot run. So: everything in anonymous namespaces (or static),
// C functions (expf, sqrt) rather than their std:: overloads, no std containers, algorithms or std::function.
#pragma once
#include "cpu/isa/vector.h"
#include "cpu/kernels.h"
//
#include "cpu/gemm_body.h"

namespace tinygrad_nm {
namespace {

template <class T>
constexpr KernelTable<T> kernel_table = {
    .gemm = gemm<T>,
};

}  // namespace

#define TINYGRAD_NM_JOIN_(a, b) a##b
#define TINYGRAD_NM_JOIN(a, b) TINYGRAD_NM_JOIN_(a, b)
#define TINYGRAD_NM_TEXT_(a) #a
#define TINYGRAD_NM_TEXT(a) TINYGRAD_NM_TEXT_(a)

extern const Kernels TINYGRAD_NM_JOIN(kernels_, TINYGRAD_NM_ISA) = {
    .name = TINYGRAD_NM_TEXT(TINYGRAD_NM_ISA),
    .f32 = kernel_table<float>,
    .f64 = kernel_table<double>,
};

}  // namespace tinygrad_nm
