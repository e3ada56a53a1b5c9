"""Where the embedded example lies: in the installed package, or in the clone beside it."""

from pathlib import Path

from verify.errors import DataError

_PACKAGE = Path(__file__).resolve().parent.parent

# A wheel carries the files inside the package; a clone (and an editable install of it) beside it.
_FOLDERS = (_PACKAGE / "_examples", _PACKAGE.parent / "examples")

EXAMPLE_FILES = ("digits.npz", "digits_train.npz", "digits_conv.onnx", "digits_dense.onnx")


def example_path(name: str) -> Path:
    """The path of the embedded example file called `name`, one of `EXAMPLE_FILES`.

    Raises:
        DataError: if there is no such example, or its file is not where it was installed.
    """
    if name not in EXAMPLE_FILES:
        raise DataError(
            f"there is no embedded example called {name!r}; "
            f"there are {', '.join(EXAMPLE_FILES)}. Name one of these."
        )
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"the embedded example {name!r} is missing from this installation: looked in "
        f"{' and '.join(str(folder) for folder in _FOLDERS)}. Install tashika again."
    )
