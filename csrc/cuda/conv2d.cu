#include <stdexcept>

#include "cuda/kernels.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

template <class T>
void conv2d_forward(const Conv2dForward<T>&) {
    throw std::logic_error("conv2d_forward is not written yet");
}
template void conv2d_forward<float>(const Conv2dForward<float>&);
template void conv2d_forward<double>(const Conv2dForward<double>&);
template <class T>
void conv2d_backward_input(const Conv2dBackwardInput<T>&) {
    throw std::logic_error("conv2d_backward_input is not written yet");
}
template void conv2d_backward_input<float>(const Conv2dBackwardInput<float>&);
template void conv2d_backward_input<double>(const Conv2dBackwardInput<double>&);
template <class T>
void conv2d_backward_weight(const Conv2dBackwardWeight<T>&) {
    throw std::logic_error("conv2d_backward_weight is not written yet");
}
template void conv2d_backward_weight<float>(const Conv2dBackwardWeight<float>&);
template void conv2d_backward_weight<double>(const Conv2dBackwardWeight<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
