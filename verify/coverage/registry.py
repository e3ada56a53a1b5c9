"""The criteria by name, for command lines and for tests that each must pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from verify.coverage.criteria import (
    BoundaryCoverage,
    MultisectionCoverage,
    NeuronCoverage,
    StrongActivationCoverage,
    TopNeuronCoverage,
)
from verify.coverage.layers import Layer
from verify.coverage.pairs import PairRecord
from verify.coverage.patterns import TopPatternRecord
from verify.coverage.profile import Profile
from verify.coverage.records import CoverageRecord, MaskRecord
from verify.coverage.spread import SpreadRecord
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
    """

    threshold: float = 0.25
    scaled: bool = True
    k: int = 10
    top: int = 3
    deviations: float = 0.0
    ratio: float = 2.0


Make = Callable[[Sequence[Layer], Profile, CoverageSettings], CoverageRecord]


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion in the registry.

    Attributes:
        name: as written on the command line.
        summary: one line for a list.
        needs_profile: whether it refers to training data.
        make: an empty record.
    """

    name: str
    summary: str
    needs_profile: bool
    make: Make


CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Criterion(
                "nc",
                "neurons above a threshold (DeepXplore)",
                False,
                lambda layers, _, s: MaskRecord(NeuronCoverage(s.threshold, s.scaled), layers),
            ),
            Criterion(
                "kmnc",
                "k sections of each neuron's training range (DeepGauge)",
                True,
                lambda layers, seen, s: MaskRecord(MultisectionCoverage(seen, s.k), layers),
            ),
            Criterion(
                "nbc",
                "values beyond either end of the training range (DeepGauge)",
                True,
                lambda layers, seen, s: MaskRecord(BoundaryCoverage(seen, s.deviations), layers),
            ),
            Criterion(
                "snac",
                "values above the training range (DeepGauge)",
                True,
                lambda layers, seen, s: MaskRecord(
                    StrongActivationCoverage(seen, s.deviations), layers
                ),
            ),
            Criterion(
                "tknc",
                "neurons among the most active of their layer (DeepGauge)",
                False,
                lambda layers, _, s: MaskRecord(TopNeuronCoverage(s.top), layers),
            ),
            Criterion(
                "tknp",
                "distinct combinations of most active neurons, a count (DeepGauge)",
                False,
                lambda layers, _, s: TopPatternRecord(layers, s.top),
            ),
            Criterion(
                "nlc",
                "spread of each layer's activations, no share (Yuan et al.)",
                False,
                lambda layers, _, s: SpreadRecord(layers),
            ),
            Criterion(
                "ssc",
                "a neuron alone flips one of the next layer (MC/DC, sign-sign)",
                False,
                lambda layers, _, s: PairRecord(layers),
            ),
            Criterion(
                "vsc",
                "a neuron's value flips one of the next layer (MC/DC, value-sign)",
                False,
                lambda layers, _, s: PairRecord(layers, ratio=s.ratio),
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
