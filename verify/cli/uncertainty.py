"""`verify uncertainty`: what an ensemble or a dropout network does not know, per input."""

from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import MODEL_HELP, OutputOptions, RunOptions
from verify.cli.sources import SourceOptions

Models = Annotated[
    list[Path],
    typer.Argument(metavar="MODEL...", help=f"{MODEL_HELP} Several are one ensemble."),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="As for 'verify certify'. Default: the first MODEL's .npz, else digits.",
        show_default=False,
    ),
]
Task = Annotated[
    str,
    typer.Option(
        metavar="WHAT",
        help="'classes': outputs are logits; 'numbers': half of them means, half log-variances.",
    ),
]
Passes = Annotated[
    int, typer.Option(help="Networks drawn from one model with Dropout nodes.", min=2)
]
Seed = Annotated[int, typer.Option(help="Of the dropout masks.")]
Show = Annotated[int, typer.Option(help="Most uncertain inputs to list and to draw.", min=1)]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Draw the most uncertain inputs, if they are images (.png, .svg or .pdf).",
        show_default=False,
    ),
]


def uncertainty(
    models: Models,
    source: SourceOptions,
    output: OutputOptions,
    runs: RunOptions,
    data: Data = None,
    task: Task = "classes",
    passes: Passes = 50,
    seed: Seed = 0,
    show: Show = 10,
    plot: Plot = None,
) -> int:
    """Split each prediction's uncertainty: in the data (aleatoric), in the model (epistemic).

    Several files are an ensemble: the same network trained from different seeds. One file must hold
    Dropout nodes (exporters remove them in eval mode: export in train mode); each pass is then one
    thinned network. For classes all three are entropies in nats, for numbers variances.

    \b
    Examples:
      verify uncertainty seed0.onnx seed1.onnx seed2.onnx --data test.npz --plot unsure.png
      verify uncertainty dropout.onnx --data test.npz --passes 100 --csv u.csv

    Exit code: 0 done, 2 bad input.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli.doubting import Question, doubt
    from verify.cli.presenting import presenter
    from verify.cli.sources import check_picture

    shown = presenter(output)
    check_picture(plot)
    question = Question(tuple(models), data, task, passes, seed, show, plot)
    return doubt(question, source, runs, shown)
