"""How much of the products' inner loop is multiply-adds; and that cuda_sass.py counts right."""

from __future__ import annotations

from pathlib import Path

import pytest

import cuda_compiler as compiler
from cuda_sass import NVDISASM, disassembly, kernels, main_loop

BY_NVDISASM = """
        .section        .text._Zproduct,"ax",@progbits
.text._Zproduct:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   DEPBAR.LE SB0, 0x0 ;
        /*0020*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0030*/                   HFMA2.MMA R3, -RZ, RZ, 0, 0 ;
        /*0040*/                   FFMA R4, R8.reuse, R12, R4 ;
        /*0050*/               @P1 FFMA R5, R8, R13, R5 ;
        /*0060*/               @P0 BRA `(.L_x_1) ;
.L_x_2:
        /*0070*/                   FFMA R4, R8, R12, R4 ;
        /*0080*/                   FFMA R4, R8, R12, R4 ;
        /*0090*/                   FFMA R4, R8, R12, R4 ;
        /*00a0*/               @P0 BRA `(.L_x_2) ;
        /*00b0*/                   EXIT ;
.L_x_3:
        /*00c0*/                   BRA `(.L_x_3);
        .section        .text._Zcopy,"ax",@progbits
        /*0000*/                   EXIT ;
"""
BY_CUOBJDUMP = """
\t\tFunction : _Zproduct
        /*0000*/                   LDC R1, c[0x0][0x28] ;                             /* 0x00000a00ff017b82 */
        /*0010*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;                      /* 0x0000000000007b1d */
        /*0020*/                   DFMA R4, R8, R12, R4 ;                             /* 0x0000000c08047223 */
        /*0030*/              @!P0 BRA 0x10 ;                                         /* 0xfffffffffff48947 */
        /*0040*/                   EXIT ;                                             /* 0x000000000000794d */
"""


def test_the_loop_with_the_barrier_is_counted_from_target_to_branch() -> None:
    assert main_loop(BY_NVDISASM, "_Zproduct") == (2, 6)
    assert main_loop(BY_CUOBJDUMP, "_Zproduct") == (1, 3)


def test_a_loop_around_another_is_not_counted() -> None:
    outer = BY_NVDISASM.replace("@P0 BRA `(.L_x_2)", "@P0 BRA `(.L_x_1)")
    assert main_loop(outer, "_Zproduct") == (2, 6)


def test_a_kernel_without_such_a_loop_is_an_error() -> None:
    with pytest.raises(ValueError, match="_Zcopy has no loop with a barrier"):
        main_loop(BY_NVDISASM, "_Zcopy")


@pytest.mark.skipif(compiler.NVCC is None, reason="nvcc is not on the path")
@pytest.mark.skipif(NVDISASM is None, reason="nvdisasm is neither on the path nor installed as nvidia-cuda-nvdisasm")
@pytest.mark.parametrize("architecture", [80, 90])
def test_nine_tenths_of_the_loop_of_large_float32_products_are_multiply_adds(architecture: int, tmp_path: Path) -> None:
    ptx = compiler.to_ptx(compiler.ROOT / "csrc/cuda/gemm.cu", architecture, tmp_path)
    text = disassembly(compiler.to_cubin(ptx, architecture)[0])
    large = [name for name in kernels(text) if "gemm_tilesIf" in name and "ProductTileILi128ELi128E" in name]
    assert len(large) == 4  # a kernel for each layout of A and B
    for name in large:
        multiply_adds, all_of_them = main_loop(text, name)
        assert multiply_adds == 8 * 8 * 16, name  # of a thread, for a panel
        assert multiply_adds >= 0.9 * all_of_them, f"{name}: {multiply_adds} of {all_of_them}"
