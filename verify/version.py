"""The version of the distribution; pyproject.toml and every stored record read it from here."""

__version__ = "0.1.0"
