"""What can go wrong when an attack is called: one base, one subclass for the caller's mistakes.

AttackError
└── AttackInputError (also a ValueError): arguments that no attack can work with

"Nothing found" is a result, never an exception.
"""


class AttackError(Exception):
    """Base of every error that this package raises on purpose."""


class AttackInputError(AttackError, ValueError):
    """The arguments cannot be attacked as given; the message says which, and what to change."""
