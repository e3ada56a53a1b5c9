"""The work of `verify train`: read, train, write, judge."""

from __future__ import annotations

import ast
import csv
import gzip
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import nn

from attacks import Ball
from attacks.defences import Epoch, History, Plan, Split, build, fit, ibp_initialise, method_named
from attacks.defences.guard import shuffled
from verify.api import certify
from verify.cli import parsing
from verify.cli.failures import INTERRUPTED
from verify.cli.falsifiers import AttackFalsifier
from verify.cli.presenting import Presenter, console_on
from verify.errors import DataError, SettingError
from verify.export import onnx_bytes
from verify.readers.datasets import DIGITS, load_dataset
from verify.readers.examples import example_path
from verify.report.learning import plot_learning
from verify.report.records import stamp_model
from verify.report.writers import write_whole
from verify.values.result import Result, Verdict

HELD_OUT_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options as given; see `verify.cli.train`."""

    data: str
    held_out: str | None
    output: Path
    eps: str
    method: str
    settings: tuple[str, ...]
    epochs: int
    arch: str
    widths: str | None
    shape: str | None
    learning_rate: float
    batch: int
    seed: int
    checkpoint: Path | None
    resume: bool
    plot: Path | None
    certify: int


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Data read and parted.

    Attributes:
        shape: of one input.
        classes: number of them.
    """

    train: Split
    held_out: Split
    shape: tuple[int, ...]
    classes: int


def run(wanted: Wanted, show: Presenter) -> int:
    """Train, write, judge and print; the exit code.

    Raises:
        InputError: if anything given cannot be used.
        AttackError: likewise, found by the defences.
    """
    eps = parsing.radius(wanted.eps)
    check_places(wanted)
    material = material_of(wanted)
    method = method_named(wanted.method, **settings_of(wanted.settings))
    net = build(
        wanted.arch,
        material.shape,
        material.classes,
        widths=whole_numbers(wanted.widths, "--widths"),
        seed=wanted.seed,
    )
    if method.certified:
        ibp_initialise(net, wanted.seed)
    plan = Plan(
        method,
        Ball(eps, lower=0.0, upper=1.0),
        epochs=wanted.epochs,
        batch_size=wanted.batch,
        learning_rate=wanted.learning_rate,
        seed=wanted.seed,
    )
    show.say(
        [
            f"training {wanted.arch} ({sum(p.numel() for p in net.parameters())} weights) by "
            f"{wanted.method} on {len(material.train.x)} inputs of {wanted.data}, eps {eps:g}",
            f"held out: {len(material.held_out.x)} inputs; {material.classes} classes",
        ]
    )
    history = trained(net, plan, material, wanted, show)
    if history is None:
        return INTERRUPTED
    content = onnx_bytes(net, material.shape, material.classes, wanted.output.stem)
    write_whole(wanted.output, content)
    rows = [asdict(done) for done in history]
    if wanted.plot is not None:
        title = f"{wanted.method} on {Path(wanted.data).name}, eps {eps:g}"
        plot_learning(rows, wanted.plot, title=title)
    results = judged(wanted, material.held_out, eps)
    summary = figures_of(results)
    summary |= {"training": rows, "epochs": len(rows)}
    settings: dict[str, object] = {
        key: str(value) for key, value in asdict(wanted).items() if value is not None
    }
    settings |= {"eps": eps, "plan": repr(method), "threads": torch.get_num_threads()}
    stamp = stamp_model(wanted.output)
    show.write(show.record("train", stamp, settings, results, summary))
    print_figures(history[-1], summary, len(material.held_out.x), wanted, show)
    return 0


def trained(
    net: nn.Module, plan: Plan, material: Material, wanted: Wanted, show: Presenter
) -> History | None:
    """The history, or None where Ctrl-C ended it; what is to be done then has been said."""
    shown = not show.options.quiet and sys.stderr.isatty()
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console_on(sys.stderr),
        transient=True,
        disable=not shown,
    )
    with progress:
        task = progress.add_task("training", total=plan.epochs)

        def tell(done: Epoch) -> None:
            text = f"clean {done.clean:.1%}, PGD {done.adversarial:.1%}, IBP {done.certified:.1%}"
            progress.update(task, completed=done.epoch, description=text)
            if done.note:
                show.say([f"epoch {done.epoch}: {done.note}"])

        try:
            return fit(
                net,
                plan,
                material.train,
                material.held_out,
                checkpoint=wanted.checkpoint,
                resume=wanted.resume,
                progress=tell,
            )
        except KeyboardInterrupt:
            kept = (
                "nothing is kept, as no --checkpoint was given"
                if wanted.checkpoint is None
                else f"finished epochs are in {wanted.checkpoint}; add --resume to go on"
            )
            print(f"interrupted: {kept}", file=sys.stderr)
            return None


def check_places(wanted: Wanted) -> None:
    """Refuse places for output before the work is done.

    Raises:
        SettingError: naming the option.
    """
    for option, path in (("--output", wanted.output), ("--plot", wanted.plot)):
        if path is not None and not path.resolve().parent.is_dir():
            raise SettingError(f"{option} is {path}, which lies in no folder that is there")
    if wanted.output.suffix.lower() != ".onnx":
        raise SettingError(f"--output is {wanted.output}, expected a name that ends in .onnx")
    if wanted.plot is not None and wanted.plot.suffix.lower() not in {".png", ".svg", ".pdf"}:
        raise SettingError(f"--plot is {wanted.plot}, expected an ending .png, .svg or .pdf")
    if wanted.resume and wanted.checkpoint is None:
        raise SettingError("--resume needs the --checkpoint to go on from; give its folder")
    if wanted.certify < 0:
        raise SettingError(f"--certify is {wanted.certify}, expected a number >= 0; correct it")


def material_of(wanted: Wanted) -> Material:
    """Read the data, in the shape that the architecture takes, and set a part aside."""
    source, held = wanted.data, wanted.held_out
    if source == DIGITS:
        source = str(example_path("digits_train.npz"))
        held = held or DIGITS
    shape = input_shape(source, wanted)
    found = labelled(source, shape)
    if held is not None:
        train, rest = found, labelled(held, shape)
    else:
        count = max(1, int(HELD_OUT_SHARE * len(found.x)))
        order = shuffled(len(found.x), wanted.seed, "held out")
        if len(order) < 2:
            raise DataError(f"{source} has {len(order)} inputs; give at least 2")
        train, rest = found.rows(order[count:].sort().values), found.rows(order[:count])
    classes = 1 + int(max(train.labels.max(), rest.labels.max()))
    return Material(train, rest, shape, max(2, classes))


def labelled(source: str, shape: tuple[int, ...]) -> Split:
    """All rows of a source, values in [0, 1]."""
    data = load_dataset(source, input_shape=shape, input_range=(0.0, 1.0))
    if data.labels is None or not len(data.x):
        raise DataError(f"{data.source} has no labels, or no rows; training needs both")
    return Split(data.x, data.labels)


def input_shape(source: str, wanted: Wanted) -> tuple[int, ...]:
    """As given; else flat for dense, and for conv an image of one channel."""
    given = whole_numbers(wanted.shape, "--shape")
    if given is not None:
        return given
    own = stored_shape(Path(source))
    size = math.prod(own)
    if wanted.arch != "conv":
        return (size,)
    if len(own) == 3:
        return own
    side = math.isqrt(size)
    if len(own) == 2 or side * side == size:
        return (1, *own) if len(own) == 2 else (1, side, side)
    raise SettingError(
        f"{source} has {size} values a row, which is no square image; give --shape, as 3,32,32"
    )


def stored_shape(path: Path) -> tuple[int, ...]:
    """The shape of one input as the source stores it.

    Raises:
        DataError: if it cannot be read, or is of a kind that does not say.
    """
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return tuple(arrays["x"].shape[1:])
        if path.suffix.lower() in {".csv", ".gz"}:
            packed = path.suffix.lower() == ".gz"
            with gzip.open(path, "rt") if packed else path.open() as lines:
                return (len(next(csv.reader(lines))) - 1,)
    except (OSError, ValueError, KeyError, StopIteration, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}. Check the file.") from None
    raise DataError(f"{path} does not say its inputs' shape; give --shape, as 1,28,28")


def whole_numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Whole numbers with commas between, or None where nothing was given."""
    numbers = parsing.numbers(text, option)
    if numbers is None:
        return None
    if any(number < 1 or number != int(number) for number in numbers):
        raise SettingError(f"{option} is {text!r}, expected whole numbers from 1; as 64,32")
    return tuple(int(number) for number in numbers)


def settings_of(pairs: tuple[str, ...]) -> dict[str, object]:
    """NAME=VALUE pairs; a value is a number where it reads as one, else text."""
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise SettingError(f"--set is {pair!r}, expected NAME=VALUE; as beta=3")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def judged(wanted: Wanted, held_out: Split, eps: float) -> list[Result]:
    """Verdicts of the written file: attacked by PGD, certified by `auto`."""
    few = (
        held_out.rows(torch.arange(min(wanted.certify, len(held_out.x))))
        if wanted.certify
        else None
    )
    if few is None:
        return []
    return certify(
        wanted.output,
        few.x,
        few.labels,
        eps=eps,
        input_range=(0.0, 1.0),
        falsifier=AttackFalsifier(),
    )


def figures_of(results: list[Result]) -> dict[str, object]:
    """Shares of the judged inputs."""
    count = len(results)
    if not count:
        return {}
    return {
        "clean": sum(result.label == result.predicted for result in results) / count,
        "attacked": sum(result.verdict is not Verdict.FALSIFIED for result in results) / count,
        "certified": sum(result.verdict is Verdict.VERIFIED for result in results) / count,
    }


def print_figures(
    last: Epoch, summary: dict[str, object], count: int, wanted: Wanted, show: Presenter
) -> None:
    """The table of the final figures, and what to do next."""
    keys = [key for key in ("clean", "attacked", "certified") if key in summary]
    shares = {key: f"{float(str(summary[key])):.1%}" for key in keys}
    judged_line = ", ".join(f"{key} {share}" for key, share in shares.items())
    if show.options.quiet:
        show.console.print(f"{wanted.output}: {judged_line or f'clean {last.clean:.1%}'}")
        return
    table = Table(title=f"{wanted.output}: accuracy on held-out inputs at eps {wanted.eps}")
    for heading in ("figure", "share", "what it is"):
        table.add_column(heading, justify="right" if heading == "share" else "left")
    everything = f"all {count} held-out"
    table.add_row("clean", f"{last.clean:.1%}", f"{everything}, unchanged")
    table.add_row("under PGD", f"{last.adversarial:.1%}", f"{everything}; only ten steps")
    interval = f"{everything}; intervals without rounding, no proof"
    table.add_row("by intervals", f"{last.certified:.1%}", interval)
    what = {
        "clean": "unchanged, by the written file",
        "attacked": "no counterexample found: an upper bound",
        "certified": "proved for the written file: a lower bound",
    }
    for key, share in shares.items():
        table.add_row(key, share, f"first {min(wanted.certify, count)}; {what[key]}")
    show.console.print(table)
    show.say([f"next: verify compare {wanted.output} --data {wanted.held_out or wanted.data}"])
