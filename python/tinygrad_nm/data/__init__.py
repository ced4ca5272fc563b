"""Data sets and the loader that feeds them to a network.

Every data set is a `DataSet`: `train` and `test`, each a `Split` of NumPy arrays `(inputs, targets)`. Inputs
are float32; class labels are int64, regression targets float32. Nothing here downloads anything: see
`tinygrad_nm.data.download`, which runs only on `tinygrad-nm data mnist`.
"""

from tinygrad_nm.data._digits import CONVENTIONS, Convention, cache_folder, digits, mnist
from tinygrad_nm.data._idx import read_idx
from tinygrad_nm.data._loader import Loader
from tinygrad_nm.data._problems import circle, peaks, peaks_surface, spiral
from tinygrad_nm.data._sets import DataSet, Split, held_out
from tinygrad_nm.data._shift import random_shift

__all__ = [
    "CONVENTIONS",
    "Convention",
    "DataSet",
    "Loader",
    "Split",
    "cache_folder",
    "circle",
    "digits",
    "held_out",
    "mnist",
    "peaks",
    "peaks_surface",
    "random_shift",
    "read_idx",
    "spiral",
]
