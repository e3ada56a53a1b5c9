"""`verify radius`: a bracket for each input's robustness radius."""

from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import (
    AttackOptions,
    BoundOptions,
    DataOptions,
    Model,
    OutputOptions,
    RunOptions,
    Semantics,
)

Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Draw the brackets and their histograms (.png, .svg or .pdf).",
        show_default=False,
    ),
]
Largest = Annotated[
    str | None,
    typer.Option(
        "--max-radius",
        metavar="R",
        help="Nothing is searched beyond it. Default: the width of the input range.",
        show_default=False,
    ),
]
Tolerance = Annotated[
    str,
    typer.Option(help="Relative width at which the search for the certified radius stops."),
]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="Close each bracket to --tolerance by complete search (norm inf only).",
    ),
]


def radius(
    model: Model,
    data: DataOptions,
    bounds: BoundOptions,
    attacks: AttackOptions,
    output: OutputOptions,
    runs: RunOptions,
    plot: Plot = None,
    max_radius: Largest = None,
    tolerance: Tolerance = "0.01",
    exact: Exact = False,
    semantics: Semantics = "float32",
) -> int:
    """Bracket each input's robustness radius: certified from below, attacked from above.

    No input within the certified radius changes the class (proved); one at the attacked radius
    does (replayed in ONNX Runtime). The truth lies between. Misclassified inputs have radius 0.

    \b
    Examples:
      verify radius examples/digits_dense.onnx --limit 10
      verify radius net.onnx --data test.npz --norm 2 --limit 100 --plot brackets.png --csv r.csv

    Exit code: 0 done, 2 bad input.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli.bracketing import Search, bracket_all
    from verify.cli.presenting import presenter
    from verify.cli.session import stamp

    show = presenter(output)
    search = Search.read(max_radius, tolerance, pictures=(plot,), exact=exact, semantics=semantics)
    run = bracket_all(model, data, bounds, attacks, search, runs, show, "radius")
    done = run.done
    record = show.record(
        "radius",
        stamp(run.session),
        run.settings,
        done.results,
        {"interrupted": done.interrupted, **run.running.summary()},
    )
    show.publish(record)
    if plot is not None and done.results:
        run.draw_brackets(plot)
        show.say([f"drawn: {plot}"])
    return run.running.exit_code(done, 0)
