"""Arguments of the package's functions: numpy's numbers and texts count as Python's, and other types are errors."""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
import os
import reprlib
from collections.abc import Callable
from typing import Any, SupportsFloat, SupportsIndex, TypeVar

import numpy as np

from .errors import UsageError

Target = TypeVar("Target", bound=Callable[..., Any])

#: For types of annotations: the class of allowed values, the function that converts them, and a description.
_TYPES: dict[str, tuple[Any, Callable[[Any], Any], str]] = {
    "int": (SupportsIndex, operator.index, "a whole number"),
    "float": (SupportsFloat, float, "a number"),
    "bool": (SupportsIndex, bool, "True or False"),
    "str": (str, str.__str__, "a text"),
    "str | os.PathLike[str]": ((str, os.PathLike), os.fspath, "a path"),
}


def checked(target: Target) -> Target:
    """Return a function that converts its arguments to the types of its annotations, or a class with such methods."""
    if inspect.isclass(target):
        for name, method in list(vars(target).items()):
            if inspect.isfunction(method) and not name.startswith("_"):
                setattr(target, name, checked(method))
        return target

    parameters = inspect.signature(target).parameters
    types = {name: str(parameter.annotation) for name, parameter in parameters.items()}

    @functools.wraps(target)
    def call(*args: Any, **kwargs: Any) -> Any:
        converted = [argument(name, value, types[name]) for name, value in zip(types, args)]
        named = {name: argument(name, value, types.get(name, "Any")) for name, value in kwargs.items()}
        return target(*converted, *args[len(converted) :], **named)

    return call  # type: ignore[return-value]


def argument(name: str, value: Any, annotation: str) -> Any:
    """Return an argument as the type of its annotation. Arrays, and values of any type, are returned as they are."""
    if annotation == "Any" or "Array" in annotation:
        return value
    value = plain(value)
    type_name = annotation.removesuffix(" | None")
    if type_name not in _TYPES or (value is None and type_name != annotation):
        return value

    allowed, convert, description = _TYPES[type_name]
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if isinstance(value, allowed):
            return convert(value)
    raise UsageError(f"{name}: {reprlib.repr(value)} is not {description}")


def plain(value: Any) -> Any:
    """Return a value of numpy as one of Python, also within lists and tuples."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def whole(name: str, value: Any, least: int, most: int = 2**63 - 1) -> int:
    """Return `value` as an int between two bounds."""
    whole = int(argument(name, value, "int"))
    if not least <= whole <= most:
        bounds = f"at least {least}" if whole < least and most == 2**63 - 1 else f"between {least} and {most}"
        raise UsageError(f"{name}: {whole} is not {bounds}")
    return whole
