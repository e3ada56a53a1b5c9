"""The registered attacks, at budgets that suit tests: what holds for few queries holds for many."""

from attacks import ATTACKS, Attack

QUICK: dict[str, dict[str, object]] = {
    "square": {"queries": 120},
    "fab": {"steps": 30},
    "fab-t": {"steps": 30},
}
# Where a test asks how well an attack searches, it needs more.
THOROUGH: dict[str, dict[str, object]] = {"square": {"queries": 1500}}
# Attacks that see only scores.
WITHOUT_GRADIENTS = {"square"}


def quick(name: str) -> Attack:
    """The attack with few queries."""
    return ATTACKS[name].make(**QUICK.get(name, {}))


def thorough(name: str) -> Attack:
    """The attack with as many queries as its searches need on small problems."""
    return ATTACKS[name].make(**THOROUGH.get(name, {}))
