"""`verify transfer`: how often what fools one model fools another."""

from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import ATTACK, DataOptions, OutputOptions, Radius, RunOptions

Models = Annotated[
    list[Path], typer.Argument(metavar="MODEL...", help="Two or more ONNX files (.onnx, .onnx.gz).")
]
Attacks = Annotated[
    str,
    typer.Option(
        "--attack",
        metavar="LIST",
        help="With commas between: names as for verify attack, and mifgsm, nifgsm with -di, -ti "
        "or -di-ti behind (images only).",
        rich_help_panel=ATTACK,
    ),
]
Seed = Annotated[int, typer.Option(help="Of the noise and the intervals.", rich_help_panel=ATTACK)]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Draw the matrices, one panel an attack (.png, .svg or .pdf).",
        show_default=False,
    ),
]


def transfer(
    models: Models,
    eps: Radius,
    data: DataOptions,
    output: OutputOptions,
    runs: RunOptions,
    attack: Attacks = "ifgsm,mifgsm,pgd",
    seed: Seed = 0,
    plot: Plot = None,
) -> int:
    """Count how often examples made against one model fool another.

    Each cell is the share of the inputs that both models classify correctly whose example against
    the row's model was found and fools the column's; ONNX Runtime decides both. The diagonal is the
    white-box success. Rows "mean of others" attack the mean logits of all models but the column's;
    rows "noise" show random noise of the same norm. Intervals are 95 % bootstraps of the inputs.

    \b
    Examples:
      verify transfer examples/digits_dense.onnx examples/digits_conv.onnx --eps 0.15 --plot t.png
      verify transfer a.onnx b.onnx c.onnx --data test.npz --eps 8/255 --attack mifgsm-di,pgd

    Exit code: 0 done, 2 bad input.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli import parsing
    from verify.cli.drawing import drawable
    from verify.cli.presenting import presenter
    from verify.cli.running import Running
    from verify.cli.transferring import Suite, attacks_named, draw, print_matrices, rows_of

    show = presenter(output)
    drawable(plot, "--plot")
    radius = parsing.radius(eps)
    suite = Suite.open(models, data, radius)
    chosen = attacks_named(attack, suite.side)
    show.say(suite.notes)
    settings = {
        **suite.session.settings,
        "eps": radius,
        "attack": attack,
        "seed": seed,
        "models": suite.stamps(),
    }
    work, job = suite.job(settings, chosen, seed)
    with Running(runs, job, show) as running:
        done = running.collect()
        found = work.matrices(done.results)
        summary = {
            **suite.summary(found),
            "interrupted": done.interrupted,
            **running.summary(),
        }
        record = show.record("transfer", job.stamp, settings, rows_of(found), summary)
        show.write(running.conclude(record, rows=True))
    print_matrices(found, suite, show)
    if plot is not None and found:
        draw(found, suite, plot)
        show.say([f"drawn: {plot}"])
    return running.exit_code(done, 0)
