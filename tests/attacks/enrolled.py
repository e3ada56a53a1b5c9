"""The registered attacks, at budgets that suit tests: what holds for few queries holds for many."""

from attacks import ATTACKS, Attack

QUICK: dict[str, dict[str, object]] = {
    "apgd-ce": {"steps": 40},
    "apgd-dlr": {"steps": 40},
    "apgd-t": {"steps": 20},
    "gama": {"steps": 40},
    "square": {"queries": 80},
    "fab": {"steps": 15},
    "fab-t": {"steps": 15},
    "autoattack": {"steps": 5, "queries": 5},
    "autoattack-plus": {"steps": 3, "queries": 5},
    "autoattack-rand": {"steps": 10, "average": 1},
}
# Where a test asks how well an attack searches, it needs more.
THOROUGH: dict[str, dict[str, object]] = {
    "square": {"queries": 1000},
    "autoattack": {"steps": 30, "queries": 5},
    "autoattack-plus": {"steps": 20, "queries": 5},
    "autoattack-rand": {"average": 1},
}
# Attacks that see only scores.
WITHOUT_GRADIENTS = {"square"}


def quick(name: str) -> Attack:
    """The attack with few queries."""
    return ATTACKS[name].make(**QUICK.get(name, {}))


def thorough(name: str) -> Attack:
    """The attack with as many queries as its searches need on small problems."""
    return ATTACKS[name].make(**THOROUGH.get(name, {}))
