"""The kernels for GPUs on an emulated device; `strict`: whether it watches every access of memory."""

from ._kernels import *

strict: bool

def set_order(order: str, seed: int = 0) -> None: ...
def launches() -> dict[str, int]: ...
