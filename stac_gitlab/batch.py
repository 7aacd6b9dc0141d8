"""Many items brought home in one run: planned as they are needed, and none at the cost of another.

Items are taken from their iterable only when there is room for their assets. A few of them take
turns, so that a large one does not keep the rest waiting. What is wrong with one item, or with the
iterable itself, is told at the end, when everything else is done.
"""

from __future__ import annotations

import string
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import pystac

from stac_gitlab.arguments import expect
from stac_gitlab.auth import scrub
from stac_gitlab.crew import Crew
from stac_gitlab.errors import (
    ConfigurationError,
    DownloadError,
    NothingToDownloadWarning,
)
from stac_gitlab.jobs import Job
from stac_gitlab.names import relative_path, shown
from stac_gitlab.plan import Options, Planner, check_space
from stac_gitlab.progress import Progress, progress_for
from stac_gitlab.report import AssetResult, BatchReport, DownloadReport
from stac_gitlab.stac_io import GitLabStacIO

__all__ = ["DEFAULT_TEMPLATE", "Batch"]

DEFAULT_TEMPLATE = "{collection}/{id}/{key}"

_FIELDS = frozenset({"collection", "id", "key", "year", "month", "day"})
# Of the items, this many take turns.
_ITEMS_AT_ONCE = 4


class Batch:
    """The assets of many items. Works once.

    Args:
        stac_io: The reader whose session to use.
        folder: The output folder.
        template: Where an asset goes below it.
        options: What the caller wishes for.

    Raises:
        ConfigurationError: If the template makes no sense.
        DownloadError: If nothing can be written to the folder.
    """

    def __init__(
        self, stac_io: GitLabStacIO, folder: Path, template: str, options: Options
    ) -> None:
        self._template = _checked(template)
        self._stac_io = stac_io
        self._options = options
        self._planner = Planner(stac_io.session, folder, options)
        self._results: dict[str, dict[str, AssetResult | None]] = {}
        self._broken: Exception | None = None

    def run(self, items: Iterable[pystac.Item], *, workers: int | None) -> BatchReport:
        """Bring everything home, and return what became of it.

        Args:
            items: The items, taken as they are needed.
            workers: How many files to download at a time; None for as many as pay.

        Raises:
            DownloadError: If anything failed, `items` included.
        """
        options = self._options
        with progress_for(None if options.dry_run else options.progress) as told:
            jobs = self._jobs(items, told)
            if options.dry_run:
                for job in jobs:
                    self._note(job, job.forecast())
            else:
                crew = Crew(
                    self._stac_io,
                    told,
                    workers=workers,
                    executor=options.executor,
                    fail_fast=options.fail_fast,
                )
                try:
                    crew.do(jobs, self._note)
                finally:
                    self._planner.tidy_up()
        report = self._report()
        if self._broken is not None or not report.ok:
            raise self._failure(report) from self._broken
        if report and not any(report.values()):
            warnings.warn(
                f"None of {len(report)} items has an asset that fits (roles={options.roles!r}); "
                "there is nothing to download.",
                NothingToDownloadWarning,
                stacklevel=3,
            )
        return report

    def _note(self, job: Job, result: AssetResult) -> None:
        self._results[job.item_name][job.key] = result

    def _report(self) -> BatchReport:
        return BatchReport(
            {
                name: DownloadReport({key: r for key, r in results.items() if r is not None})
                for name, results in self._results.items()
            }
        )

    def _failure(self, report: BatchReport) -> DownloadError:
        failed = report.failed
        errors = {name: r.error for name, r in failed.items() if r.error is not None}
        lines = [f"{len(failed)} assets of {len(report)} items failed:"] if failed else []
        lines += [f"  {shown(name)}: {error}" for name, error in errors.items()]
        if self._broken is not None:
            secrets = self._stac_io.session.credentials.secrets()
            lines.append(
                f"After {len(report)} items there were no more to be had "
                f"({type(self._broken).__name__}): {scrub(str(self._broken), secrets)}"
            )
        return DownloadError("\n".join(lines), errors=errors, report=report)

    # -- what is done next --------------------------------------------------------------------

    def _jobs(self, items: Iterable[pystac.Item], told: Progress) -> Iterator[Job]:
        """Yield the jobs of a few items in turn."""
        waiting = self._taken_from(items)
        turns: deque[Iterator[Job]] = deque()
        while True:
            while len(turns) < _ITEMS_AT_ONCE:
                item = next(waiting, None)
                if item is None:
                    break
                jobs, refused = self._plan(item)
                if refused and self._options.fail_fast:
                    return
                told.expect(len(jobs), sum(job.source.size or 0 for job in jobs))
                turns.append(iter(jobs))
            if not turns:
                return
            turn = turns.popleft()
            job = next(turn, None)
            if job is not None:
                yield job
                turns.append(turn)

    def _taken_from(self, items: Iterable[pystac.Item]) -> Iterator[pystac.Item]:
        try:
            for item in items:
                if not isinstance(item, pystac.Item):
                    raise ConfigurationError(f"an item was expected, {item!r} came.")
                yield item
        except Exception as error:  # noqa: BLE001  # told at the end, whatever it is
            self._broken = error

    def _plan(self, item: pystac.Item) -> tuple[list[Job], list[AssetResult]]:
        """Return the jobs of an item, and what cannot become one."""
        chosen = self._options.choose(item)
        name = self._name_of(item)
        self._results[name] = dict.fromkeys(chosen)
        jobs, refused = self._planner.plan(
            item, chosen, lambda key: self._path(item, key), item_name=name
        )
        if not self._options.dry_run:
            try:
                check_space(jobs)
            except DownloadError as full:
                refused += [job.result("failed", error=full) for job in jobs]
                jobs = []
        self._results[name].update((result.key, result) for result in refused)
        return jobs, refused

    def _name_of(self, item: pystac.Item) -> str:
        """Return what the report calls an item: its id, or more where that is taken."""
        name = str(item.id)
        if name in self._results:
            name = f"{item.collection_id}/{item.id}"
        again = name
        number = 2
        while again in self._results:
            again = f"{name} ({number})"
            number += 1
        return again

    def _path(self, item: pystac.Item, key: str) -> str:
        moment = item.datetime or _start_of(item)
        # Each by itself, because in the middle of a path more would pass.
        return self._template.format(
            collection=relative_path(str(item.collection_id or "no-collection")),
            id=relative_path(str(item.id)),
            key=key,
            year="undated" if moment is None else f"{moment.year:04}",
            month="undated" if moment is None else f"{moment.month:02}",
            day="undated" if moment is None else f"{moment.day:02}",
        )


def _start_of(item: pystac.Item) -> datetime | None:
    try:
        return item.common_metadata.start_datetime
    except (ValueError, TypeError, OverflowError):
        # Not a date, whatever it is; an item like that has files all the same.
        return None


def _checked(template: str) -> str:
    expect("template", template, str, wanted="a text such as '{id}/{key}'")
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        if fields <= _FIELDS:
            template.format(**dict.fromkeys(_FIELDS, ""))
    except (ValueError, LookupError) as error:
        raise ConfigurationError(f"template={template!r}: {error}.") from None
    if not fields <= _FIELDS or "key" not in fields:
        raise ConfigurationError(
            f"template={template!r}: use {{key}}, and of the others only "
            + ", ".join(f"{{{name}}}" for name in sorted(_FIELDS - {"key"}))
            + "."
        )
    return template
