"""This package where orjson is not installed."""

from __future__ import annotations

import sys

sys.modules["orjson"] = None  # type: ignore[assignment]  # what makes the import fail

from tests.benchmarks.contenders.ours import dicts, objects  # noqa: E402  # comes after the line above on purpose

__all__ = ["dicts", "objects"]
