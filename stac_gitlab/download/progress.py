"""The progress of a download: calls of the user's object, or bars."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

from stac_gitlab.download.notebook_bars import notebook_bar_maker
from stac_gitlab.download.report import AssetResult
from stac_gitlab.errors import ConfigurationError
from stac_gitlab.notebook import is_notebook
from stac_gitlab.redaction import printable

# More do not fit on a small terminal.
MAX_FILE_BARS = 4
LARGE_FILE = 10_000_000
"""Bytes from which on a file has a bar of its own."""


class Progress(Protocol):
    """An object that is informed about a download. Its methods are called from several threads.

    `key` is the asset key; if there are several items, it is ``{item id}: {asset key}``.
    """

    def expect(self, files: int, size: int | None) -> None:
        """Called when more files are to be downloaded.

        Args:
            files: How many.
            size: The sum of their sizes in bytes, as far as the metadata contain them.
        """

    def advance(self, key: str, received: int, total: int | None) -> None:
        """Called when bytes of a file have arrived.

        Args:
            key: The file.
            received: Bytes received so far. They are fewer than before if the body was requested
                again from its start.
            total: Size of the file in bytes, if the server sent it.
        """

    def done(self, key: str, size: int | None) -> None:
        """Called when a file is finished, whether it was downloaded, skipped or failed.

        Args:
            key: The file.
            size: Its size in bytes, if it is known; None if it failed.
        """


ProgressOption = Progress | bool | Literal["force"] | None
"""A `Progress`, True for bars on a terminal or in a notebook, or "force" for bars anywhere."""


@contextlib.contextmanager
def open_progress(option: ProgressOption) -> Iterator[Progress]:
    """Return a context manager with the `Progress` of an option. It closes bars at its end.

    Raises:
        ConfigurationError: If bars are requested and tqdm is missing.
    """
    if option is True or option == "force":
        make_bar = _bar_maker()
        # Without a console, for example under pythonw, sys.stderr is None.
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        if option == "force" or is_terminal or is_notebook():
            with contextlib.closing(_Bars(make_bar)) as bars:
                # TQDM_DISABLE=1 in the environment.
                yield _NoProgress() if bars.is_disabled else bars
                return
        option = None
    yield _NoProgress() if option is None or option is False else option


def _bar_maker() -> Callable[..., Any]:
    try:
        if is_notebook():
            return notebook_bar_maker()
        from tqdm.auto import tqdm  # noqa: PLC0415  # optional, and slow to import
    except ImportError:
        raise ConfigurationError(
            "progress=True shows bars with tqdm, which is not installed: "
            "pip install 'stac-gitlab[progress]'."
        ) from None
    maker: Callable[..., Any] = tqdm
    return maker


def check_progress(option: ProgressOption) -> None:
    """Raise a ConfigurationError if a ``progress=`` option is not valid."""
    if option is None or isinstance(option, bool) or option == "force":
        return
    if not all(callable(getattr(option, name, None)) for name in ("expect", "advance", "done")):
        raise ConfigurationError(
            f"progress={option!r}: pass True, False, 'force', or an object with the methods "
            "expect, advance and done."
        )


def announce(progress: Progress, sizes: Mapping[str, int | None]) -> None:
    """Announce files, with their sizes in bytes as far as the metadata contain them."""
    if isinstance(progress, _Bars):
        progress.expect_each(sizes)
    else:
        progress.expect(len(sizes), sum(size or 0 for size in sizes.values()))


def announce_end(progress: Progress, name: str, result: AssetResult) -> None:
    """Announce that a file is finished."""
    if isinstance(progress, _Bars) and result.status == "skipped":
        progress.skip(name, result.size or 0)
    else:
        progress.done(name, None if result.status == "failed" else result.size)


class _NoProgress:
    def expect(self, files: int, size: int | None) -> None: ...

    def advance(self, key: str, received: int, total: int | None) -> None: ...

    def done(self, key: str, size: int | None) -> None: ...


class _Bars:
    """One bar for all bytes, and one for each of a few large files in progress.

    The total of the first bar is the sum of all sizes that are known: from the metadata, and from
    the responses for the other files. What is skipped counts as present, but not as downloaded, so
    the rate and the time left are those of the download.
    """

    def __init__(self, make_bar: Callable[..., Any]) -> None:
        self._make_bar = make_bar
        self._lock = threading.Lock()
        self._files = self._finished = 0
        # Bytes that were announced without the names of their files, and bytes of known files.
        self._announced = self._known = 0
        # Bytes of each unfinished file: received, and in total.
        self._received: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._bars: dict[str, Any] = {}
        self._positions = list(range(MAX_FILE_BARS, 0, -1))
        self._all = self._bar(total=None, position=0, desc="0 of 0 files")

    @property
    def is_disabled(self) -> bool:
        """Whether tqdm shows nothing. Its bars then lack most attributes."""
        return bool(self._all.disable)

    def expect(self, files: int, size: int | None) -> None:
        with self._lock:
            self._files += files
            self._announced += size or 0
            self._describe()

    def expect_each(self, sizes: Mapping[str, int | None]) -> None:
        """Expect files whose sizes are replaced by those in the responses."""
        with self._lock:
            self._files += len(sizes)
            for key, size in sizes.items():
                self._set_size(key, size or 0)
            self._describe()

    def advance(self, key: str, received: int, total: int | None) -> None:
        with self._lock:
            is_large = max(received, total or 0) >= LARGE_FILE
            if is_large and key not in self._bars and self._positions:
                position = self._positions.pop()
                desc = printable(key)[-30:]
                self._bars[key] = self._bar(total=total, position=position, desc=desc)
            size = self._sizes.get(key, 0) if total is None else total
            self._set_size(key, max(received, size))
            self._set_received(key, received)
            if (bar := self._bars.get(key)) is not None:
                bar.update(received - bar.n)

    def done(self, key: str, size: int | None) -> None:
        with self._lock:
            # A file of another process is counted here.
            received = self._received.get(key, 0) if size is None else size
            self._set_size(key, self._sizes.get(key, received) if size is None else size)
            self._set_received(key, received)
            self._end(key)

    def skip(self, key: str, size: int) -> None:
        """Count a file that exists, without a contribution to the rate."""
        with self._lock:
            self._set_size(key, size)
            self._all.initial += size
            self._all.last_print_n += size
            self._all.n += size
            self._end(key)

    def _end(self, key: str) -> None:
        del self._sizes[key]
        self._received.pop(key, None)
        self._finished += 1
        self._describe()
        if (bar := self._bars.pop(key, None)) is not None:
            self._positions.append(abs(bar.pos))
            bar.close()

    def close(self) -> None:
        with self._lock:
            for bar in self._bars.values():
                bar.close()
            self._all.close()

    def _set_size(self, key: str, size: int) -> None:
        self._known += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        self._all.total = max(self._announced, self._known) or None

    def _set_received(self, key: str, received: int) -> None:
        self._all.update(received - self._received.get(key, 0))
        self._received[key] = received

    def _describe(self) -> None:
        self._all.total = max(self._announced, self._known) or None
        self._all.set_description(f"{self._finished} of {self._files} files")

    def _bar(self, *, total: int | None, position: int, desc: str) -> Any:
        return self._make_bar(
            total=total,
            desc=desc,
            position=position,
            leave=position == 0,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
        )
