"""How a download tells how far it is: a protocol, and bars by tqdm where that is installed."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Any, Literal, Protocol

from stac_gitlab.errors import ConfigurationError

# More bars than this are no longer read by anyone.
MAX_FILE_BARS = 4


class Progress(Protocol):
    """What wants to know how far a download is. Called from several threads.

    `key` is the asset key; where there are several items, ``{item id}: {asset key}``.
    """

    def expect(self, files: int, size: int | None) -> None:
        """Take note of more files to come, and of their bytes as far as they are known."""

    def advance(self, key: str, received: int, total: int | None) -> None:
        """Take note of the bytes of a file that are there now, and of how many it will have.

        There are fewer than before where a body had to start anew.
        """

    def done(self, key: str, size: int | None) -> None:
        """Take note of the end of a file, whatever became of it."""


ProgressOption = Progress | bool | Literal["force"] | None
"""Someone to tell, True for bars on a terminal or in a notebook, "force" for bars anywhere."""


class _Silence:
    def expect(self, files: int, size: int | None) -> None: ...

    def advance(self, key: str, received: int, total: int | None) -> None: ...

    def done(self, key: str, size: int | None) -> None: ...


class _Bars:
    """One bar for all bytes, and one for each of the first few files under way."""

    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._lock = threading.Lock()
        self._received: dict[str, int] = {}
        self._bars: dict[str, Any] = {}
        self._places = list(range(MAX_FILE_BARS, 0, -1))
        self._all = self._bar(total=0, position=0, desc="0 files")
        self._files = 0

    def expect(self, files: int, size: int | None) -> None:
        with self._lock:
            self._files += files
            self._all.set_description(f"{self._files} files", refresh=False)
            self._all.total = (self._all.total or 0) + (size or 0) or None
            self._all.refresh()

    def advance(self, key: str, received: int, total: int | None) -> None:
        with self._lock:
            if key not in self._received and self._places:
                place = self._places.pop()
                self._bars[key] = self._bar(total=total, position=place, desc=key[-30:])
            self._set(key, received)
            bar = self._bars.get(key)
            if bar is not None:
                bar.update(received - bar.n)

    def done(self, key: str, size: int | None) -> None:
        with self._lock:
            # What was there already, or came in another process, counts as well.
            self._set(key, self._received.get(key, 0) if size is None else size)
            del self._received[key]
            bar = self._bars.pop(key, None)
            if bar is not None:
                self._places.append(abs(bar.pos))
                bar.close()

    def close(self) -> None:
        with self._lock:
            for bar in self._bars.values():
                bar.close()
            self._all.close()

    def _set(self, key: str, received: int) -> None:
        """Bring the bar of all bytes up to date; a body that starts anew takes some back."""
        self._all.update(received - self._received.get(key, 0))
        self._received[key] = received

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


class progress_for:  # noqa: N801  # a context manager that reads like a function
    """Give whom to tell for a ``progress=`` option, and end bars that were made for it.

    Raises:
        ConfigurationError: If bars are wanted and tqdm is missing.
    """

    def __init__(self, option: ProgressOption) -> None:
        self._bars: _Bars | None = None
        self._progress: Progress
        if option is None or option is False:
            self._progress = _Silence()
        elif option is True or option == "force":
            tqdm = _tqdm()
            if option == "force" or _someone_watches():
                self._progress = self._bars = _Bars(tqdm)
            else:
                self._progress = _Silence()
        elif all(callable(getattr(option, name, None)) for name in ("expect", "advance", "done")):
            self._progress = option
        else:
            raise ConfigurationError(
                f"progress={option!r}: pass True, False, 'force', or an object with the methods "
                "expect, advance and done."
            )

    def __enter__(self) -> Progress:
        return self._progress

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.close()


def _tqdm() -> Any:
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415  # optional, and slow to import
    except ImportError:
        raise ConfigurationError(
            "progress=True shows bars made by tqdm, which is not installed: "
            "pip install 'stac-gitlab[progress]'."
        ) from None
    return tqdm


def _someone_watches() -> bool:
    # There is no stderr where Python runs without a console.
    return (sys.stderr is not None and sys.stderr.isatty()) or "ipykernel" in sys.modules
