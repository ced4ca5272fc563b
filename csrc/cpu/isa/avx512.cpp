#define TINYGRAD_NM_ISA avx512
#define TINYGRAD_NM_VECTOR_BYTES 64
#define TINYGRAD_NM_TILE_ROWS 12
#include "cpu/isa/body.h"
