"""The threads that do jobs: as many as pay, fed as they go, stopped together.

Without a fixed number, as many jobs are under way as the server rewards: twice as many after each
round that was faster, up to a ceiling, and no more after one that was not. How little a server
bears is not decided here: a 429 slows the session that all jobs share.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from stac_gitlab.auth import scrub
from stac_gitlab.errors import DownloadError
from stac_gitlab.jobs import Job, OnBytes, do_job
from stac_gitlab.names import shown
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
    """Does jobs in threads of its own, or in an executor of the caller's.

    Args:
        stac_io: The reader whose session to use.
        workers: How many jobs to do at a time; None for as many as pay.
        executor: Any ``concurrent.futures.Executor``. What goes to another process is pickled.
        on_bytes: Told about bytes as they come; not from an executor, which may be elsewhere.
    """

    def __init__(
        self,
        stac_io: GitLabStacIO,
        *,
        workers: int | None = None,
        executor: Executor | None = None,
        on_bytes: OnBytes | None = None,
    ) -> None:
        self._stac_io = stac_io
        self._executor = executor
        self._on_bytes = on_bytes
        self._stop = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        if executor is None:
            ceiling = workers or MAX_WORKERS
            self._pool = ThreadPoolExecutor(ceiling, thread_name_prefix="stac-gitlab")
            self._width = _Width(workers or START_WORKERS, ceiling)
        else:
            self._width = _Width(_SUBMITTED_AT_ONCE, _SUBMITTED_AT_ONCE)

    def stop(self) -> None:
        """Let jobs under way end as failed, within a second."""
        self._stop.set()

    def do(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, AssetResult]]:
        """Yield each job with what became of it, as they end.

        Jobs are taken from `jobs` as places get free. Whatever ends the iteration, an interrupt
        included, ends the jobs under way before it is passed on.
        """
        done: queue.SimpleQueue[Future[AssetResult]] = queue.SimpleQueue()
        under_way: dict[Future[AssetResult], Job] = {}
        waiting = iter(jobs)
        exhausted = False
        try:
            while True:
                while not exhausted and not self._stop.is_set():
                    if len(under_way) >= self._width.now:
                        break
                    job = next(waiting, None)
                    if job is None:
                        exhausted = True
                        break
                    future = self._submit(job)
                    under_way[future] = job
                    future.add_done_callback(done.put)
                if not under_way:
                    return
                future = _next(done)
                job = under_way.pop(future)
                result = _result(future, job)
                self._width.note(result.size or 0)
                yield job, result
        finally:
            self._stop.set()
            for future in under_way:
                future.cancel()
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, job: Job) -> Future[AssetResult]:
        if self._pool is not None:
            return self._pool.submit(
                do_job, job, self._stac_io, stop=self._stop, on_bytes=self._on_bytes
            )
        assert self._executor is not None  # noqa: S101  # one of the two is there
        return self._executor.submit(do_job, job, self._stac_io)


def _next(done: queue.SimpleQueue[Future[AssetResult]]) -> Future[AssetResult]:
    # With a timeout, because waiting without one cannot be interrupted everywhere.
    while True:
        with contextlib.suppress(queue.Empty):
            return done.get(timeout=0.5)


def _result(future: Future[AssetResult], job: Job) -> AssetResult:
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001  # an executor may fail in any way of its own
        failure = DownloadError(
            f"{shown(job.key)}: the executor could not do it ({type(error).__name__}: "
            f"{scrub(str(error))})."
        )
        return job.result("failed", error=failure)


class _Width:
    """How many jobs are done at a time: doubled while it pays."""

    def __init__(self, start: int, ceiling: int) -> None:
        self.now = start
        self._ceiling = ceiling
        self._began = time.monotonic()
        self._jobs = 0
        self._bytes = 0
        self._best = 0.0

    def note(self, size: int) -> None:
        """Note the end of a job; at the end of a round, decide."""
        if self.now >= self._ceiling:
            return
        self._jobs += 1
        self._bytes += size
        if self._jobs < 2 * self.now:
            return
        elapsed = max(time.monotonic() - self._began, 1e-6)
        # A file costs a round trip whatever its size: what counts is files where they are small,
        # and bytes where they are large.
        rate = (self._jobs + self._bytes / 2**18) / elapsed
        if rate >= self._best * _WORTH_IT:
            self.now = min(self._ceiling, 2 * self.now)
        else:
            self._ceiling = self.now
        self._best = max(self._best, rate)
        self._began, self._jobs, self._bytes = time.monotonic(), 0, 0
