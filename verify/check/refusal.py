"""Refusal: the one way in which a check ends without being passed."""


class Refusal(Exception):
    """A file cannot be read, is outside what the checker knows, or does not prove its claim."""
