#include "shared/dropout.h"

#include <stdexcept>
#include <string>

#include "shared/dispatch.h"

namespace tinygrad_nm {

template <class T>
void dropout(const Dropout<T>& a) {
    constexpr int64_t words = int64_t(1) << 32;
    if (!(a.p >= 0 && a.p <= 1))
        throw std::invalid_argument("dropout: p is " + std::to_string(a.p) +
                                    ", use a probability from 0 to 1");
    if (a.first_example < 0 || a.first_example > words - a.examples)
        throw std::invalid_argument(
            "dropout: examples " + std::to_string(a.first_example) + " and the " +
            std::to_string(a.examples) +
            " from it on do not fit a 32-bit counter, use a first_example from 0 to " +
            std::to_string(words - a.examples));
    if (a.elements > 4 * words)
        throw std::invalid_argument("dropout: " + std::to_string(a.elements) +
                                    " elements an example exceed 2^34, use smaller examples");
    kernels<T>().dropout(a);
}

template void dropout<float>(const Dropout<float>&);
template void dropout<double>(const Dropout<double>&);

}  // namespace tinygrad_nm
