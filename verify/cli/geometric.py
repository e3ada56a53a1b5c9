"""`verify geometric`: which rotations, shifts, scalings, ... change no prediction."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import DataOptions, Model, OutputOptions, RunOptions, Semantics

FALSIFIED, UNKNOWN = 1, 3
SEARCH = "Transformation"


@dataclass(frozen=True, slots=True)
class GeometricOptions:
    """What is done to the images, and how hard to try."""

    transform: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Ranges, applied from left to right: rotation (degrees), translation, "
            "translation_x, translation_y (pixels), scale, scale_x, scale_y (factors), shear_x, "
            "shear_y; then contrast (factor), brightness (added).",
            show_default=False,
            rich_help_panel=SEARCH,
        ),
    ] = None
    flow: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS",
            help="Instead of a transformation: every pixel may look this far away, each its own "
            "way, along either axis.",
            show_default=False,
            rich_help_panel=SEARCH,
        ),
    ] = None
    smooth: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS",
            help="With --flow: by how much neighbours' displacements may differ. Default: any.",
            show_default=False,
            rich_help_panel=SEARCH,
        ),
    ] = None
    pixel_noise: Annotated[
        str,
        typer.Option(
            metavar="R",
            help="Each pixel may move by this much on top; fractions such as 1/255 too.",
            rich_help_panel=SEARCH,
        ),
    ] = "0"
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="forward, crown, crown-ibp or ibp: how one box of parameters is bounded; with "
            "--flow ibp, crown-ibp, crown, alpha-crown or auto. Default: forward; auto.",
            show_default=False,
            rich_help_panel=SEARCH,
        ),
    ] = ""
    split: Annotated[
        bool,
        typer.Option(
            "--split/--no-split",
            help="Whether the range is split where bounds are too loose.",
            rich_help_panel=SEARCH,
        ),
    ] = True
    most_boxes: Annotated[
        int,
        typer.Option(help="Boxes bounded per image at most.", rich_help_panel=SEARCH),
    ] = 100_000
    tolerance: Annotated[
        str | None,
        typer.Option(
            help="After a counterexample, the search goes on below it until certified and "
            "attacked share differ by less than this, relatively; 'none' stops at the first.",
            rich_help_panel=SEARCH,
        ),
    ] = "0.01"
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS",
            help="Per image. Default: none.",
            show_default=False,
            rich_help_panel=SEARCH,
        ),
    ] = None
    attack: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="auto, grid, random, gradient, or none: looks for counterexamples first; ONNX "
            "Runtime decides. With --flow, auto or none.",
            rich_help_panel=SEARCH,
        ),
    ] = "auto"
    seed: Annotated[
        int, typer.Option(help="Of the attack's random numbers.", rich_help_panel=SEARCH)
    ] = 0
    semantics: Semantics = "float32"


Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Certified and attacked accuracy over the range (.png, .svg or .pdf).",
        show_default=False,
    ),
]
Strip = Annotated[
    Path | None,
    typer.Option(
        "--strip",
        metavar="FILE",
        help="Images, with the ends of their certified range and the first counterexample.",
        show_default=False,
    ),
]


def geometric(
    model: Model,
    options: GeometricOptions,
    data: DataOptions,
    output: OutputOptions,
    runs: RunOptions,
    plot: Plot = None,
    strip: Strip = None,
) -> int:
    """Decide for each image whether its class holds under every transformation of a range.

    With --flow: under every field of displacements, each pixel's own.

    "verified" is a proof for every parameter of the range, for grid_sample (bilinear, zero padding)
    in float32 or float64 and every float32 execution of the file. A share s of the range is the
    range shrunk towards what changes nothing: of rotation(-30,30), 0.5 is -15..15 degrees. No
    transformation up to the certified share changes the class; one at the attacked share does.

    \b
    Examples:
      verify geometric examples/digits_conv.onnx --transform "rotation(-5,5)" --limit 10
      verify geometric net.onnx --data test.csv --transform "scale(0.95,1.05) rotation(-2,2)"
      verify geometric net.onnx --data test.npz --transform "translation(-1,1) contrast(0.9,1.1)"
      verify geometric examples/digits_conv.onnx --flow 0.1 --smooth 0.02 --limit 10

    Exit code: 0 all verified, 1 some falsified, 2 bad input, 3 some unknown (and none falsified).
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli.presenting import presenter
    from verify.cli.transforming import Claim, certify_all, draw, totals
    from verify.values.result import Verdict

    show = presenter(output)
    claim = Claim.read(options, pictures=(plot, strip))
    run = certify_all(model, data, claim, runs, show)
    results = run.done.results
    summary = {**totals(results), "interrupted": run.done.interrupted, **run.running.summary()}
    record = show.record("geometric", run.stamp, run.settings, results, summary)
    show.publish(record)
    if results:
        for name, value in totals(results).items():
            remark = record.remark if "certified" in name else ""
            show.say([f"{name.replace('_', ' ')}{remark}: {value:g}"])
        show.say(draw(run, plot, strip))
    verdicts = {result.verdict for result in results}
    code = UNKNOWN if Verdict.UNKNOWN in verdicts else 0
    return run.running.exit_code(run.done, FALSIFIED if Verdict.FALSIFIED in verdicts else code)
