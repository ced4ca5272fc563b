#include <stdexcept>

#include "cuda/kernels.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

template <class T>
void sgd_update(const SgdUpdate<T>&) {
    throw std::logic_error("sgd_update is not written yet");
}
template void sgd_update<float>(const SgdUpdate<float>&);
template void sgd_update<double>(const SgdUpdate<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
