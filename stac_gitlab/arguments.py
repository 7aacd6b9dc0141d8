"""Arguments of the public surface: what is no sensible value is an error where it is passed.

From the depths it would be an ``AttributeError`` or ``TypeError`` that names neither the argument
nor what to pass instead. Values of the wrong type are named by their type: they may be secrets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from stac_gitlab.errors import ConfigurationError

__all__ = ["dict_of", "expect", "expect_text", "number", "path_of", "whole_number"]


def expect(name: str, value: object, kind: Any, *, wanted: str) -> None:
    """Check that an argument is an instance of a class.

    Args:
        name: What the argument is called.
        value: What was passed.
        kind: The class, an abstract one perhaps.
        wanted: What it has to be, in words.

    Raises:
        ConfigurationError: If it is anything else.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} has to be {wanted}, not {_named(value)}.")


def expect_text(name: str, value: Any, *, wanted: str = "a text") -> str:
    """Return `value` if it is a text that is not empty.

    Raises:
        ConfigurationError: If it is not.
    """
    expect(name, value, str, wanted=wanted)
    if not value:
        raise ConfigurationError(f"{name} is empty; it has to be {wanted}.")
    return str(value)


def path_of(name: str, value: Any, *, wanted: str = "a path") -> str:
    """Return the text of a path, or of whatever else ``os.fspath`` makes one of.

    Raises:
        ConfigurationError: If there is none.
    """
    given = os.fspath(value) if isinstance(value, os.PathLike) else value
    expect(name, given, str, wanted=wanted)
    if "\0" in given:
        raise ConfigurationError(f"{name} holds a zero byte; it has to be {wanted}.")
    return str(given)


def dict_of(name: str, value: Any) -> dict[str, Any]:
    """Return a mapping by names, or pairs of them, as a dictionary.

    Raises:
        ConfigurationError: If it is neither.
    """
    try:
        made = dict(value)
    except (TypeError, ValueError):
        made = {None: None}
    if not all(isinstance(key, str) for key in made):
        raise ConfigurationError(
            f"{name} has to be a dictionary with texts as its keys, not {_named(value)}."
        )
    return made


def whole_number(name: str, value: Any, *, least: int) -> int:
    """Return `value` if it is a whole number.

    Raises:
        ConfigurationError: If it is not, or if it is less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name}={value!r}: give a whole number, {least} or greater.")
    return value


def number(name: str, value: Any, *, unit: str) -> float:
    """Return `value` if it is a number of seconds, bytes or the like: zero or greater.

    Raises:
        ConfigurationError: If it is not.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not value >= 0:
        raise ConfigurationError(f"{name}={value!r}: give {unit}, zero or more.")
    return float(value)


def _named(value: object) -> str:
    if isinstance(value, Mapping):
        return "one with other keys"
    return "None" if value is None else type(value).__name__
