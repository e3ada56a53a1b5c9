"""`verify confidence`: certified, attacked and clean confidence of each input and of the whole."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from verify.cli.options import (
    AttackOptions,
    BoundOptions,
    DataOptions,
    Model,
    OutputOptions,
    Radius,
    RunOptions,
    Semantics,
)

PANEL, ATTACK = "Confidence", "Attack"


@dataclass(frozen=True, slots=True)
class ConfidenceOptions:
    """What of the confidence is wanted."""

    temperature: Annotated[
        str,
        typer.Option(
            metavar="T", help="Logits are divided by it, as calibrated.", rich_help_panel=PANEL
        ),
    ] = "1"
    threshold: Annotated[
        str,
        typer.Option(
            metavar="P",
            help="A prediction counts from this confidence on; below it the model abstains, and "
            "calls the input out of distribution.",
            rich_help_panel=PANEL,
        ),
    ] = "0.9"
    bins: Annotated[
        int, typer.Option(help="Of the calibration error, at most 20.", rich_help_panel=PANEL)
    ] = 15
    alpha: Annotated[
        str,
        typer.Option(
            metavar="A",
            help="Conformal sets may miss the label this often.",
            rich_help_panel=PANEL,
        ),
    ] = "0.1"
    ood: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Out-of-distribution data, as for --data, or made from it: 'noise', 'permuted', "
            "'inverted', 'rotated', 'letters'.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    member: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MODEL",
            help="Further members of an ensemble; may be repeated. The mean of all members' "
            "probabilities is certified.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    semantics: Semantics = "float32"
    splits: Annotated[
        int,
        typer.Option(
            help="Rounds of splitting Relu signs per input, which tighten what is certified: 4 "
            "cost one to five seconds for a small network of dense layers, convolutions, Relus and "
            "max pooling; other networks stay as they are.",
            rich_help_panel=PANEL,
        ),
    ] = 0
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the bands of all inputs and the reliability diagram (.png, .svg, .pdf).",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How hard to push the confidence up and down."""

    attack_steps: Annotated[
        int,
        typer.Option(help="Gradient steps of each path; 0: no attack.", rich_help_panel=ATTACK),
    ] = 30
    restarts: Annotated[
        int, typer.Option(help="Starting points of each path.", rich_help_panel=ATTACK)
    ] = 2
    seed: Annotated[
        int,
        typer.Option(
            help="Of the attack's random numbers and of the conformal split.",
            rich_help_panel=ATTACK,
        ),
    ] = 0


def confidence(
    model: Model,
    eps: Radius,
    data: DataOptions,
    wanted: ConfidenceOptions,
    bounds: BoundOptions,
    push: PushOptions,
    output: OutputOptions,
    runs: RunOptions,
) -> int:
    """Bound what the model says of its own certainty, everywhere within --eps.

    For each input: the confidence, NLL, entropy, energy and Brier score, each clean, as far as an
    attack moves it, and as far as any perturbation can (proved, for every float32 execution unless
    --semantics says otherwise). For
    the data set: the same of calibration error, accuracy, conformal sets and, with --ood, AUROC.
    "verified" here means: no input within --eps gets another class at a confidence >= --threshold.

    \b
    Examples:
      verify confidence examples/digits_dense.onnx --eps 0.02 --limit 100
      verify confidence net.onnx --data test.npz --eps 2/255 --temperature 1.7 --plot bands.png
      verify confidence net.onnx --eps 0.01 --ood photos/ --threshold 0.8 --json out.json

    Exit code: 0 done, 2 bad input.
    """
    # Not before: `verify --help` need not wait for torch.
    from verify.cli.assuring import assure
    from verify.cli.presenting import presenter

    return assure(model, eps, data, wanted, bounds, push, runs, presenter(output))


def certify_confidence(
    model: Path,
    eps: str,
    data: DataOptions,
    bounds: BoundOptions,
    attacks: AttackOptions,
    output: OutputOptions,
    runs: RunOptions,
    semantics: str,
) -> int:
    """`verify certify --confidence`: the same, with defaults for what `certify` has no option for.

    Raises:
        SettingError: if an attack on the label is named: here the confidence is attacked.
    """
    from verify.errors import SettingError

    name = attacks.attack.lower()
    if name not in ("auto", "none"):
        raise SettingError(
            f"--attack is {attacks.attack}, an attack on the label, but --confidence attacks the "
            "confidence; leave it out, or write --attack none"
        )
    usual = PushOptions()
    steps = usual.attack_steps if attacks.attack_steps is None else attacks.attack_steps
    restarts = usual.restarts if attacks.restarts is None else attacks.restarts
    push = PushOptions(0 if name == "none" else steps, restarts, attacks.seed)
    return confidence(
        model, eps, data, ConfidenceOptions(semantics=semantics), bounds, push, output, runs
    )
