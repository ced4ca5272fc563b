#include <stdexcept>

#include "cuda/kernels.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

template <class T>
void max_pool2d_forward(const MaxPool2dForward<T>&) {
    throw std::logic_error("max_pool2d_forward is not written yet");
}
template void max_pool2d_forward<float>(const MaxPool2dForward<float>&);
template void max_pool2d_forward<double>(const MaxPool2dForward<double>&);
template <class T>
bool max_pool2d_backward(const MaxPool2dAtTaps<T>&) {
    throw std::logic_error("max_pool2d_backward is not written yet");
}
template bool max_pool2d_backward<float>(const MaxPool2dAtTaps<float>&);
template bool max_pool2d_backward<double>(const MaxPool2dAtTaps<double>&);
template <class T>
bool max_pool2d_gather(const MaxPool2dAtTaps<T>&) {
    throw std::logic_error("max_pool2d_gather is not written yet");
}
template bool max_pool2d_gather<float>(const MaxPool2dAtTaps<float>&);
template bool max_pool2d_gather<double>(const MaxPool2dAtTaps<double>&);
template <class T>
void avg_pool2d_forward(const AvgPool2dForward<T>&) {
    throw std::logic_error("avg_pool2d_forward is not written yet");
}
template void avg_pool2d_forward<float>(const AvgPool2dForward<float>&);
template void avg_pool2d_forward<double>(const AvgPool2dForward<double>&);
template <class T>
void avg_pool2d_backward(const AvgPool2dBackward<T>&) {
    throw std::logic_error("avg_pool2d_backward is not written yet");
}
template void avg_pool2d_backward<float>(const AvgPool2dBackward<float>&);
template void avg_pool2d_backward<double>(const AvgPool2dBackward<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
