"""Slopes as a certificate gives them: which neurons they belong to, and rows that tighten bounds.

Only the form is checked: an index that points at nothing is refused, a value may be anything.
"""

from dataclasses import dataclass

import numpy as np

from verify.check.bounds import Hints
from verify.check.certificate import Certificate
from verify.check.linear import Array
from verify.check.network import MaxPool, Network, Relu
from verify.check.refusal import Refusal


@dataclass
class Names:
    """The Relus and maxima that a certificate refers to."""

    network: Network
    relus: list[str]
    sizes: np.ndarray
    pure: np.ndarray

    def source(self, relu: int) -> str:
        """The value that a Relu or a maximum reads."""
        step = self.network.steps[self.relus[relu]]
        assert isinstance(step, Relu | MaxPool)
        return step.source

    def refuse(self, relus: np.ndarray, entries: np.ndarray, what: str, pools: bool) -> None:
        """Unless all indices point at something that is there."""
        if ((relus < 0) | (relus >= len(self.sizes)) | (entries < 0)).any() or (
            entries >= self.sizes[relus]
        ).any():
            raise Refusal(f"{what} points at a neuron that is not there")
        if not pools and not self.pure[relus].all():
            raise Refusal(f"{what} is of something that is no Relu")


def names_of(certificate: Certificate, network: Network) -> Names:
    """What the certificate's "relus" are in the network."""
    reads = [network.steps.get(name) for name in certificate.relus]
    sizes = np.zeros(len(reads), dtype=np.int64)  # of what each of them reads
    for i, step in enumerate(reads):
        if not isinstance(step, Relu | MaxPool):
            raise Refusal(f"{certificate.relus[i][:40]!r} is no Relu and no maximum of the model")
        sizes[i] = network.size(step.source)
    pure = np.array([isinstance(step, Relu) for step in reads], dtype=bool)
    return Names(network, certificate.relus, sizes, pure)


@dataclass
class Slopes:
    """The columns of slopes of one case, and the rows that tighten bounds over its box."""

    names: Names
    columns: np.ndarray
    tight: np.ndarray
    tight_alpha: Array

    def alpha(self, rows: Array) -> dict[str, Array]:
        """Slopes by the name of the Relu, (row, neuron), NaN where the certificate gives none."""
        found = {}
        for relu in np.unique(self.columns[:, 0]):
            name = self.names.relus[relu]
            mine = self.columns[:, 0] == relu
            whole = np.full((len(rows), self.names.network.size(name)), np.nan)
            whole[:, self.columns[mine, 1]] = rows[:, mine]
            found[name] = whole
        return found

    def tightened(self) -> dict[str, list[tuple[np.ndarray, float, Hints]]]:
        """The rows by the value that they tighten."""
        found: dict[str, list[tuple[np.ndarray, float, Hints]]] = {}
        for relu in np.unique(self.tight[:, 0]):
            for sign in (1, -1):
                chosen = (self.tight[:, 0] == relu) & (self.tight[:, 2] == sign)
                if chosen.any():
                    alpha = self.alpha(self.tight_alpha[chosen])
                    hints = Hints({name: rows[None] for name, rows in alpha.items()})
                    wanted = (self.tight[chosen, 1], float(sign), hints)
                    found.setdefault(self.names.source(int(relu)), []).append(wanted)
        return found


def read_slopes(certificate: Certificate, number: int, names: Names) -> Slopes:
    """The hints of one case; refused unless every index in them points at something."""
    cert, c = certificate, f"{number}/"
    columns = cert.array(c + "columns", ("int32",), (-1, 2))
    names.refuse(columns[:, 0], columns[:, 1], "a slope", pools=False)
    tight = cert.array(c + "tight", ("int32",), (-1, 3))
    names.refuse(tight[:, 0], tight[:, 1], "a tightened row", pools=True)
    if (np.abs(tight[:, 2]) != 1).any():
        raise Refusal("a tightened row has no sign")
    alpha = cert.slopes(c + "tight_alpha", (len(tight), len(columns)))
    return Slopes(names, columns, tight, alpha)
