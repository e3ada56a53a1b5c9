"""`verify spatial`: rotations, shifts, scalings and lighting that fool the model."""

from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import ATTACK, DataOptions, Model, OutputOptions, RunOptions

FOUND = 1
Transform = Annotated[
    str,
    typer.Option(
        "--transform",
        metavar="TEXT",
        help="Ranges, low and high, in the order in which they act: rotation (degrees), "
        "translation, translation_x, translation_y (pixels), scale, scale_x, scale_y (factors), "
        "shear, shear_y, contrast (factor), brightness (input units).",
        show_default=False,
    ),
]
ImageShape = Annotated[
    str | None,
    typer.Option(
        "--image-shape",
        metavar="C,H,W",
        help="How the entries of an input are arranged. Default: as the model's input; of a row "
        "of numbers a square grey image.",
        show_default=False,
    ),
]
Search = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="grid, random, gradient, or auto: grid and random, then steps from the best of them.",
        rich_help_panel=ATTACK,
    ),
]
Smallest = Annotated[
    bool,
    typer.Option(
        "--smallest",
        help="Look for the smallest share of the ranges that fools: an upper bound on the "
        "robust angle.",
        rich_help_panel=ATTACK,
    ),
]
First = Annotated[
    bool,
    typer.Option(
        "--first",
        help="Be done with an image at its first find, instead of looking for its worst.",
        rich_help_panel=ATTACK,
    ),
]
Clip = Annotated[
    bool,
    typer.Option(
        "--clip/--no-clip",
        help="Clip to the input range after contrast and brightness.",
        rich_help_panel=ATTACK,
    ),
]
Seed = Annotated[
    int,
    typer.Option(help="Of the random points; each input has its own.", rich_help_panel=ATTACK),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Draw the images above what they became (.png, .svg or .pdf), found ones first.",
        show_default=False,
    ),
]


def spatial(
    model: Model,
    transform: Transform,
    data: DataOptions,
    output: OutputOptions,
    runs: RunOptions,
    image_shape: ImageShape = None,
    search: Search = "auto",
    smallest: Smallest = False,
    first: First = False,
    clip: Clip = True,
    seed: Seed = 0,
    plot: Plot = None,
) -> int:
    """Look for a transformation of each image that changes its class.

    Each image has its own worst rotation, shift, scale, contrast, brightness within the ranges of
    --transform; a pixel shows the old image at the transformed place, interpolated bilinearly about
    the centre, zero outside. What is found is replayed in ONNX Runtime before it counts. Finding
    nothing proves nothing.

    \b
    Examples:
      verify spatial examples/digits_conv.onnx --transform 'rotation(-30,30)' --limit 20
      verify spatial net.onnx --transform 'scale(0.9,1.1) rotation(-5,5)' --smallest --plot a.png

    Exit code: 0 none found, 1 some found, 2 bad input.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli.drawing import drawable
    from verify.cli.moving import Moving, draw, print_moves, spatial_job
    from verify.cli.presenting import presenter
    from verify.cli.running import Running
    from verify.cli.session import open_session, stamp
    from verify.errors import SettingError
    from verify.values.result import Verdict

    show = presenter(output)
    if data.norm != "inf":
        raise SettingError("--norm says nothing about transformations; leave it out")
    drawable(plot, "--plot")
    moving = Moving.read(transform, search, seed, smallest=smallest, first=first)
    session = open_session(model, data, 0.0)
    moving = moving.fitted(session, image_shape, clip=clip)
    show.say([*session.notes, *moving.notes])
    job = spatial_job(session, moving)
    with Running(runs, job, show) as running:
        done = running.collect()
        found = [move for move in done.results if move.verdict is Verdict.FALSIFIED]
        count = len(done.results)
        right = sum(move.label == move.predicted for move in done.results)
        clean = right / count if count else None
        attacked = 1 - len(found) / count if count else None
        summary = {
            "clean_accuracy": clean,
            "attacked_accuracy": attacked,
            "interrupted": done.interrupted,
            **running.summary(),
        }
        record = running.conclude(
            show.record("spatial", stamp(session), job.settings, done.results, summary)
        )
    print_moves(done.results, moving, show)
    show.publish(record, table=False)
    if clean is not None and attacked is not None:
        show.say([f"clean accuracy {clean:.2%}, attacked accuracy {attacked:.2%}"])
    if plot is not None:
        draw(done.results, moving, session, plot)
        show.say([f"drawn: {plot}"])
    return running.exit_code(done, FOUND if found else 0)
