"""`python -m tinygrad_nm.cli`: the same as `tinygrad-nm`."""

from tinygrad_nm.cli import main

main()
