"""`verify check`: whether a certificate proves what it claims."""

from pathlib import Path
from typing import Annotated

import typer

Certificate = Annotated[
    Path, typer.Argument(metavar="CERT", help="Written by --certificate of another command.")
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX file that it is about.")]
Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="The VNN-LIB file that it is about.")]


def check(certificate: Certificate, model: Model, spec: Spec) -> int:
    """Check a certificate against the model and the property, trusting nothing that it says.

    Everything is computed anew, by a small program that shares no line with the rest and needs
    NumPy only: `python -m verify.check` is the same without this command line.

    \b
    Example:
      verify certify examples/digits_dense.onnx --eps 0.03 --limit 1 --certificate proofs
      verify check proofs/input_0.cert examples/digits_dense.onnx proofs/input_0.vnnlib

    Exit code: 0 accepted, 1 rejected, 2 a file cannot be read.
    """
    from verify.check.__main__ import main

    return main([str(certificate), str(model), str(spec)])
