"""`verify prop`: a VNN-LIB property of an ONNX file, decided."""

from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import MODEL_HELP, OutputOptions, RunOptions, Semantics

Model = Annotated[Path | None, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
Spec = Annotated[
    Path | None,
    typer.Argument(metavar="SPEC", help="Property (.vnnlib or .vnnlib.gz).", show_default=False),
]
List = Annotated[
    Path | None,
    typer.Option(
        "--list",
        metavar="FILE",
        help="Instead of MODEL and SPEC: a CSV file of lines model,property,seconds.",
        show_default=False,
    ),
]
Timeout = Annotated[
    str | None,
    typer.Option(
        metavar="SECONDS",
        help="For all of it; with --list for each, in place of its own. Default: none.",
        show_default=False,
    ),
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
Csv = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="With --list: one line each.", show_default=False),
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
Threads = Annotated[
    int | None, typer.Option(help="Cores to use. Default: OMP_NUM_THREADS, or all.")
]
Seed = Annotated[int, typer.Option(help="Of the attacks' random numbers.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only the answer, without the counterexample.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]


def prop(
    runs: RunOptions,
    model: Model = None,
    spec: Spec = None,
    instances: List = None,
    timeout: Timeout = None,
    out: Out = None,
    json: Json = None,
    csv: Csv = None,
    certificate: Certificate = None,
    memory: Memory = "4GiB",
    threads: Threads = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    debug: Debug = False,
    semantics: Semantics = "float32",
) -> int:
    """Decide a VNN-LIB property: whether some input of it gives an unsafe output.

    Prints "unsat" (no input does, proved for every float32 execution of the file), "sat" and the
    counterexample (replayed in ONNX Runtime), "timeout" or "unknown". What was chosen, and why, is
    said on standard error.

    \b
    Examples:
      verify prop net.onnx property.vnnlib --timeout 60
      verify prop net.onnx.gz property.vnnlib.gz --out result.txt --json result.json
      verify prop --list instances.csv --run acasxu --workers 4 --csv results.csv

    Exit code: 0 unsat, 1 sat, 2 bad input, 3 unknown or timeout.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli import parsing
    from verify.errors import SettingError
    from verify.values.semantics import semantics_of

    parsing.threads(threads)
    kind = semantics_of(semantics)
    if not kind.executed and certificate is not None:
        raise SettingError(f"--certificate is about float32; leave out --semantics {semantics}")
    if instances is not None:
        from verify.cli.listing import prove_list

        if model is not None or out is not None or certificate is not None:
            raise SettingError("--list stands alone: leave out MODEL, SPEC, --out, --certificate")
        output = OutputOptions(json=json, csv=csv, quiet=quiet, debug=debug)
        return prove_list(instances, timeout, memory, seed, output, runs, kind)
    if model is None or spec is None:
        raise SettingError("give MODEL and SPEC, or --list FILE")
    if (csv, runs.run, runs.workers, runs.scheduler) != (None,) * 4:
        raise SettingError("--csv, --run, --workers and --scheduler go with --list; write one")
    from verify.cli.proving import Asked, prove

    asked = Asked(model, spec, timeout, memory, seed, certificate, kind)
    return prove(asked, out=out, json=json, quiet=quiet)
