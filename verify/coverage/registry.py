"""The criteria by name, for command lines and for tests that each must pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from verify.coverage.criteria import (
    BoundaryCoverage,
    NeuronCoverage,
    StrongActivationCoverage,
    TopNeuronCoverage,
)
from verify.coverage.importance import ImportanceRecord
from verify.coverage.pairs import PairRecord
from verify.coverage.patterns import TopPatternRecord
from verify.coverage.records import CoverageRecord, MaskRecord
from verify.coverage.reference import Reference
from verify.coverage.sections import MultisectionCoverage
from verify.coverage.spread import SpreadRecord
from verify.coverage.surprise import Surprise, SurpriseRecord
from verify.errors import SettingError


@dataclass(frozen=True, slots=True)
class CoverageSettings:
    """The parameters of all criteria.

    Attributes:
        threshold: of NC.
        scaled: whether NC scales activations over their layer.
        k: sections of KMNC.
        top: neurons of TKNC and TKNP.
        deviations: of NBC and SNAC.
        ratio: of VSC.
        buckets: of LSC and DSC.
        important: neurons of IDC.
    """

    threshold: float = 0.25
    scaled: bool = True
    k: int = 10
    top: int = 3
    deviations: float = 0.0
    ratio: float = 2.0
    buckets: int = 100
    important: int = 6


Make = Callable[[Reference, CoverageSettings], CoverageRecord]


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion in the registry.

    Attributes:
        name: as written on the command line.
        summary: one line for a list.
        needs_profile: whether it refers to training data; if not, the reference may hold none.
        make: an empty record.
        needs_output: whether its record must be shown the network's output, too.
    """

    name: str
    summary: str
    needs_profile: bool
    make: Make
    needs_output: bool = False


CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Criterion(
                "nc",
                "neurons above a threshold (DeepXplore)",
                False,
                lambda seen, s: MaskRecord(NeuronCoverage(s.threshold, s.scaled), seen.layers),
            ),
            Criterion(
                "kmnc",
                "k sections of each neuron's training range (DeepGauge)",
                True,
                lambda seen, s: MaskRecord(MultisectionCoverage(seen.profile, s.k), seen.layers),
            ),
            Criterion(
                "nbc",
                "values beyond either end of the training range (DeepGauge)",
                True,
                lambda seen, s: MaskRecord(
                    BoundaryCoverage(seen.profile, s.deviations), seen.layers
                ),
            ),
            Criterion(
                "snac",
                "values above the training range (DeepGauge)",
                True,
                lambda seen, s: MaskRecord(
                    StrongActivationCoverage(seen.profile, s.deviations), seen.layers
                ),
            ),
            Criterion(
                "tknc",
                "neurons among the most active of their layer (DeepGauge)",
                False,
                lambda seen, s: MaskRecord(TopNeuronCoverage(s.top), seen.layers),
            ),
            Criterion(
                "tknp",
                "distinct combinations of most active neurons, a count (DeepGauge)",
                False,
                lambda seen, s: TopPatternRecord(seen.layers, s.top),
            ),
            Criterion(
                "nlc",
                "spread of each layer's activations, no share (Yuan et al.)",
                False,
                lambda seen, s: SpreadRecord(seen.layers),
            ),
            Criterion(
                "ssc",
                "a neuron alone flips one of the next layer (MC/DC, sign-sign)",
                False,
                lambda seen, s: PairRecord(seen.layers),
            ),
            Criterion(
                "vsc",
                "a neuron's value flips one of the next layer (MC/DC, value-sign)",
                False,
                lambda seen, s: PairRecord(seen.layers, ratio=s.ratio),
            ),
            Criterion(
                "lsc",
                "sections of surprise, by likelihood under the class's traces (Kim et al.)",
                True,
                lambda seen, s: SurpriseRecord(Surprise(seen), "likelihood", buckets=s.buckets),
                needs_output=True,
            ),
            Criterion(
                "dsc",
                "sections of surprise, by distance to the class's traces (Kim et al.)",
                True,
                lambda seen, s: SurpriseRecord(Surprise(seen), "distance", buckets=s.buckets),
                needs_output=True,
            ),
            Criterion(
                "idc",
                "combinations of what the most relevant neurons do (Gerasimou et al.)",
                True,
                lambda seen, s: ImportanceRecord(seen, s.important),
            ),
        )
    }
)
CHEAP = ("nc", "kmnc", "nbc", "snac", "tknc")
"""Those that cost little more than running the network, in fixed memory."""


def criterion_named(name: str) -> Criterion:
    """The criterion of that name.

    Raises:
        SettingError: if there is none.
    """
    if name not in CRITERIA:
        raise SettingError(
            f"there is no coverage criterion {name!r}; choose from {', '.join(CRITERIA)}"
        )
    return CRITERIA[name]
