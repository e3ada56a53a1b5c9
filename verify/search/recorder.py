"""Recorder: who wants to know what proves what in a search over activations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from verify.bounders.domains import Domains
from verify.bounders.refining import Bounded
from verify.search.root import Root


class Recorder(Protocol):
    """Is told what proves what, for certificates."""

    def closed(self, base: Root, leaves: Domains, by: Root, proofs: Domains) -> None:
        """Leaves of a base are closed, by rows over the bounds of a root, the base or another."""
        ...

    def bounded(self, base: Root, domain: Domains, found: Bounded) -> None:
        """Neurons of one layer are bounded anew below one domain of a base."""
        ...

    def divided(self, base: Root, top: Domains) -> None:
        """What was found below these domains is dropped; the search begins there again."""
        ...


def telling(
    recorder: Recorder | None, base: Root, domain: Domains
) -> Callable[[Bounded], None] | None:
    """What tells a recorder of neurons that are bounded anew below one domain of a base."""
    return None if recorder is None else partial(recorder.bounded, base, domain)
