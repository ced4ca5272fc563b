#define TINYGRAD_NM_ISA avx2
#define TINYGRAD_NM_VECTOR_BYTES 32
#define TINYGRAD_NM_TILE_ROWS 6
#include "cpu/isa/body.h"
