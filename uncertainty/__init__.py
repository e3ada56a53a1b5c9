"""What can be said about a prediction with probability; imports nothing of `verify`."""

__all__: list[str] = []
