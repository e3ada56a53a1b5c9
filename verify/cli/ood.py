"""`verify ood`: how well a model's own signals tell strange inputs from familiar ones."""

from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import Model, OutputOptions, RunOptions
from verify.cli.sources import SourceOptions

Inside = Annotated[
    str | None,
    typer.Option(
        "--id",
        metavar="SOURCE",
        help="In-distribution data: 'digits', .npz, .npy, .csv or a folder. Default: as for "
        "'verify certify'.",
        show_default=False,
    ),
]
Outside = Annotated[
    list[str],
    typer.Option(
        "--ood",
        metavar="SOURCE",
        help="Out-of-distribution data, may be repeated: as for --id, or made from the ID inputs: "
        "'noise', 'permuted', 'inverted', 'rotated', 'letters'.",
        show_default=False,
    ),
]
Seen = Annotated[
    str | None,
    typer.Option(
        "--fit",
        metavar="SOURCE",
        help="Data that detectors and thresholds are fitted on, such as the training data. "
        "Default: every other row of --id, which is then not evaluated.",
        show_default=False,
    ),
]
Method = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="Comma between, or 'all': msp, max-logit, energy, entropy, odin, mahalanobis, "
        "relative-mahalanobis, knn, input-knn, vim, react, ash, gradnorm.",
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        metavar="NODE",
        help="Value or node whose output is the feature. Default: what enters the last dense "
        "layer, which vim, react and ash need.",
        show_default=False,
    ),
]
Tpr = Annotated[str, typer.Option("--tpr", help="Share of in-distribution inputs to keep.")]
Seed = Annotated[int, typer.Option(help="Of the bootstrap, and of noise and permutations.")]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Draw the scores' histograms (.png, .svg, .pdf).", show_default=False
    ),
]


def ood(
    model: Model,
    outside: Outside,
    source: SourceOptions,
    output: OutputOptions,
    runs: RunOptions,
    inside: Inside = None,
    fit: Seen = None,
    method: Method = "msp,energy,mahalanobis,knn,input-knn",
    layer: Layer = None,
    tpr: Tpr = "0.95",
    seed: Seed = 0,
    plot: Plot = None,
) -> int:
    """Out-of-distribution detection: AUROC, AUPR and FPR of detectors, with 95 % intervals.

    A higher score is more out of distribution. AUROC is the probability that an OOD input scores
    higher than an ID one (0.5: chance); AUPR counts OOD as positive; FPR is the share of OOD inputs
    let through where --tpr of the ID inputs are kept. Neither detectors nor thresholds see any OOD
    input. On small images compare with input-knn, which needs no network.

    \b
    Examples:
      verify ood examples/digits_dense.onnx --ood noise --ood permuted
      verify ood net.onnx --id test.npz --fit train.npz --ood other.npz --method all --plot o.png

    Exit code: 0 done, 2 bad input.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli.detecting import Question, detect
    from verify.cli.presenting import presenter
    from verify.cli.sources import check_picture

    show = presenter(output)
    check_picture(plot)
    question = Question(model, inside, tuple(outside), fit, method, layer, tpr, seed, plot)
    return detect(question, source, runs, show)
