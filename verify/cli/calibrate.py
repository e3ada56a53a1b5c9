"""`verify calibrate`: confidences that hold what they say, and the file that gives them."""

from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import DataOptions, Model, OutputOptions

Method = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="temperature, vector, matrix, dirichlet, platt, beta, isotonic or histogram. The "
        "first two can be written with -o.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write the calibrated model (.onnx).",
        show_default=False,
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Draw reliability before and after (.png, .svg or .pdf).",
        show_default=False,
    ),
]
Split = Annotated[
    str,
    typer.Option(help="Share of the inputs to fit on; the others judge. Between 0 and 1."),
]
Bins = Annotated[int, typer.Option(help="Of the calibration error, of equal width.")]
Seed = Annotated[int, typer.Option(help="Of the split, the floor and the intervals.")]


def calibrate(
    model: Model,
    data: DataOptions,
    output_options: OutputOptions,
    method: Method = "temperature",
    output: Output = None,
    plot: Plot = None,
    split: Split = "0.5",
    bins: Bins = 15,
    seed: Seed = 0,
) -> int:
    """Fit a calibrator on one part of the data, and judge it on the other.

    Give data that the model was not trained on. The calibration error stands beside its floor: what
    a perfectly calibrated model would show by chance, with as many inputs. A temperature changes no
    prediction and no certified radius.

    \b
    Examples:
      verify calibrate examples/digits_dense.onnx --data digits
      verify calibrate net.onnx --data test.npz -o calibrated.onnx --plot reliability.png

    Exit code: 0 done, 2 bad input.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli.calibrating import Plan, calibrate_model
    from verify.cli.presenting import presenter

    plan = Plan.read(method, output, plot, split, bins, seed, model)
    calibrate_model(model, data, plan, presenter(output_options))
    return 0
