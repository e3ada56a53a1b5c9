"""`verify explore`: a local page to pick or draw an input and see what an attack makes of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import MODEL_HELP, DataOptions

MaybeModel = Annotated[
    Path | None,
    typer.Argument(
        metavar="[MODEL]",
        help=f"{MODEL_HELP} Default: the embedded convolutional net of digits.",
        show_default=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]

PAGE = "Page"


@dataclass(frozen=True, slots=True)
class PageOptions:
    """What is shown, and where."""

    ensemble: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MODEL",
            help="Further members of an ensemble, for its uncertainty; may be repeated. A MODEL "
            "with Dropout nodes has one without.",
            show_default=False,
            rich_help_panel=PAGE,
        ),
    ] = None
    passes: Annotated[
        int,
        typer.Option(
            help="Networks drawn from a MODEL with Dropout nodes.", min=2, rich_help_panel=PAGE
        ),
    ] = 30
    image_shape: Annotated[
        str | None,
        typer.Option(
            metavar="C,H,W",
            help="How a flat input is shown as an image: 1,8,8. Default: square ones are.",
            show_default=False,
            rich_help_panel=PAGE,
        ),
    ] = None
    timeout: Annotated[
        str, typer.Option(metavar="SECONDS", help="For each answer.", rich_help_panel=PAGE)
    ] = "30"
    seed: Annotated[
        int,
        typer.Option(help="Of attacks and dropout masks.", rich_help_panel=PAGE),
    ] = 0
    port: Annotated[
        int,
        typer.Option(
            help="Of 127.0.0.1. Default: a free one.",
            min=0,
            max=65535,
            show_default=False,
            rich_help_panel=PAGE,
        ),
    ] = 0
    no_browser: Annotated[
        bool,
        typer.Option("--no-browser", help="Only print the page's address.", rich_help_panel=PAGE),
    ] = False


def explore(
    data: DataOptions, page: PageOptions, model: MaybeModel = None, debug: Debug = False
) -> int:
    """Open a local page: pick an input or draw one, move the radius, choose an attack, and see.

    The page shows what the attack makes of the input, the predictions with the intervals that are
    certified for every input within the radius (or for every rotation up to an angle), and the
    bracket of the robustness radius while it closes. It is served to this machine alone, under an
    address with a secret in it; Ctrl-C ends it.

    \b
    Examples:
      verify explore
      verify explore net.onnx --data test.npz
      verify explore seed0.onnx --data test.npz --ensemble seed1.onnx --ensemble seed2.onnx
      verify explore net.onnx --data cifar10_test.csv --channels-last --no-browser --port 8000

    Needs the extra "explore": pip install 'tashika[explore]'.

    Exit code: 0 ended by Ctrl-C, 2 bad input.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli.exploring import open_page

    return open_page(model, data, page)
