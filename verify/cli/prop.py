"""`verify prop`: a VNN-LIB property of an ONNX file, decided."""

from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import Model

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="Property (.vnnlib or .vnnlib.gz).")]
Timeout = Annotated[
    str | None,
    typer.Option(metavar="SECONDS", help="For all of it. Default: none.", show_default=False),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write the answer and the counterexample as the competition wants them.",
        show_default=False,
    ),
]
Json = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Write a record; '-' for standard output instead of the answer.",
        show_default=False,
    ),
]
Certificate = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="If it is unsat, write a certificate of that; see 'verify check'.",
        show_default=False,
    ),
]
Memory = Annotated[
    str, typer.Option(metavar="SIZE", help="That the process may take: 2GB, 1500MB.")
]
Seed = Annotated[int, typer.Option(help="Of the attacks' random numbers.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only the answer, without the counterexample.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]


def prop(
    model: Model,
    spec: Spec,
    timeout: Timeout = None,
    out: Out = None,
    json: Json = None,
    certificate: Certificate = None,
    memory: Memory = "4GiB",
    seed: Seed = 0,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Decide a VNN-LIB property: whether some input of it gives an unsafe output.

    Prints "unsat" (no input does, proved for every float32 execution of the file), "sat" and the
    counterexample (replayed in ONNX Runtime), "timeout" or "unknown". What was chosen, and why, is
    said on standard error.

    \b
    Examples:
      verify prop net.onnx property.vnnlib --timeout 60
      verify prop net.onnx.gz property.vnnlib.gz --out result.txt --json result.json

    Exit code: 0 unsat, 1 sat, 2 bad input, 3 unknown or timeout.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli.proving import Asked, prove

    asked = Asked(model, spec, timeout, memory, seed, certificate)
    return prove(asked, out=out, json=json, quiet=quiet)
