"""What commands print: texts and tables for people, JSON for programs."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from stac_gitlab.cli.progress import Lines, in_gitlab_job
from stac_gitlab.download.progress import ProgressOption
from stac_gitlab.redaction import has_invisible, printable

_BOLD, _NORMAL = "\033[1m", "\033[0m"
# Wider cells do not widen a column of which a file or a program gets the output.
_MAX_PADDING = 48
# Columns of a terminal that a cell keeps, unless its line has room for more.
_MIN_CELL = 8


class Output:
    """Writes to standard output.

    Args:
        json: Whether to print JSON only.
        quiet: Whether to print nothing for people.
    """

    def __init__(self, *, json: bool, quiet: bool) -> None:
        self.json = json
        self.is_silent = json or quiet
        is_terminal = sys.stdout is not None and sys.stdout.isatty()
        is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._colour = is_terminal and not is_plain
        self.columns = shutil.get_terminal_size().columns if is_terminal else None

    @property
    def progress(self) -> ProgressOption:
        """Bars on a terminal, if tqdm is installed; otherwise lines; nothing for programs."""
        if self.is_silent:
            return None
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        has_bars = is_terminal and find_spec("tqdm") is not None and not in_gitlab_job()
        return True if has_bars else Lines()

    def say(self, text: str = "") -> None:
        """Print a line for people. Nothing is printed with ``--quiet`` and ``--json``."""
        if not self.is_silent:
            _print(text)

    def data(self, data: Any) -> None:
        """Print data as JSON, with invisible characters escaped; paths and errors as texts."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        is_unicode = encoding.lower().startswith("utf")
        text = json.dumps(data, indent=2, ensure_ascii=not is_unicode, default=str)
        # What may stand between its lines is escaped by JSON, other control characters are not.
        _print("\n".join(map(_escaped, text.split("\n"))))

    def table(self, found: Mapping[str, Any]) -> None:
        """Print names and values: as JSON, or those that are set in two columns."""
        if self.json:
            self.data(found)
            return
        width = max(map(len, found))
        for name, value in found.items():
            if value:
                self.say(f"{self.bold(name.ljust(width))}  {printable(str(value), limit=2000)}")

    def rows(self, rows: Iterable[Sequence[object]], *, indent: int = 0) -> None:
        """Print rows of cells in columns. Cells are escaped; the first column is bold.

        On a terminal, all cells but those of the first column are shortened to its width.
        """
        table = [["" if c is None else printable(str(c), limit=1000) for c in row] for row in rows]
        widths = [max(map(width_of, column)) for column in zip(*table, strict=True)]
        if self.columns is None:
            widths = [min(width, _MAX_PADDING) for width in widths]
        else:
            _shrink(widths, self.columns - indent - 2 * (len(widths) - 1))
        for row in table:
            if self.columns is not None:
                row[1:] = [
                    shortened(cell, width) for cell, width in zip(row[1:], widths[1:], strict=True)
                ]
            padded = [
                cell + " " * (width - width_of(cell))
                for cell, width in zip(row, widths, strict=True)
            ]
            padded[0] = self.bold(padded[0])
            self.say(" " * indent + "  ".join(padded).rstrip())

    def bold(self, text: str) -> str:
        """Return a text in bold, where colour is wanted."""
        return f"{_BOLD}{text}{_NORMAL}" if self._colour else text


def _escaped(line: str) -> str:
    """Return a line of JSON in which invisible characters are escaped."""
    if not has_invisible(line):
        return line
    return "".join(json.dumps(each)[1:-1] if has_invisible(each) else each for each in line)


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_width_of_character, text))


def shortened(text: str, columns: int) -> str:
    """Return a text that takes at most so many columns of a terminal."""
    if width_of(text) <= columns:
        return text
    used, kept = 1, []
    for character in text:
        used += _width_of_character(character)
        if used > columns:
            break
        kept.append(character)
    return "".join(kept) + "…"


def _width_of_character(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _shrink(widths: list[int], available: int) -> None:
    """Make columns narrower, the widest first, until they fit or are as narrow as is useful."""
    while sum(widths) > available and max(widths[1:], default=0) > _MIN_CELL:
        excess = sum(widths) - available
        widest = max(range(1, len(widths)), key=widths.__getitem__)
        others = [width for index, width in enumerate(widths[1:], 1) if index != widest]
        floor = max(_MIN_CELL, max(others, default=0) - 1)
        widths[widest] = max(min(floor, widths[widest] - 1), widths[widest] - excess)
    # A long id moves the other cells of its own row only.
    widths[0] = min(widths[0], max(available - sum(widths[1:]), _MIN_CELL))


def _print(text: str) -> None:
    if sys.stdout is None:
        raise OSError(errno.EBADF, "Standard output is closed")
    print(text)
