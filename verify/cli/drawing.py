"""Where pictures may be written, checked before the work is done."""

from pathlib import Path

from verify.errors import SettingError
from verify.report.plots import FORMATS


def drawable(path: Path | None, option: str) -> None:
    """Refuse a picture that could not be written.

    Raises:
        SettingError: if its ending is no format, or its folder is not there.
    """
    if path is not None and (
        path.suffix.lower().removeprefix(".") not in FORMATS or not path.parent.is_dir()
    ):
        raise SettingError(
            f"{option} is {path}, expected a file ending in {', '.join(FORMATS)} in a folder that "
            "is there; name another"
        )
