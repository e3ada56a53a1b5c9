"""The typer application: the commands and the text above them."""

import typer

from verify.cli.attack import attack
from verify.cli.calibrate import calibrate
from verify.cli.certify import certify
from verify.cli.check import check
from verify.cli.compare import compare
from verify.cli.confidence import confidence
from verify.cli.coverage import coverage
from verify.cli.explore import explore
from verify.cli.geometric import geometric
from verify.cli.grouping import grouped
from verify.cli.info import info
from verify.cli.ood import ood
from verify.cli.prop import prop
from verify.cli.radius import radius
from verify.cli.report import report
from verify.cli.runs import runs
from verify.cli.spatial import spatial
from verify.cli.train import train
from verify.cli.transfer import transfer
from verify.cli.uncertainty import uncertainty

ABOUT = """How sure may I be of this prediction?

For each input: a certified lower and an attacked upper bound of its robustness radius, the
distance within which no input changes the class.

Try it on the embedded example:

  verify radius examples/digits_dense.onnx --limit 10

\b
Exit codes:
  0    all verified, or nothing that had to be
  1    some falsified
  2    bad input: one line on standard error says what to do
  3    some unknown, none falsified
  130  interrupted; results so far are printed and written
"""

SHORT = {
    "certify": "A verdict for each input at one radius.",
    "prop": "A VNN-LIB property, decided: unsat, sat or unknown.",
    "attack": "Counterexamples at one radius.",
    "spatial": "Rotations, shifts and lighting that fool the model.",
    "transfer": "How often what fools one model fools another.",
    "radius": "Certified and attacked radius of each input.",
    "compare": "Certified and attacked accuracy over radii.",
    "confidence": "How far the model's certainty can be pushed.",
    "calibrate": "Confidences that hold what they say; writes the calibrated model.",
    "uncertainty": "What an ensemble or dropout network does not know.",
    "ood": "How well strange inputs are told from familiar ones.",
    "coverage": "What of a network a test set exercises, and what no input can.",
    "train": "A robust network, trained and written as ONNX.",
    "geometric": "Rotations, shifts, scalings, ... that change no prediction.",
    "check": "Whether a certificate proves what it claims.",
    "report": "Records as one page that people look at.",
    "explore": "A local page: pick or draw an input, attack it, see what is proved.",
    "info": "What a model consists of, and what is supported.",
}

app = typer.Typer(
    name="verify",
    help=ABOUT,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    certify,
    prop,
    attack,
    spatial,
    transfer,
    radius,
    compare,
    train,
    confidence,
    calibrate,
    coverage,
    uncertainty,
    ood,
    geometric,
    check,
    report,
    explore,
    info,
)
for command in COMMANDS:
    app.command(name=command.__name__, short_help=SHORT[command.__name__])(grouped(command))
app.add_typer(runs, name="runs", short_help="Stored runs: list, show, resume, export, compare.")


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from verify.version import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def common(
    version: bool = typer.Option(
        False, "--version", callback=show_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    """Options before the command."""
