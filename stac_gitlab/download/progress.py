"""Progress of a download: a protocol, and progress bars where tqdm is installed."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any, Literal, Protocol

from stac_gitlab.errors import ConfigurationError

MAX_FILE_BARS = 4
"""More bars do not fit on a small terminal."""


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
            size: Its size in bytes, if it is known.
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
        tqdm = _tqdm()
        if option == "force" or _is_interactive():
            bars = _Bars(tqdm)
            try:
                yield bars
            finally:
                bars.close()
        else:
            yield _NoProgress()
    elif option is None or option is False:
        yield _NoProgress()
    else:
        yield option


def check_progress(option: ProgressOption) -> None:
    """Check a ``progress=`` option.

    Raises:
        ConfigurationError: If it is not valid.
    """
    if option is None or isinstance(option, bool) or option == "force":
        return
    if not all(callable(getattr(option, name, None)) for name in ("expect", "advance", "done")):
        raise ConfigurationError(
            f"progress={option!r}: pass True, False, 'force', or an object with the methods "
            "expect, advance and done."
        )


class _NoProgress:
    def expect(self, files: int, size: int | None) -> None: ...

    def advance(self, key: str, received: int, total: int | None) -> None: ...

    def done(self, key: str, size: int | None) -> None: ...


class _Bars:
    """One bar for all bytes, and one for each of the first few files in progress.

    The total of the first bar grows with each size that becomes known.
    """

    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._lock = threading.Lock()
        self._files = self._finished = 0
        # Bytes of all files: according to the metadata, and of those that have begun.
        self._announced = self._known = 0
        # Bytes of each file in progress: received, and in total.
        self._received: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._bars: dict[str, Any] = {}
        self._positions = list(range(MAX_FILE_BARS, 0, -1))
        self._all = self._bar(total=None, position=0, desc="0 of 0 files")

    def expect(self, files: int, size: int | None) -> None:
        with self._lock:
            self._files += files
            self._announced += size or 0
            self._describe()

    def advance(self, key: str, received: int, total: int | None) -> None:
        with self._lock:
            if key not in self._received and self._positions:
                position = self._positions.pop()
                self._bars[key] = self._bar(total=total, position=position, desc=key[-30:])
            self._set_size(key, max(received, total or 0))
            self._set_received(key, received)
            bar = self._bars.get(key)
            if bar is not None:
                bar.update(received - bar.n)

    def done(self, key: str, size: int | None) -> None:
        with self._lock:
            # Skipped files, and those downloaded in another process, are counted here.
            received = self._received.get(key, 0) if size is None else size
            self._set_size(key, received)
            self._set_received(key, received)
            del self._sizes[key], self._received[key]
            self._finished += 1
            self._describe()
            bar = self._bars.pop(key, None)
            if bar is not None:
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
        return self._tqdm(
            total=total,
            desc=desc,
            position=position,
            leave=position == 0,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
        )


def _tqdm() -> Any:
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415  # optional, and slow to import
    except ImportError:
        raise ConfigurationError(
            "progress=True shows bars with tqdm, which is not installed: "
            "pip install 'stac-gitlab[progress]'."
        ) from None
    return tqdm


def _is_interactive() -> bool:
    # Without a console, for example under pythonw, sys.stderr is None.
    return (sys.stderr is not None and sys.stderr.isatty()) or "ipykernel" in sys.modules
