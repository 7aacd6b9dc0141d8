"""What users learn about a download: its progress, and what became of each asset."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal, Protocol

from stac_gitlab.errors import ConfigurationError, DownloadError, DownloadHTTPError, HTTPStatusError
from stac_gitlab.redaction import printable, quoted, redact

AssetStatus = Literal["downloaded", "resumed", "skipped", "failed", "planned"]

MAX_SINGLE_FAILURES = 3
"""More failures with the same cause are reported together."""

# The parts of an error message that differ between assets.
_SPECIFICS = re.compile(r"https?://\S+|'[^']*'|\"[^\"]*\"|\d+")


@dataclass(frozen=True)
class AssetResult:
    """The result of one asset.

    Attributes:
        key: The asset key.
        href: The redacted URL of the asset.
        path: The path of the file, even if it was not downloaded.
        size: Size in bytes, if it is known.
        checksum: The multihash of the file, if one was computed.
        seconds: Duration.
        status: ``downloaded``, ``resumed`` (after a broken connection), ``skipped`` (exists and is
            unchanged), ``failed``, or ``planned`` (in a dry run).
        verified: Whether a length or checksum proves that the file is complete.
        error: The error, if the asset failed.
    """

    key: str
    href: str
    path: Path | None = None
    size: int | None = None
    checksum: str | None = None
    seconds: float = 0.0
    status: AssetStatus = "downloaded"
    verified: bool = False
    error: Exception | None = None


@dataclass(frozen=True)
class DownloadReport(Mapping[str, AssetResult]):
    """The result of each asset, by asset key, in the order of the item.

    Attributes:
        results: The same as a plain mapping.
        item_path: The path of the item file, if one was written.
    """

    results: Mapping[str, AssetResult] = field(default_factory=dict)
    item_path: Path | None = None

    def __getitem__(self, key: str) -> AssetResult:
        return self.results[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    @property
    def paths(self) -> dict[str, Path]:
        """The paths of the files, by asset key."""
        complete = self._with_status("downloaded", "resumed", "skipped")
        return {result.key: result.path for result in complete if result.path is not None}

    @property
    def downloaded(self) -> list[AssetResult]:
        """The assets that were downloaded, resumed ones included."""
        return self._with_status("downloaded", "resumed")

    @property
    def skipped(self) -> list[AssetResult]:
        """The assets whose file exists and is unchanged."""
        return self._with_status("skipped")

    @property
    def failed(self) -> list[AssetResult]:
        """The assets that failed."""
        return self._with_status("failed")

    @property
    def planned(self) -> list[AssetResult]:
        """The assets that a dry run would download."""
        return self._with_status("planned")

    @property
    def bytes(self) -> int:
        """Bytes that were downloaded, or that a dry run would download, if sizes are known."""
        return sum(result.size or 0 for result in (*self.downloaded, *self.planned))

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    def _with_status(self, *statuses: AssetStatus) -> list[AssetResult]:
        return [result for result in self.results.values() if result.status in statuses]

    def summary(self) -> str:
        """Return the number of assets with each status, on one line."""
        sized = [_counted("downloaded", self.downloaded), _counted("planned", self.planned)]
        rest = [(len(self.skipped), "skipped"), (len(self.failed), "failed")]
        parts = [*sized, *(f"{count} {what}" for count, what in rest if count)]
        return ", ".join(filter(None, parts)) or "empty"

    def __str__(self) -> str:
        failures = _describe({result.key: result for result in self.failed})
        lines = [
            f"{result.status:<10} {human_size(result.size):>9}  {printable(result.key)}"
            for result in self.results.values()
            if result.status != "failed"
        ]
        lines += [f"{'failed':<10} {'-':>9}  {line}" for line in failures]
        return "\n".join([*lines, self.summary()])

    def _repr_html_(self) -> str:
        rows: list[tuple[str, str, str, str]] = [
            (result.status, human_size(result.size), printable(result.key), str(result.path or ""))
            for result in self.results.values()
            if result.status != "failed"
        ]
        failures = _describe({result.key: result for result in self.failed})
        rows += [("failed", "", line, "") for line in failures]
        cells = "".join(
            f"<tr><td>{status}</td><td style='text-align:right'>{size}</td>"
            f"<td>{escape(asset)}</td><td>{escape(path)}</td></tr>"
            for status, size, asset, path in rows
        )
        return (
            "<table><thead><tr><th>status</th><th>size</th><th>asset</th><th>path</th></tr></thead>"
            f"<tbody>{cells}</tbody><caption>{escape(self.summary())}</caption></table>"
        )


@dataclass(frozen=True)
class BatchReport(Mapping[str, DownloadReport]):
    """The report of each item, by item id, in the order of the items.

    Attributes:
        reports: The same as a plain mapping.
        catalog_path: The path of the catalog, if one was written.
    """

    reports: Mapping[str, DownloadReport] = field(default_factory=dict)
    catalog_path: Path | None = None

    def __getitem__(self, item_id: str) -> DownloadReport:
        return self.reports[item_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.reports)

    def __len__(self) -> int:
        return len(self.reports)

    @property
    def failed(self) -> dict[str, AssetResult]:
        """The assets that failed, by ``{item id}: {asset key}``."""
        return {
            f"{item_id}: {result.key}": result
            for item_id, report in self.reports.items()
            for result in report.failed
        }

    @property
    def bytes(self) -> int:
        """Bytes that were downloaded, or that a dry run would download."""
        return sum(report.bytes for report in self.reports.values())

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(report.ok for report in self.reports.values())

    def __str__(self) -> str:
        lines = [f"{printable(name)}: {report.summary()}" for name, report in self.reports.items()]
        return "\n".join(lines) or "empty"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(printable(name))}</td><td>{escape(report.summary())}</td></tr>"
            for name, report in self.reports.items()
        )
        return (
            "<table><thead><tr><th>item</th><th>assets</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )


def _counted(what: str, results: Sequence[AssetResult]) -> str:
    """Return the number of results and their size, or an empty text if there are none."""
    if not results:
        return ""
    sizes = [result.size for result in results if result.size is not None]
    more = " and more" if len(sizes) < len(results) else ""
    size = f"{human_size(sum(sizes))}{more}" if sizes else "size unknown"
    return f"{len(results)} {what} ({size})"


def download_error(
    report: DownloadReport | BatchReport,
    reading_errors: Sequence[Exception] = (),
    writing_errors: Sequence[Exception] = (),
) -> DownloadError:
    """Return one error for all failures of a run.

    Scripts that use requests catch its HTTPError, so it is one if all failures are error responses.

    Args:
        report: The report of the run.
        reading_errors: Exceptions that ended the reading of the items.
        writing_errors: Exceptions of items and catalogs that were not saved.
    """
    if isinstance(report, DownloadReport):
        failures = {result.key: result for result in report.failed}
        header = f"{len(failures)} of {len(report)} assets failed:" if failures else ""
    else:
        failures = report.failed
        header = f"{len(failures)} assets of {len(report)} items failed:" if failures else ""
    footer = [
        f"Reading the items failed after {len(report)} items ({type(error).__name__}): "
        f"{redact(str(error))}"
        for error in reading_errors
    ]
    footer += map(str, writing_errors[:MAX_SINGLE_FAILURES])
    if (more := len(writing_errors) - MAX_SINGLE_FAILURES) > 0:
        footer.append(f"{more} more files of items were not saved.")
    lines = [header, *(f"  {line}" for line in _describe(failures)), *footer]
    message = "\n".join(filter(None, lines))
    errors = {name: result.error for name, result in failures.items() if result.error is not None}
    causes = [error for error in errors.values() if not isinstance(error, StoppedError)]
    causes += [*reading_errors, *writing_errors]
    first = next(iter(causes), None)
    if isinstance(first, HTTPStatusError) and all(isinstance(e, HTTPStatusError) for e in causes):
        return DownloadHTTPError(message, response=first.response, errors=errors, report=report)
    return DownloadError(message, errors=errors, report=report)


class StoppedError(DownloadError):
    """The run was stopped before the file was complete."""

    @classmethod
    def of(cls, key: str, *, started: bool) -> StoppedError:
        """Return the error of an asset that was cancelled, or not even started."""
        what = "cancelled" if started else "not started"
        return cls(f"{quoted(key)}: {what}, because the run was stopped.")


def _describe(failures: Mapping[str, AssetResult]) -> list[str]:
    """Return a line for each failure. Many failures with the same cause share one line.

    Args:
        failures: Failed results, by the names to print.
    """
    groups: dict[object, list[tuple[str, str]]] = defaultdict(list)
    for name, result in failures.items():
        text = str(result.error).removeprefix(f"{quoted(result.key)}: ")
        groups[type(result.error), _SPECIFICS.sub("", text)].append((quoted(name), text))
    lines: list[str] = []
    for group in groups.values():
        if len(group) <= MAX_SINGLE_FAILURES:
            lines += [f"{name}: {text}" for name, text in group]
        else:
            examples = ", ".join(name for name, _ in group[:MAX_SINGLE_FAILURES])
            lines.append(f"{len(group)} assets ({examples}, …): {group[0][1]}")
    return lines


def human_size(size: int | None) -> str:
    """Return a size with its unit, such as ``1.5 MB``, in steps of 1000."""
    if size is None:
        return "-"
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


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
