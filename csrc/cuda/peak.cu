#include <stdexcept>

#include "cuda/kernels.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

template <class T>
void peak_arithmetic(const PeakArithmetic<T>&) {
    throw std::logic_error("peak_arithmetic is not written yet");
}
template void peak_arithmetic<float>(const PeakArithmetic<float>&);
template void peak_arithmetic<double>(const PeakArithmetic<double>&);
template <class T>
void peak_memory(const PeakMemory<T>&) {
    throw std::logic_error("peak_memory is not written yet");
}
template void peak_memory<float>(const PeakMemory<float>&);
template void peak_memory<double>(const PeakMemory<double>&);
template <class T>
void peak_read(const PeakRead<T>&) {
    throw std::logic_error("peak_read is not written yet");
}
template void peak_read<float>(const PeakRead<float>&);
template void peak_read<double>(const PeakRead<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
