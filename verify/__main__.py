"""`python -m verify`: the command line."""

from verify.cli import run

if __name__ == "__main__":
    run()
