"""Options shared by commands, as dataclasses: `grouped` spreads them over the command line.

typer reads one parameter per option from a function's signature. Five commands that share thirty
options would repeat them five times; instead a command takes whole groups, and `grouped` shows
typer the fields of each.
"""

import dataclasses
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, get_type_hints

from verify.cli.failures import Interrupted, PipeClosed


def grouped(command: Callable[..., int]) -> Callable[..., int]:
    """The command with every parameter that is a dataclass replaced by that dataclass's fields.

    Args:
        command: takes plain parameters and option groups; returns its exit code.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, tuple[type, tuple[str, ...]]] = {}
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            shown.append(keyword(parameter.name, kind, parameter.default))
            continue
        fields = dataclasses.fields(kind)
        groups[parameter.name] = (kind, tuple(field.name for field in fields))
        inner = get_type_hints(kind, include_extras=True)
        shown += [keyword(field.name, inner[field.name], default_of(field)) for field in fields]

    @wraps(command)
    def spread(**values: Any) -> int:
        arguments = {
            name: kind(**{field: values.pop(field) for field in fields})
            for name, (kind, fields) in groups.items()
        }
        for given in arguments.values():
            get_ready = getattr(given, "get_ready", None)
            if get_ready is not None:
                get_ready()
        try:
            return command(**values, **arguments)
        except BrokenPipeError as error:
            raise PipeClosed from error  # typer would end the process with exit code 1: "falsified"
        except KeyboardInterrupt as error:
            raise Interrupted from error  # what typer makes of it depends on its version

    # Older typers read __annotations__, newer ones the signature.
    spread.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    spread.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    del spread.__wrapped__  # it would show the unspread signature
    return spread


def keyword(name: str, kind: Any, default: Any) -> inspect.Parameter:
    """One parameter as typer is to see it."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """The field's default as a signature states it."""
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
