"""The report of a download: what became of each asset."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stac_gitlab.errors import DownloadError, DownloadHTTPError, HTTPStatusError
from stac_gitlab.notebook import file_link, html_fields, html_table, html_text
from stac_gitlab.redaction import printable, quoted, redact

AssetStatus = Literal["downloaded", "resumed", "skipped", "failed", "planned"]

MAX_SINGLE_FAILURES = 3
"""More failures with the same cause are reported together."""

# The parts of an error message that differ between assets: URLs, paths, numbers and ids.
_SPECIFICS = re.compile(r"'[^']*'|\"[^\"]*\"|(?<!\S)[^\s\d/]*+[\d/]\S*")
# What a server says may differ for each request, in ways that nobody can know.
_SAID = re.compile(r" \(the server says: .*?\)(?=\.)", re.DOTALL)
_MAX_LINES = 20
# What a notebook shows of a report, so that it stays small.
_MAX_EXAMPLES = 5
_MAX_HTML_ROWS = 50


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        more = f", {self.path}" if self.error is None else f": {self.error}"
        what = f"{self.status}, {human_size(self.size)}, verified: {_yes_or_no(self)}{more}"
        return redact(f"<AssetResult {quoted(self.key)}: {what}>")

    def _repr_html_(self) -> str:
        fields = {
            "status": self.status,
            "file": file_link(self.path),
            "size": human_size(self.size),
            "verified": _yes_or_no(self),
            "checksum": self.checksum,
            "href": self.href,
            "error": self.error,
        }
        return html_fields(self.key, fields)


@dataclass(frozen=True, repr=False)
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
        parts = [_counted("downloaded", self.downloaded), _counted("planned", self.planned)]
        parts += [f"{len(self.skipped)} skipped"] if self.skipped else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        return ", ".join(filter(None, parts)) or "empty"

    def _failures(self) -> list[str]:
        return _describe({result.key: result for result in self.failed})

    def _complete(self) -> list[AssetResult]:
        return [result for result in self.results.values() if result.status != "failed"]

    def __str__(self) -> str:
        lines = [
            f"{result.status:<10} {human_size(result.size):>9}  {printable(result.key)}"
            for result in self._complete()
        ]
        lines += [f"{'failed':<10} {'-':>9}  {failure}" for failure in self._failures()]
        return "\n".join([*lines, self.summary()])

    def __repr__(self) -> str:
        return f"<DownloadReport: {self.summary()}>"

    def _repr_html_(self) -> str:
        complete, failures = self._complete(), self._failures()
        rows: list[tuple[object, ...]] = [("failed", "-", "", f) for f in failures[:_MAX_LINES]]
        rows += [
            (r.status, human_size(r.size), _yes_or_no(r), r.key, file_link(r.path))
            for r in complete[:_MAX_HTML_ROWS]
        ]
        rows += _rest(len(complete) - _MAX_HTML_ROWS)
        header = ("status", "size", "verified", "asset", "file")
        return html_table(rows, header=header, caption=self.summary())


@dataclass(frozen=True, repr=False)
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

    def summary(self) -> str:
        """Return the number of items, and of assets with each status, on one line."""
        if not self.reports:
            return "empty"
        results = {
            f"{item_id}: {key}": result
            for item_id, report in self.reports.items()
            for key, result in report.items()
        }
        items = "1 item" if len(self) == 1 else f"{len(self)} items"
        return f"{items}: {DownloadReport(results).summary()}"

    def __str__(self) -> str:
        lines = [
            f"{printable(name)}: {report.summary()}"
            for name, report in itertools.islice(self.reports.items(), _MAX_LINES)
        ]
        lines += [text for [text] in _rest(len(self) - _MAX_LINES)]
        lines += _describe(self.failed)
        return "\n".join(lines if len(self) == 1 else [*lines, self.summary()])

    def __repr__(self) -> str:
        return f"<BatchReport of {self.summary()}>"

    def _repr_html_(self) -> str:
        rows: list[tuple[object, ...]] = [
            (html_text(group[0][0], limit=60), html_text(group[0][1]), f"{len(group)} failed")
            for group in _groups_by_cause(self.failed)[:MAX_SINGLE_FAILURES]
        ]
        rows += [
            (html_text(name, limit=60), report.summary(), f"{_verified(report)} verified")
            for name, report in itertools.islice(self.reports.items(), _MAX_EXAMPLES)
        ]
        rows += _rest(len(self) - _MAX_EXAMPLES)
        if self.catalog_path is not None:
            rows.append((file_link(self.catalog_path),))
        return html_table(rows, caption=self.summary())


def _yes_or_no(result: AssetResult) -> str:
    return "yes" if result.verified else "no"


def _verified(report: DownloadReport) -> int:
    return sum(result.verified for result in report.values())


def _rest(count: int) -> list[tuple[str]]:
    return [(f"… and {count} more",)] if count > 0 else []


def _counted(what: str, results: Sequence[AssetResult]) -> str:
    """Return the number of results and their size, or an empty text if there are none."""
    if not results:
        return ""
    sizes = [result.size for result in results if result.size is not None]
    more = " and more" if len(sizes) < len(results) else ""
    size = f"{human_size(sum(sizes))}{more}" if sizes else "size unknown"
    return f"{len(results)} {what} ({size})"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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
        header = f"{len(failures)} of {_number(len(report), 'asset')} failed:"
    else:
        failures = report.failed
        assets, items = _number(len(failures), "asset"), _number(len(report), "item")
        header = f"{assets} of {items} failed:"
    footer = [
        f"Reading the items failed after {len(report)} items ({type(error).__name__}): "
        f"{redact(str(error))}"
        for error in reading_errors
    ]
    footer += map(str, writing_errors[:MAX_SINGLE_FAILURES])
    if (more := len(writing_errors) - MAX_SINGLE_FAILURES) > 0:
        footer.append(f"{more} more files of items were not saved.")
    lines = [header, *(f"  {line}" for line in _describe(failures))] if failures else []
    message = "\n".join([*lines, *footer])
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
    """Return a line for each failure. Many failures with the same cause share one line."""
    lines = _lines(_groups(failures, lambda text: _SPECIFICS.sub("", text)))
    return lines if len(lines) <= _MAX_LINES else _lines(_groups_by_cause(failures))


# The names of assets that failed with the same cause, in quotes, and their messages.
_Group = list[tuple[str, str]]


def _groups_by_cause(failures: Mapping[str, AssetResult]) -> list[_Group]:
    return _groups(failures, lambda text: _SPECIFICS.sub("", _SAID.sub("", text)))


def _groups(failures: Mapping[str, AssetResult], cause_in: Callable[[str], str]) -> list[_Group]:
    groups: dict[object, _Group] = defaultdict(list)
    for name, result in failures.items():
        text = str(result.error).removeprefix(f"{quoted(result.key)}: ")
        status = getattr(result.error, "status_code", None)
        groups[type(result.error), status, cause_in(text)].append((quoted(name), text))
    return list(groups.values())


def _lines(groups: Iterable[_Group]) -> list[str]:
    lines: list[str] = []
    for group in groups:
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
