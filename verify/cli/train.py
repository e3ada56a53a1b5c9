"""`verify train`: a robust network, trained, exported and judged."""

from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import OutputOptions, Radius

METHOD_NAMES = "standard, pgd, fast, trades, attack, ibp, crown-ibp, sabr or mtl-ibp"

Data = Annotated[
    str,
    typer.Argument(
        metavar="[DATA]",
        help="'digits' (embedded), .npz (x, y), .csv or .csv.gz (label,value,...).",
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE.onnx", help="Where the network goes.")
]
Method = Annotated[str, typer.Option(metavar="NAME", help=f"{METHOD_NAMES}.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting of the method, as beta=3 for trades; may be given again.",
        show_default=False,
    ),
]
Epochs = Annotated[int, typer.Option(help="Passes over the training data.")]
Arch = Annotated[str, typer.Option(metavar="dense|conv", help="Kind of network.")]
Widths = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Of the hidden layers; for conv the channels, last the dense layer. "
        "Default: 128,64 or 16,32,100.",
        show_default=False,
    ),
]
Shape = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Of one input, for conv: '1,28,28'. Default: a square of one channel.",
        show_default=False,
    ),
]
HeldOut = Annotated[
    str | None,
    typer.Option(
        "--held-out",
        metavar="SOURCE",
        help="Data to report on. Default: a fifth of DATA, set aside; for digits its own.",
        show_default=False,
    ),
]
Rate = Annotated[float, typer.Option("--learning-rate", help="Of Adam; falls to 0.")]
Batch = Annotated[int, typer.Option("--batch", help="Samples per step.")]
Seed = Annotated[int, typer.Option(help="Of weights, order and starting points.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keep the state here after each epoch.", show_default=False),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from --checkpoint.")]
Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Learning curves (png, svg or pdf).", show_default=False),
]
Certify = Annotated[
    int, typer.Option("--certify", metavar="N", help="Held-out inputs to judge at the end.")
]


def train(
    eps: Radius,
    output_options: OutputOptions,
    data: Data = "digits",
    output: Output = Path("model.onnx"),
    method: Method = "mtl-ibp",
    set_: Set = None,
    epochs: Epochs = 60,
    arch: Arch = "dense",
    widths: Widths = None,
    shape: Shape = None,
    held_out: HeldOut = None,
    learning_rate: Rate = 2e-3,
    batch: Batch = 64,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    resume: Resume = False,
    plot: Plot = None,
    certify: Certify = 100,
) -> int:
    """Train a network to withstand changes of each value by --eps, and write it as ONNX.

    Values of DATA lie between 0 and 1 (CSV is divided by 255). A part of the data is held out: the
    network never sees it, and all figures are about it. At the end the written file is attacked and
    certified: between these two accuracies lies the true one.

    \b
    Examples:
      verify train --eps 0.1 -o robust.onnx --plot curves.png
      verify train train.csv.gz --held-out test.csv.gz --eps 0.1 --method trades --set beta=3
      verify train --eps 0.1 --method sabr --checkpoint run --resume

    Exit code: 0 trained, 2 bad input, 130 interrupted (the last epoch is kept in --checkpoint).
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli.presenting import presenter
    from verify.cli.training import Wanted, run

    wanted = Wanted(
        data=data,
        held_out=held_out,
        output=output,
        eps=eps,
        method=method,
        settings=tuple(set_ or ()),
        epochs=epochs,
        arch=arch,
        widths=widths,
        shape=shape,
        learning_rate=learning_rate,
        batch=batch,
        seed=seed,
        checkpoint=checkpoint,
        resume=resume,
        plot=plot,
        certify=certify,
    )
    return run(wanted, presenter(output_options))
