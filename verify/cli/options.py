"""The options that commands share, grouped by what they are about."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "ONNX file (.onnx or .onnx.gz)."
METHOD_NAMES = "auto, ibp, zonotope, crown-ibp, crown or alpha-crown"
ATTACK_NAMES = (
    "auto, portfolio, none, fgsm, ifgsm, mifgsm, nifgsm, pgd, apgd-ce, apgd-dlr, apgd-t, gama, "
    "fab, fab-t, square, autoattack, autoattack-plus, autoattack-rand, deepfool, cw, ead, ddn, "
    "fmn, pdpgd, sigma-zero, targeted-l1, spsa, hopskipjump or boundary"
)

Model = Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
Radius = Annotated[
    str,
    typer.Option(
        "--eps",
        metavar="R",
        help="Radius in model input units (before --mean and --std); fractions such as 8/255 too.",
        show_default=False,
    ),
]

Semantics = Annotated[
    str,
    typer.Option(
        "--semantics",
        metavar="WHICH",
        help="'float32': proofs hold for every float32 execution of the file; 'real': for the "
        "real-valued network only, and every answer says so.",
    ),
]

DATA, EFFORT, ATTACK, OUTPUT, RUN = "Data", "Bounds", "Attack", "Output", "Runs"


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Which inputs, in which units, with which labels."""

    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="'digits' (embedded), .npz (x, y), .npy, .csv (label,value,...) or a folder of "
            "images. Default: MODEL's .npz beside it, else digits where the input has 64 entries.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None
    limit: Annotated[
        int | None,
        typer.Option(help="At most this many inputs.", show_default=False, rich_help_panel=DATA),
    ] = None
    indices: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Rows of the source, from 0: '0,3,5-9'.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None
    labels: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="Class that must hold: 'data' (the source's), 'predicted' (what the model says), "
            "or 'auto' (the source's where it has any).",
            rich_help_panel=DATA,
        ),
    ] = "auto"
    input_range: Annotated[
        str | None,
        typer.Option(
            "--input-range",
            metavar="'LOW HIGH'",
            help="Values that inputs never leave, or 'none'. Default: 0 1 if every chosen value "
            "lies in it, else none.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Per channel, comma between: the model gets (x - mean) / std; eps and the input "
            "range are in units of x.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="See --mean.", show_default=False, rich_help_panel=DATA),
    ] = None
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="S",
            help="Values of the source are divided by it. Default: 255 for CSV, images and "
            "arrays of bytes, else 1.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None
    channels_last: Annotated[
        bool | None,
        typer.Option(
            "--channels-last/--channels-first",
            help="How the source stores images. Default: as its shape shows, else as the model.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None
    norm: Annotated[
        str,
        typer.Option(metavar="inf|2|1", help="Norm of the radius.", rich_help_panel=DATA),
    ] = "inf"


@dataclass(frozen=True, slots=True)
class BoundOptions:
    """How hard to try to prove."""

    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"{METHOD_NAMES}: ibp is the fastest and loosest, alpha-crown the slowest and "
            "tightest, and auto goes from one to the other.",
            rich_help_panel=EFFORT,
        ),
    ] = "auto"
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS",
            help="Per input. Default: none.",
            show_default=False,
            rich_help_panel=EFFORT,
        ),
    ] = None
    memory: Annotated[
        str,
        typer.Option(
            metavar="SIZE", help="That the process may take: 2GB, 1500MB.", rich_help_panel=EFFORT
        ),
    ] = "2GiB"
    batch: Annotated[
        int | None,
        typer.Option(
            help="Inputs bounded at once. Default: as many as are worth it.",
            show_default=False,
            rich_help_panel=EFFORT,
        ),
    ] = None
    iterations: Annotated[
        int, typer.Option(help="Of alpha-crown's slopes.", rich_help_panel=EFFORT)
    ] = 20
    threads: Annotated[
        int | None,
        typer.Option(
            help="Cores to use. Default: OMP_NUM_THREADS, or all.",
            show_default=False,
            rich_help_panel=EFFORT,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class AttackOptions:
    """How hard to try to refute."""

    attack: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"{ATTACK_NAMES}. auto: pgd at one radius, a quick portfolio for the nearest.",
            rich_help_panel=ATTACK,
        ),
    ] = "auto"
    attack_steps: Annotated[
        int | None,
        typer.Option(
            help="Gradient steps of the attack. Default: its own.",
            show_default=False,
            rich_help_panel=ATTACK,
        ),
    ] = None
    restarts: Annotated[
        int | None,
        typer.Option(
            help="Starting points of the attack. Default: its own.",
            show_default=False,
            rich_help_panel=ATTACK,
        ),
    ] = None
    seed: Annotated[
        int,
        typer.Option(
            help="Of the attack's random numbers; each input has its own.", rich_help_panel=ATTACK
        ),
    ] = 0


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Where results go."""

    json: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the whole record; '-' for standard output, the table then goes to "
            "standard error.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None
    csv: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write one line per input; '-' as for --json.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Only the summary line.", rich_help_panel=OUTPUT),
    ] = False
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show tracebacks of errors.", rich_help_panel=OUTPUT),
    ] = False


PRELOADED = ("verify.cli.working", "onnx")
"""What every worker needs, and takes long to import."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where results are kept as they come, and who does the work."""

    run: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Store each result as it comes; the same command again goes on where it stopped. "
            "See 'verify runs'.",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None
    runs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of runs. Default: $TASHIKA_RUNS, else ./runs.",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Worker processes, which share the cores; each may take --memory. Default: none, "
            "this process works.",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Work on a dask cluster: tcp://host:8786 (pip install 'tashika[dask]').",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None

    def get_ready(self) -> None:
        """Called before anything else is done: workers' imports may then go on beside ours."""
        if self.workers is not None and self.workers > 0 and self.scheduler is None:
            from verify.runs.processes import get_ready

            get_ready(self.workers, PRELOADED)
