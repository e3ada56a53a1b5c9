"""The work that `verify radius` and `verify compare` share: brackets for every input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from verify.cli import parsing
from verify.cli.falsifiers import falsifier_of
from verify.cli.jobs import radius_job
from verify.cli.options import AttackOptions, BoundOptions, DataOptions, RunOptions
from verify.cli.presenting import Collected, Presenter
from verify.cli.running import Running
from verify.cli.session import Session, bound_arguments, open_session
from verify.errors import SettingError
from verify.report import Brackets, plot_brackets
from verify.report.plots import FORMATS
from verify.values.result import Bracket, norm_name
from verify.values.semantics import EXECUTED, Semantics, semantics_of


@dataclass(frozen=True, slots=True)
class Search:
    """How far and how finely to search.

    Attributes:
        largest: radius beyond which nothing is searched, or None for all there is.
        tolerance: relative width at which the search for the certified radius stops.
        exact: whether complete searches close the brackets to the tolerance.
        semantics: what a certified radius holds for.
    """

    largest: float | None
    tolerance: float
    exact: bool = False
    semantics: Semantics = EXECUTED

    @classmethod
    def read(
        cls,
        largest: str | None,
        tolerance: str,
        *,
        pictures: tuple[Path | None, ...],
        exact: bool = False,
        semantics: str = "float32",
    ) -> Search:
        """From the command line; also refuses pictures that cannot be drawn, before the work.

        Raises:
            SettingError: if something cannot be read.
        """
        for path in pictures:
            if path is not None and (
                path.suffix.lower().removeprefix(".") not in FORMATS or not path.parent.is_dir()
            ):
                raise SettingError(
                    f"picture {path} cannot be drawn, expected a file ending in "
                    f"{', '.join(FORMATS)} in a folder that is there; name another"
                )
        width = parsing.positive(tolerance, "--tolerance")
        assert width is not None
        if width >= 1:
            raise SettingError(f"--tolerance is {tolerance}, expected less than 1; try 0.01")
        cap = parsing.positive(largest, "--max-radius")
        return cls(cap, width, exact, semantics_of(semantics))


@dataclass(frozen=True, slots=True, eq=False)
class BracketRun:
    """What one run found, and under which settings.

    Attributes:
        session: model and inputs.
        done: the brackets that came.
        settings: for the record.
        running: how it was run.
        semantics: what a certified radius holds for.
    """

    session: Session
    done: Collected[Bracket]
    settings: dict[str, object]
    running: Running[Bracket]
    semantics: Semantics

    @property
    def title(self) -> str:
        """The model's name in pictures."""
        return Path(self.session.network.path or "model").name

    @property
    def norm(self) -> str:
        """The norm's name in pictures."""
        return norm_name(self.session.asked.p)

    def draw_brackets(self, path: Path) -> None:
        """Each bracket as a segment, and the histograms of both ends."""
        results = self.done.results
        ends = Brackets(
            tuple(found.certified for found in results),
            tuple(found.attacked for found in results),
            self.semantics.remark,
        )
        plot_brackets(ends, path, model=self.title, norm=self.norm)


def bracket_all(
    model: Path,
    data: DataOptions,
    bounds: BoundOptions,
    attacks: AttackOptions,
    search: Search,
    runs: RunOptions,
    show: Presenter,
    command: str,
) -> BracketRun:
    """Load, read, bracket.

    Raises:
        InputError: if anything given cannot be used.
    """
    arguments = bound_arguments(bounds)
    falsifier_of(attacks, None)  # a misspelt attack is refused before the model is read
    session = open_session(model, data, search.largest)
    show.say(session.notes)
    settings: dict[str, object] = {
        **session.settings,
        "max_radius": float(session.asked.eps[0]),
        "tolerance": search.tolerance,
        "exact": search.exact,
        **arguments.settings(attacks),
        "semantics": search.semantics.name,
    }
    job = radius_job(
        command,
        session,
        settings,
        arguments,
        attacks,
        tolerance=search.tolerance,
        exact=search.exact,
        semantics=search.semantics.name,
    )
    with Running(runs, job, show) as running:
        done = running.collect()
    return BracketRun(session, done, settings, running, search.semantics)
