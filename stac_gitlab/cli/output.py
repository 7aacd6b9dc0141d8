"""What commands print: texts and tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from stac_gitlab.redaction import printable

_BOLD, _NORMAL = "\033[1m", "\033[0m"


class Output:
    """Writes to standard output.

    Args:
        json: Whether to print JSON only.
        quiet: Whether to print nothing for people.
    """

    def __init__(self, *, json: bool, quiet: bool) -> None:
        self.json = json
        self._silent = json or quiet
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    @property
    def bars(self) -> bool:
        """Whether to show bars on a terminal: for people, if tqdm is installed."""
        return not self._silent and find_spec("tqdm") is not None

    def say(self, text: str = "") -> None:
        """Print a line for people. Nothing is printed with ``--quiet`` and ``--json``."""
        if not self._silent:
            print(text)

    def data(self, data: Any) -> None:
        """Print data as JSON; paths and errors as texts."""
        print(json.dumps(data, indent=2, ensure_ascii=False, default=str))

    def table(self, found: Mapping[str, Any]) -> None:
        """Print names and values: as JSON, or those that are set in two columns."""
        if self.json:
            self.data(found)
        else:
            self.rows([(name, value) for name, value in found.items() if value])

    def rows(self, rows: Iterable[Sequence[object]], *, indent: int = 0) -> None:
        """Print rows of cells in columns. Cells are escaped; the first column is bold."""
        table = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for row in table:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            cells[0] = self.bold(cells[0])
            self.say(" " * indent + "  ".join(cells).rstrip())

    def bold(self, text: str) -> str:
        """Return a text in bold, where colour is wanted."""
        return f"{_BOLD}{text}{_NORMAL}" if self._colour else text
