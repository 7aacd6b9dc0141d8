"""What became of the assets of a download: plain data that prints, pickles and shows itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Literal

from stac_gitlab.redaction import quoted

AssetStatus = Literal["downloaded", "resumed", "skipped", "failed", "planned"]


@dataclass(frozen=True)
class AssetResult:
    """What became of one asset.

    Attributes:
        key: The asset key.
        href: Where it came from, without secrets.
        path: Where the file is, or would be.
        size: Bytes in the file, as far as they are known.
        checksum: The multihash of the bytes, where one was computed.
        seconds: How long it took.
        status: ``downloaded``, ``resumed`` (broken off and continued), ``skipped`` (there already
            and unchanged), ``failed``, or ``planned`` (in a dry run).
        verified: Whether a length or checksum proves that the file is whole.
        error: What went wrong, if something did.
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
    """What became of every asset, by its key, in the item's order.

    Attributes:
        results: The same as a plain mapping.
        item_path: Where the item itself was written, if it was.
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
        """Where the files are, by asset key."""
        there = self._with_status("downloaded", "resumed", "skipped")
        return {result.key: result.path for result in there if result.path is not None}

    @property
    def downloaded(self) -> list[AssetResult]:
        """The assets that came over the network."""
        return self._with_status("downloaded", "resumed")

    @property
    def skipped(self) -> list[AssetResult]:
        """The assets that were there already."""
        return self._with_status("skipped")

    @property
    def failed(self) -> list[AssetResult]:
        """The assets that could not be had."""
        return self._with_status("failed")

    @property
    def planned(self) -> list[AssetResult]:
        """The assets that a dry run would download."""
        return self._with_status("planned")

    @property
    def bytes(self) -> int:
        """Bytes that were downloaded, or would be, as far as sizes are known."""
        return sum(result.size or 0 for result in (*self.downloaded, *self.planned))

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    def _with_status(self, *statuses: AssetStatus) -> list[AssetResult]:
        return [result for result in self.results.values() if result.status in statuses]

    def summary(self) -> str:
        """Return how many assets there are of each kind, on one line."""
        come = [_counted("downloaded", self.downloaded), _counted("planned", self.planned)]
        rest = [(len(self.skipped), "skipped"), (len(self.failed), "failed")]
        parts = [*come, *(f"{count} {what}" for count, what in rest if count)]
        return ", ".join(filter(None, parts)) or "empty"

    def __str__(self) -> str:
        lines = [
            f"{result.status:<10} {human_size(result.size):>9}  {_plain(result.key)}"
            + (f"  {result.error}" if result.error else "")
            for result in self.results.values()
        ]
        return "\n".join([*lines, self.summary()])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{result.status}</td><td style='text-align:right'>{human_size(result.size)}"
            f"</td><td>{escape(_plain(result.key))}</td>"
            f"<td>{escape(str(result.error or result.path or ''))}</td></tr>"
            for result in self.results.values()
        )
        return (
            "<table><thead><tr><th>status</th><th>size</th><th>asset</th><th>path or error</th>"
            f"</tr></thead><tbody>{rows}</tbody><caption>{escape(self.summary())}</caption></table>"
        )


@dataclass(frozen=True)
class BatchReport(Mapping[str, DownloadReport]):
    """What became of every item of a batch, by its id, in the order of the items."""

    reports: Mapping[str, DownloadReport] = field(default_factory=dict)

    def __getitem__(self, item_id: str) -> DownloadReport:
        return self.reports[item_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.reports)

    def __len__(self) -> int:
        return len(self.reports)

    @property
    def failed(self) -> dict[str, AssetResult]:
        """The assets that could not be had, by item id and asset key."""
        return {
            f"{item_id}: {result.key}": result
            for item_id, report in self.reports.items()
            for result in report.failed
        }

    @property
    def bytes(self) -> int:
        """Bytes that were downloaded, or would be."""
        return sum(report.bytes for report in self.reports.values())

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(report.ok for report in self.reports.values())

    def __str__(self) -> str:
        lines = [f"{_plain(name)}: {report.summary()}" for name, report in self.reports.items()]
        return "\n".join(lines) or "empty"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(_plain(name))}</td><td>{escape(report.summary())}</td></tr>"
            for name, report in self.reports.items()
        )
        return (
            "<table><thead><tr><th>item</th><th>assets</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )


def _counted(what: str, results: Sequence[AssetResult]) -> str:
    """Return how many there are and how large, or nothing where there are none."""
    if not results:
        return ""
    sizes = [result.size for result in results if result.size is not None]
    more = " and more" if len(sizes) < len(results) else ""
    size = f"{human_size(sum(sizes))}{more}" if sizes else "size unknown"
    return f"{len(results)} {what} ({size})"


def _plain(name: str) -> str:
    """Return a key or id as it can be printed, without quotes."""
    text = quoted(name)
    return text[1:] if text.endswith("…") else text[1:-1]


def human_size(size: int | None) -> str:
    """Return bytes as a person reads them: ``1.5 MB``, with steps of 1000."""
    if size is None:
        return "-"
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
