"""What can go wrong here: one base, one subclass for the caller's mistakes.

UncertaintyError
└── UncertaintyInputError (also a ValueError): arguments that cannot be used as given
"""


class UncertaintyError(Exception):
    """Base of every error that this package raises on purpose."""


class UncertaintyInputError(UncertaintyError, ValueError):
    """The arguments cannot be used as given; the message says which, and what to change."""
