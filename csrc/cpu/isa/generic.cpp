// Baseline instructions of the processor family: SSE2 or NEON.
#define TINYGRAD_NM_ISA generic
#define TINYGRAD_NM_VECTOR_BYTES 16
#if defined(__aarch64__)
#define TINYGRAD_NM_TILE_ROWS 8  // 32 vector registers
#else
#define TINYGRAD_NM_TILE_ROWS 4  // 16 vector registers, one lost to the product without a fused multiply-add
#endif
#include "cpu/isa/body.h"
