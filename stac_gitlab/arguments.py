"""Arguments of the public surface: what is no sensible value is an error where it is passed.

From the depths it would be an ``AttributeError`` or ``TypeError`` that names neither the argument
nor what to pass instead.
"""

from __future__ import annotations

import math
from typing import Any

from stac_gitlab.errors import ConfigurationError

__all__ = ["number", "whole_number"]


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
    if not is_number or math.isnan(value) or value < 0:
        raise ConfigurationError(f"{name}={value!r}: give {unit}, zero or greater.")
    return float(value)
