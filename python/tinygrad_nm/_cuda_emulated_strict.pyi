from ._cuda_emulated import *
