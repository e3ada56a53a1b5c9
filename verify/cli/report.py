"""`verify report`: records as one page that people look at."""

from pathlib import Path
from typing import Annotated

import typer

Records = Annotated[
    list[str],
    typer.Argument(
        metavar="RECORD...", help="Files that --json of a command wrote, or names of stored runs."
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="Write the page (.html).", show_default=False
    ),
]
Markdown = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write tables in Markdown.", show_default=False),
]
Latex = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write tables in LaTeX.", show_default=False)
]
Title = Annotated[str, typer.Option(help="Of the page.")]
Eps = Annotated[
    str | None,
    typer.Option(
        metavar="R",
        help="Radius of the headline. Default: that of a certify record, else the median "
        "certified radius.",
        show_default=False,
    ),
]
Worst = Annotated[int, typer.Option(help="Worst inputs to show.", min=0, max=200)]
Certificates = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Check all certificates of this folder against the first record's model, and show "
        "what came of it.",
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="The data that the records are about: their worst inputs are shown as pictures. Runs "
        "have pictures of their own, with counterexamples.",
        show_default=False,
    ),
]
Runs = Annotated[
    Path | None,
    typer.Option(
        "--runs", metavar="DIR", help="Folder of runs, as for 'verify runs'.", show_default=False
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]


def report(
    records: Records,
    output: Output = None,
    markdown: Markdown = None,
    latex: Latex = None,
    title: Title = "Robustness report",
    eps: Eps = None,
    worst: Worst = 12,
    certificates: Certificates = None,
    data: Data = None,
    runs: Runs = None,
    debug: Debug = False,
) -> int:
    """Show records on one self-contained page: figures, plots, worst inputs, how to repeat it.

    The page needs no network and no script. Give several records of one model to have all on one
    page: radius or compare for curves, certify for one radius, confidence, calibrate, uncertainty,
    coverage, geometric, spatial, transfer, ood, prop. Runs (--run NAME) show inputs and
    counterexamples as pictures.

    \b
    Examples:
      verify radius net.onnx --data test.npz --json radius.json
      verify report radius.json -o report.html
      verify report overnight confidence.json -o report.html --markdown report.md

    Exit code: 0 written, 1 a certificate was rejected, 2 bad input.
    """
    from verify.cli.reporting import Targets, write_report

    return write_report(
        records,
        Targets(output, markdown, latex),
        title=title,
        eps=eps,
        worst=worst,
        certificates=certificates,
        data=data,
        runs=runs,
    )
