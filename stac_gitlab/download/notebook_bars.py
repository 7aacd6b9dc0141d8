"""Bars in a notebook: one output for all bars of a run, which needs no widgets."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

_MIN_INTERVAL = 0.1
"""Seconds between two updates of the output."""

_FORMAT = "{desc}{percentage:.0f}%, {n_fmt} of {total_fmt}, {elapsed}<{remaining}, {rate_fmt}"


def notebook_bar_maker() -> Callable[..., Any]:
    """Return a function that takes the arguments of tqdm and makes the bars of one output.

    Raises:
        ImportError: If tqdm is missing.
    """
    from IPython.display import display  # noqa: PLC0415  # it is there in a notebook
    from tqdm.std import tqdm  # noqa: PLC0415  # optional

    class Bar(_NotebookBar, tqdm):  # type: ignore[misc]  # tqdm has no types
        pass

    return partial(Bar, output=_Output(display))


class _Output:
    """The output of a cell that shows some bars. A saved notebook keeps its last state."""

    def __init__(self, display: Callable[..., Any]) -> None:
        self.bars: list[_NotebookBar] = []
        self._display = display
        self._handle: Any = None
        self._drawn = 0.0

    def draw(self, *, now: bool = False) -> None:
        """Show the bars, unless they were shown just before and `now` is not set."""
        if not now and time.monotonic() < self._drawn + _MIN_INTERVAL:
            return
        self._drawn = time.monotonic()
        bars = sorted(self.bars, key=lambda bar: bar.line)
        shown = {
            "text/plain": "\n".join(map(str, bars)),
            "text/html": "".join(bar.html() for bar in bars),
        }
        if self._handle is None:
            self._handle = self._display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)


class _NotebookBar:
    """What a bar of a notebook does in its own way; tqdm does the rest."""

    n: float
    total: float | None
    disable: bool

    def __init__(self, *, output: _Output, desc: str, position: int, **options: Any) -> None:
        self.line = position
        self._output = output
        # `set_description` adds the colon by itself.
        tqdm_options = {"desc": f"{desc}: ", "position": position, "bar_format": _FORMAT}
        super().__init__(**tqdm_options, gui=True, **options)  # type: ignore[call-arg]  # tqdm's
        if not self.disable:
            output.bars.append(self)
            output.draw(now=position == 0)

    def html(self) -> str:
        """Return the bar as HTML."""
        state = f' value="{self.n}" max="{self.total}"' if self.total else ""
        return f"<div><progress{state}></progress> {escape(str(self))}</div>"

    def display(self, *_: Any, **__: Any) -> None:
        """Show the bar; tqdm calls it."""
        self._output.draw()

    def close(self) -> None:
        """Remove the bar, or leave it as it is if it is the first."""
        if self.disable:
            return
        super().close()  # type: ignore[misc]  # tqdm's
        if self.line == 0:
            self._output.draw(now=True)
        else:
            self._output.bars.remove(self)
