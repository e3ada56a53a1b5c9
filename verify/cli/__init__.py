"""The command line: `verify certify`, `attack`, `radius`, `compare`, `info`.

Nothing here imports torch, NumPy or matplotlib before a command runs, so that `--help` is quick.
"""

from verify.cli.entry import main
from verify.cli.process import run

__all__ = ["main", "run"]
