"""The command `tinygrad-nm`. Importing this imports neither typer nor rich: `info` works with NumPy alone."""

from __future__ import annotations

import sys
from importlib.util import find_spec

EXTRA = ("typer", "rich", "matplotlib", "safetensors")
INSTALL = "pip install 'tinygrad-nm[train]'"


def main() -> None:
    """Entry point. Exits with 2 when the extra `train` is needed and not installed, 1 when the engine cannot start."""
    try:
        import tinygrad_nm  # noqa: F401
    except ImportError as error:  # such as an instruction set that this processor lacks
        print(f"tinygrad-nm: {error}", file=sys.stderr)
        sys.exit(1)
    if sys.argv[1:] == ["info"]:
        from tinygrad_nm.cli.info import report

        print(report())
        return
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        print(
            f"tinygrad-nm: {', '.join(missing)} not installed, which every command but `info` needs: {INSTALL}",
            file=sys.stderr,
        )
        sys.exit(2)
    from tinygrad_nm.cli.app import app

    app()
