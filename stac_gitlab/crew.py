"""The threads that do jobs: as many as pay, fed as they go, stopped together.

Without a fixed number, as many jobs are under way as the server rewards: twice as many after each
round that was faster, up to a ceiling, and no more after one that was not. How little a server
bears is not decided here: a 429 slows the session that all jobs share.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from stac_gitlab.auth import scrub
from stac_gitlab.errors import DownloadError
from stac_gitlab.jobs import Job, do_job
from stac_gitlab.names import shown
from stac_gitlab.progress import Progress
from stac_gitlab.report import AssetResult
from stac_gitlab.stac_io import GitLabStacIO

__all__ = ["MAX_WORKERS", "START_WORKERS", "Crew"]

START_WORKERS = 8
MAX_WORKERS = 64

# A round has to be this much faster than the one before for another doubling.
_WORTH_IT = 1.15
# In an executor of the caller's, where the number of workers is not ours to know.
_SUBMITTED_AT_ONCE = 256


class Crew:
    """Does jobs in threads of its own, or in an executor of the caller's. Works once.

    Args:
        stac_io: The reader whose session to use.
        told: Who is told how far it is. What goes to another process tells only its end.
        workers: How many jobs to do at a time; None for as many as pay.
        executor: Any ``concurrent.futures.Executor``. What goes to another process is pickled.
        fail_fast: Whether to end everything with the first failure.
    """

    def __init__(
        self,
        stac_io: GitLabStacIO,
        told: Progress,
        *,
        workers: int | None = None,
        executor: Executor | None = None,
        fail_fast: bool = False,
    ) -> None:
        self._stac_io = stac_io
        self._told = told
        self._fail_fast = fail_fast
        self._stop = threading.Event()
        self._takes_more = True
        self._own: ThreadPoolExecutor | None = None
        if executor is None:
            ceiling = workers or MAX_WORKERS
            executor = self._own = ThreadPoolExecutor(ceiling, thread_name_prefix="stac-gitlab")
            self._width = _Width(workers or START_WORKERS, ceiling)
        else:
            self._width = _Width(_SUBMITTED_AT_ONCE, _SUBMITTED_AT_ONCE)
        self._executor = executor
        # Its own kind alone: there are executors derived from it that work in other interpreters.
        self._is_here = type(executor) is ThreadPoolExecutor
        self._reader = _Reader(stac_io)

    def do(self, jobs: Iterable[Job], note: Callable[[Job, AssetResult], None]) -> None:
        """Do all jobs, and pass each with what became of it to `note`, as they end.

        Jobs are taken from `jobs` as places get free. Whatever ends it, an interrupt included, ends
        the jobs under way before it is passed on.
        """
        done: queue.SimpleQueue[Future[AssetResult]] = queue.SimpleQueue()
        under_way: dict[Future[AssetResult], Job] = {}
        waiting = iter(jobs)
        try:
            while True:
                while self._takes_more and len(under_way) < self._width.now:
                    job = next(waiting, None)
                    if job is None:
                        break
                    future = self._submit(job)
                    under_way[future] = job
                    future.add_done_callback(done.put)
                if not under_way:
                    return
                future = _next(done)
                job = under_way.pop(future)
                result = self._result(future, job)
                self._width.note(result)
                self._told.done(job.name, result.size)
                note(job, result)
                if self._fail_fast and result.error is not None:
                    self._call_off(under_way)
        finally:
            running = self._call_off(under_way)
            if self._own is not None:
                self._own.shutdown(wait=True, cancel_futures=True)
            elif self._is_here:
                wait(running)

    def _submit(self, job: Job) -> Future[AssetResult]:
        try:
            if self._is_here:
                return self._executor.submit(
                    do_job, job, self._stac_io, stop=self._stop, on_bytes=self._told.advance
                )
            return self._executor.submit(_do_elsewhere, job, self._reader)
        except Exception as error:  # noqa: BLE001  # an executor may fail in any way of its own
            # One that takes this job no more takes no other either.
            self._takes_more = False
            refused: Future[AssetResult] = Future()
            refused.set_exception(error)
            return refused

    def _call_off(self, under_way: Iterable[Future[AssetResult]]) -> list[Future[AssetResult]]:
        """Let everything end as soon as it can; return what has begun already."""
        self._takes_more = False
        self._stop.set()
        return [future for future in list(under_way) if not future.cancel()]

    def _result(self, future: Future[AssetResult], job: Job) -> AssetResult:
        try:
            return future.result()
        except CancelledError:
            return job.result("failed", error=DownloadError(f"{shown(job.key)}: called off."))
        except Exception as error:  # noqa: BLE001  # of the executor, or of who is told
            text = scrub(str(error), self._stac_io.session.credentials.secrets())
            failure = DownloadError(
                f"{shown(job.key)}: it could not be done ({type(error).__name__}: {text})."
            )
            return job.result("failed", error=failure)


class _Reader:
    """Takes a reader along; in this process as it is, to others as bytes."""

    def __init__(self, stac_io: GitLabStacIO) -> None:
        self.stac_io = stac_io

    def __reduce__(self) -> tuple[Any, ...]:
        return _PickledReader, (pickle.dumps(self.stac_io),)


@dataclass(frozen=True)
class _PickledReader:
    """A reader that is made where a job needs it, so that the job fails where it cannot be."""

    pickled: bytes

    @property
    def stac_io(self) -> GitLabStacIO:
        return _reader_from(self.pickled)


@lru_cache(maxsize=8)
def _reader_from(pickled: bytes) -> GitLabStacIO:
    """Make a reader, once in each process for all jobs: they share its connections."""
    stac_io: GitLabStacIO = pickle.loads(pickled)  # noqa: S301  # pickled by ourselves, just before
    return stac_io


def _do_elsewhere(job: Job, reader: _Reader | _PickledReader) -> AssetResult:
    return do_job(job, reader.stac_io)


def _next(done: queue.SimpleQueue[Future[AssetResult]]) -> Future[AssetResult]:
    # With a timeout, because waiting without one cannot be interrupted everywhere.
    while True:
        with contextlib.suppress(queue.Empty):
            return done.get(timeout=0.5)


class _Width:
    """How many jobs are done at a time: doubled while it pays."""

    def __init__(
        self, start: int, ceiling: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.now = start
        self._ceiling = ceiling
        self._clock = clock
        self._began = clock()
        self._jobs = 0
        self._bytes = 0
        self._best = 0.0

    def note(self, result: AssetResult) -> None:
        """Note the end of a job; at the end of a round, decide."""
        if self.now >= self._ceiling:
            return
        self._jobs += 1
        if result.status in ("downloaded", "resumed"):
            self._bytes += result.size or 0
        if self._jobs < 2 * self.now:
            return
        elapsed = max(self._clock() - self._began, 1e-6)
        # A file costs a round trip whatever its size: what counts is files where they are small,
        # and bytes where they are large.
        rate = (self._jobs + self._bytes / 2**18) / elapsed
        if rate >= self._best * _WORTH_IT:
            self.now = min(self._ceiling, 2 * self.now)
        else:
            self._ceiling = self.now
        self._best = max(self._best, rate)
        self._began, self._jobs, self._bytes = self._clock(), 0, 0
