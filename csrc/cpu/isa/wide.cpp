// The vector width and tiles of AVX-512 on compiler vectors at baseline flags: so that this shape of the body
// is tested on every machine. Chosen only by name.
#define TINYGRAD_NM_ISA wide
#define TINYGRAD_NM_VECTOR_BYTES 64
#define TINYGRAD_NM_TILE_ROWS 12
#include "cpu/isa/body.h"
