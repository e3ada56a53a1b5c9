"""`verify compare`: certified, attacked and clean accuracy over a grid of radii."""

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
from verify.cli.radius import Largest, Tolerance

Grid = Annotated[
    str | None,
    typer.Option(
        "--eps-grid",
        metavar="GRID",
        help="FIRST:LAST:COUNT, or radii with commas between. Default: from 0 to the largest "
        "radius found.",
        show_default=False,
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Draw the two curves, the gap between them shaded (.png, .svg or .pdf).",
        show_default=False,
    ),
]
Histogram = Annotated[
    Path | None,
    typer.Option(
        "--histogram",
        metavar="FILE",
        help="Draw the brackets and their histograms.",
        show_default=False,
    ),
]


def compare(
    model: Model,
    data: DataOptions,
    bounds: BoundOptions,
    attacks: AttackOptions,
    output: OutputOptions,
    runs: RunOptions,
    eps_grid: Grid = None,
    plot: Plot = None,
    histogram: Histogram = None,
    max_radius: Largest = None,
    tolerance: Tolerance = "0.01",
    semantics: Semantics = "float32",
) -> int:
    """Compare certified, attacked and clean accuracy over a grid of radii.

    Each input's radius is bracketed once, as `verify radius` does; the curves are counted from the
    brackets. At each radius the true robust accuracy lies between certified (a lower bound) and
    attacked (an upper bound). The record holds the brackets, its summary the curves.

    \b
    Examples:
      verify compare examples/digits_dense.onnx --limit 50 --plot curves.png
      verify compare net.onnx --data test.npz --eps-grid 0:0.1:11 --histogram brackets.png

    Exit code: 0 done, 2 bad input.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli import parsing
    from verify.cli.bracketing import Search, bracket_all
    from verify.cli.curves import count_accuracy, default_grid, print_curves
    from verify.cli.presenting import presenter
    from verify.cli.session import stamp
    from verify.report import plot_accuracy

    show, grid = presenter(output), parsing.grid(eps_grid)
    search = Search.read(max_radius, tolerance, pictures=(plot, histogram), semantics=semantics)
    run = bracket_all(model, data, bounds, attacks, search, runs, show, "compare")
    done = run.done
    summary: dict[str, object] = {"interrupted": done.interrupted, **run.running.summary()}
    curves = None
    if done.results:
        radii = grid or default_grid(done.results)
        curves = count_accuracy(done.results, radii, search.semantics)
        summary |= {
            "clean_accuracy": curves.clean,
            "curves": {
                "eps": curves.eps,
                "certified": curves.certified,
                "attacked": curves.attacked,
            },
        }
    settings = {**run.settings, "eps_grid": eps_grid}
    record = show.record("compare", stamp(run.session), settings, done.results, summary)
    show.publish(record, table=False)
    if curves is not None:
        print_curves(curves, show)
        if plot is not None:
            plot_accuracy(curves, plot, model=run.title, norm=run.norm)
        if histogram is not None:
            run.draw_brackets(histogram)
        show.say([f"drawn: {path}" for path in (plot, histogram) if path is not None])
    return run.running.exit_code(done, 0)
