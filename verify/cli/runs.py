"""`verify runs`: what is stored, how far it is, going on with it, getting it out, comparing it."""

from pathlib import Path
from typing import Annotated

import typer

from verify.cli.grouping import grouped

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the run.")]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--runs",
        metavar="DIR",
        help="Folder of runs. Default: $TASHIKA_RUNS, else ./runs.",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(metavar="N", help="Worker processes, other than before.", show_default=False),
]
Scheduler = Annotated[
    str | None, typer.Option(metavar="URL", help="A dask cluster.", show_default=False)
]
File = Annotated[str | None, typer.Option(metavar="FILE", help="'-' for standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]

runs = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Stored runs: see --run of the commands."
)


def list_(folder: Folder = None, debug: Debug = False) -> int:
    """List the runs of a folder, and how far each is.

    Exit code: 0, also where there are none.
    """
    from verify.cli.storing import print_list

    return print_list(folder)


def show(name: Name, folder: Folder = None, debug: Debug = False) -> int:
    """Show what a run is about, what it holds, and who worked on it; also while it is written.

    Exit code: 0 complete, 2 no such run, 3 not complete.
    """
    from verify.cli.storing import print_run

    return print_run(folder, name)


def resume(
    name: Name,
    folder: Folder = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    debug: Debug = False,
) -> int:
    """Give the run's command again: what is stored is not repeated.

    Exit code: that of the command.
    """
    from verify.cli.storing import give_again

    return give_again(folder, name, workers, scheduler, debug)


def export(
    name: Name,
    folder: Folder = None,
    json: File = None,
    csv: File = None,
    parquet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Needs pyarrow: pip install 'tashika[parquet]'."),
    ] = None,
    debug: Debug = False,
) -> int:
    """Write the record of a run, as its command would have.

    \b
    Examples:
      verify runs export overnight --json overnight.json --csv overnight.csv
      verify runs export overnight --parquet overnight.parquet

    Exit code: 0 written, 2 no such run.
    """
    from verify.cli.storing import write_out

    return write_out(folder, name, json=json, csv=csv, parquet=parquet)


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A run.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    folder: Folder = None,
    json: File = None,
    debug: Debug = False,
) -> int:
    """Compare two runs instance by instance: two models, two methods, two versions of the tool.

    Instances are the same if number and input are. Where both runs asked the same model the same
    question, results that cannot both be true are a contradiction: please report one. A proof for
    every float32 execution is contradicted by any counterexample, since each was executed; a proof
    in real arithmetic by none: rounding decides there.

    Exit code: 0 none, 1 a contradiction, 2 no such run.
    """
    from verify.cli.storing import print_comparison

    return print_comparison(folder, first, second, json)


runs.command(name="list", short_help="What is stored.")(grouped(list_))
runs.command(name="show", short_help="What one run holds.")(grouped(show))
runs.command(name="resume", short_help="Go on with a run.")(grouped(resume))
runs.command(name="export", short_help="As JSON, CSV or Parquet.")(grouped(export))
runs.command(name="compare", short_help="Two runs, instance by instance.")(grouped(compare))
