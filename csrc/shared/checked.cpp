#include "shared/checked.h"

#include <stdexcept>
#include <string>

namespace tinygrad_nm {

void throw_size_overflow(const char* operation) {
    throw std::overflow_error(std::string(operation) +
                              ": a size exceeds 64-bit integers, use smaller shapes");
}

}  // namespace tinygrad_nm
