"""`verify coverage`: what of a network a test set exercises, and what no input can."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import DataOptions, Model, OutputOptions, RunOptions

CRITERIA_PANEL, BEYOND = "Criteria", "Beyond the test set"
CRITERION_NAMES = "nc, kmnc, nbc, snac, tknc, tknp, nlc, ssc, vsc, lsc, dsc, idc"


@dataclass(frozen=True, slots=True)
class CoverageOptions:
    """What is counted."""

    criteria: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help=f"With commas between: {CRITERION_NAMES}.",
            rich_help_panel=CRITERIA_PANEL,
        ),
    ] = "nc,kmnc,nbc,snac,tknc"
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="ONNX names of nodes or of their outputs. Default: all activations.",
            show_default=False,
            rich_help_panel=CRITERIA_PANEL,
        ),
    ] = None
    positions: Annotated[
        bool,
        typer.Option(
            "--positions/--channels",
            help="Whether each position of a feature map is a neuron, or their mean one.",
            rich_help_panel=CRITERIA_PANEL,
        ),
    ] = False
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Training data, for the criteria that need each neuron's usual range. Default: "
            "every other row of the data, which is then not counted as tested.",
            show_default=False,
            rich_help_panel=CRITERIA_PANEL,
        ),
    ] = None
    against: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="A second test set: what it covers that the first does not, and both together.",
            show_default=False,
            rich_help_panel=CRITERIA_PANEL,
        ),
    ] = None
    threshold: Annotated[float, typer.Option(help="Of nc.", rich_help_panel=CRITERIA_PANEL)] = 0.25
    scaled: Annotated[
        bool,
        typer.Option(
            "--scaled/--unscaled",
            help="Whether nc maps activations to 0 to 1 over their layer.",
            rich_help_panel=CRITERIA_PANEL,
        ),
    ] = True
    sections: Annotated[int, typer.Option(help="Of kmnc.", rich_help_panel=CRITERIA_PANEL)] = 10
    top: Annotated[
        int, typer.Option(help="Neurons of tknc and tknp.", rich_help_panel=CRITERIA_PANEL)
    ] = 3
    deviations: Annotated[
        float,
        typer.Option(
            help="Of nbc and snac: standard deviations beyond the range.",
            rich_help_panel=CRITERIA_PANEL,
        ),
    ] = 0.0
    ratio: Annotated[
        float, typer.Option(help="Of vsc: how far a value moves.", rich_help_panel=CRITERIA_PANEL)
    ] = 2.0
    buckets: Annotated[
        int, typer.Option(help="Sections of lsc and dsc.", rich_help_panel=CRITERIA_PANEL)
    ] = 100
    important: Annotated[
        int, typer.Option(help="Neurons of idc.", rich_help_panel=CRITERIA_PANEL)
    ] = 6


@dataclass(frozen=True, slots=True)
class BeyondOptions:
    """What is said of inputs that were not given."""

    reachable: Annotated[
        str | None,
        typer.Option(
            metavar="range|R",
            help="Prove what no input can cover: none of the input range, or none within R "
            "(L-infinity) of any input; and look for inputs that cover what is left.",
            show_default=False,
            rich_help_panel=BEYOND,
        ),
    ] = None
    generate: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Make N small changes of the inputs and keep those that cover something new.",
            rich_help_panel=BEYOND,
        ),
    ] = 0
    noise: Annotated[
        float, typer.Option(help="Largest change of an entry.", rich_help_panel=BEYOND)
    ] = 0.05
    brightness: Annotated[
        float, typer.Option(help="Largest change of all entries.", rich_help_panel=BEYOND)
    ] = 0.05
    shift: Annotated[float, typer.Option(help="In pixels.", rich_help_panel=BEYOND)] = 0.0
    rotation: Annotated[float, typer.Option(help="In degrees.", rich_help_panel=BEYOND)] = 0.0
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Write the inputs that were found: x, label, index of the input each began as.",
            show_default=False,
            rich_help_panel=BEYOND,
        ),
    ] = None
    seed: Annotated[int, typer.Option(help="Of the changes.", rich_help_panel=BEYOND)] = 0
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw shares per layer, and their growth (.png, .svg or .pdf).",
            show_default=False,
            rich_help_panel=BEYOND,
        ),
    ] = None


def coverage(
    model: Model,
    data: DataOptions,
    count: CoverageOptions,
    beyond: BeyondOptions,
    output: OutputOptions,
    runs: RunOptions,
) -> int:
    """Measure which neurons a test set exercises, and prove which no input can.

    Coverage counts what was exercised; it is no measure of correctness or robustness.

    \b
    Examples:
      verify coverage examples/digits_dense.onnx
      verify coverage net.onnx --data test.npz --profile train.npz --reachable range --plot c.png

    Exit code: 0 done, 1 a generated input is misclassified, 2 bad input.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli.covering import cover
    from verify.cli.presenting import presenter

    return cover(model, data, count, beyond, runs, presenter(output))
