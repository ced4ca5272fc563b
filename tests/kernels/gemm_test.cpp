#include "cpu/dispatch.h"
#include "test.h"

using namespace tinygrad_nm;

TEST(gemm_small) {
    const double a[] = {1, 2, 3, 4}, b[] = {5, 6, 7, 8};
    double c[4];
    Gemm<double> g{1, 2, 2, 2, {a, 2, 1}, 0, {b, 2, 1}, 0, {c, 2, 1}, 0};
    kernels<double>().gemm(g);
    CHECK_EQUAL(c[0], 19.0);
    CHECK_EQUAL(c[3], 50.0);
}
