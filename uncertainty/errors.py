"""What can go wrong here: one base, one subclass for the caller's mistakes.

UncertaintyError
├── NotFittedError: something was applied before it was fitted
└── UncertaintyInputError (also a ValueError): arguments that cannot be used as given
"""


class UncertaintyError(Exception):
    """Base of every error that this package raises on purpose."""


class UncertaintyInputError(UncertaintyError, ValueError):
    """The arguments cannot be used as given; the message says which, and what to change."""


class NotFittedError(UncertaintyError):
    """Something was applied before it was fitted."""
