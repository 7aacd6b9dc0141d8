"""The threads that do jobs: as many as pay, fed as they go, stopped together.

Without a fixed number, a single thread begins. Where that is busy all the time, others would only
fight with it over the interpreter. Where it waits for the network, several go on, and then as many
as it takes for one of them to compute at any time, as long as that pays. How little a server bears
is not decided here: a 429 slows the session that all jobs share.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

from stac_gitlab.download.progress import Progress
from stac_gitlab.download.report import AssetResult
from stac_gitlab.download.task import DownloadTask, run_task
from stac_gitlab.errors import DownloadError
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import quoted, redact

START_WORKERS = 16
MAX_WORKERS = 64
# Seconds after which to look at what has ended. A thread that had to wake another one for each
# small file would spend a fifth of its time on that.
_LOOK_EVERY = 0.01
# So many jobs show whether a single thread is busy.
_ALONE_FOR = 4
# A round has to be this much faster than with fewer, and the next have as many more.
_WORTH_IT = 1.15
# If it is not, that may be the doing of others: rounds up to so many times as long are to tell.
_LONGEST = 4
# In an executor of the caller's, where the number of workers is not ours to know.
_SUBMITTED_AT_ONCE = 256


class _Ended(NamedTuple):
    """The end of a job.

    Attributes:
        job: The job.
        outcome: What became of it, or what was raised.
        busy: Seconds of processor time that its thread took, where that is known.
        at: When it ended, in seconds.
    """

    task: DownloadTask
    outcome: AssetResult | BaseException
    busy: float
    at: float


class DownloadPool:
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
        progress: Progress,
        *,
        workers: int | None = None,
        executor: Executor | None = None,
        fail_fast: bool = False,
    ) -> None:
        self._progress = progress
        self._fail_fast = fail_fast
        self._stop = threading.Event()
        self._ended: deque[_Ended] = deque()
        self._news = threading.Event()
        self._under_way = 0
        do = partial(run_task, stac_io=stac_io, stop=self._stop, on_bytes=progress.advance)
        self._backend: _Backend
        if executor is None:
            self._backend = _ThreadBackend(do, self._note_end)
            self._concurrency = _Concurrency(workers or 1, workers or MAX_WORKERS)
        else:
            # Its own kind alone: there are executors derived from it that work in other
            # interpreters.
            is_here = type(executor) is ThreadPoolExecutor
            call = do if is_here else partial(_do_elsewhere, reader=_Reader(stac_io))
            self._backend = _ExecutorBackend(executor, call, self._note_end, wait_for_begun=is_here)
            self._concurrency = _Concurrency(_SUBMITTED_AT_ONCE, _SUBMITTED_AT_ONCE)

    def do(
        self, tasks: Iterable[DownloadTask], note: Callable[[DownloadTask, AssetResult], None]
    ) -> None:
        """Do all jobs, and pass each with what became of it to `note`, as they end.

        Jobs that are yet to be made are taken from `jobs` as places get free. Whatever ends it, an
        interrupt included, ends the jobs under way before it is passed on.
        """
        waiting = iter(tasks)
        ahead = len(tasks) if isinstance(tasks, Sequence) else 1
        try:
            while self._hand_out(waiting, ahead):
                self._wait_for_news()
                self._take_in(note)
        finally:
            self._stop.set()
            self._backend.call_off()
            self._backend.leave()

    def _hand_out(self, waiting: Iterator[DownloadTask], ahead: int) -> bool:
        """Hand out jobs as long as there are places; tell whether any is under way."""
        while self._backend.takes_more and self._under_way < self._concurrency.now + ahead:
            task = next(waiting, None)
            if task is None:
                break
            self._backend.submit(task)
            self._under_way += 1
        self._backend.widen(min(self._under_way, self._concurrency.now))
        return self._under_way > 0

    def _wait_for_news(self) -> None:
        has_news = self._news.wait(_LOOK_EVERY)
        self._news.clear()
        if not has_news and not self._ended:
            self._concurrency.note_silence()

    def _take_in(self, note: Callable[[DownloadTask, AssetResult], None]) -> None:
        """Pass on what has ended meanwhile."""
        while self._ended:
            ended = self._ended.popleft()
            self._under_way -= 1
            result = self._result(ended)
            self._concurrency.note(result, busy=ended.busy, at=ended.at)
            self._progress.done(ended.task.name, result.size)
            note(ended.task, result)
            if self._stop.is_set():
                self._under_way -= self._backend.call_off()

    def _note_end(self, ended: _Ended, *, is_idle: bool = True) -> None:
        failed = not isinstance(ended.outcome, AssetResult) or ended.outcome.error is not None
        if failed and self._fail_fast:
            # Here, in the thread that failed: it would go on with the next job before anyone hears.
            self._stop.set()
            self._backend.takes_more = False
        self._ended.append(ended)
        if is_idle or failed:
            self._news.set()

    def _result(self, ended: _Ended) -> AssetResult:
        task, outcome = ended.task, ended.outcome
        if isinstance(outcome, AssetResult):
            return outcome
        if not isinstance(outcome, Exception):
            # An interrupt, or an exit, of whoever is told.
            raise outcome
        if isinstance(outcome, CancelledError):
            return task.result("failed", error=DownloadError(f"{quoted(task.key)}: called off."))
        # Of the executor, or of who is told.
        text = redact(str(outcome))
        failure = DownloadError(
            f"{quoted(task.key)}: it could not be done ({type(outcome).__name__}: {text})."
        )
        return task.result("failed", error=failure)


# -- who does it ----------------------------------------------------------------------------------


class _Backend(Protocol):
    """Those who do jobs."""

    takes_more: bool

    def submit(self, task: DownloadTask) -> None:
        """Hand over a job."""

    def widen(self, width: int) -> None:
        """See to it that so many jobs are done at a time."""

    def call_off(self) -> int:
        """Take no more; forget what has not begun, and return how much of it there is no end of."""

    def leave(self) -> None:
        """Wait for what has begun."""


class _ThreadBackend:
    """Threads of our own. They take the next job by themselves."""

    def __init__(
        self, do: Callable[[DownloadTask], AssetResult], note_end: Callable[..., None]
    ) -> None:
        self.takes_more = True
        self._do = do
        self._note_end = note_end
        self._jobs: queue.SimpleQueue[DownloadTask | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, task: DownloadTask) -> None:
        self._jobs.put(task)

    def widen(self, width: int) -> None:
        while len(self._threads) < width:
            name = f"stac-gitlab_{len(self._threads)}"
            # A daemon: a slow server must not keep an interpreter from ending.
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def call_off(self) -> int:
        self.takes_more = False
        forgotten = 0
        with contextlib.suppress(queue.Empty):
            while self._jobs.get_nowait() is not None:
                forgotten += 1
        return forgotten

    def leave(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            # One that an interrupt kept from starting has nothing to end.
            if thread.ident is not None:
                thread.join()

    def _work(self) -> None:
        outcome: AssetResult | BaseException
        while self.takes_more and (task := self._jobs.get()) is not None:
            began = time.thread_time()
            try:
                outcome = self._do(task)
            except BaseException as error:  # noqa: BLE001  # of who is told, whatever it is
                outcome = error
            ended = _Ended(task, outcome, time.thread_time() - began, time.monotonic())
            self._note_end(ended, is_idle=self._jobs.empty())


class _ExecutorBackend:
    """An executor of the caller's."""

    def __init__(
        self,
        executor: Executor,
        call: Callable[[DownloadTask], AssetResult],
        note_end: Callable[..., None],
        *,
        wait_for_begun: bool,
    ) -> None:
        self.takes_more = True
        self._executor = executor
        self._call = call
        self._note_end = note_end
        self._wait_for_begun = wait_for_begun
        self._under_way: dict[Future[AssetResult], DownloadTask] = {}

    def submit(self, task: DownloadTask) -> None:
        try:
            future = self._executor.submit(self._call, task)
        except Exception as error:  # noqa: BLE001  # an executor may fail in any way of its own
            # One that takes this job no more takes no other either.
            self.takes_more = False
            self._note_end(_Ended(task, error, 0.0, time.monotonic()))
            return
        self._under_way[future] = task
        future.add_done_callback(self._done)

    def widen(self, width: int) -> None:
        """Leave it as it is: it is not ours."""

    def call_off(self) -> int:
        self.takes_more = False
        for future in list(self._under_way):
            # What is cancelled ends, too.
            future.cancel()
        return 0

    def leave(self) -> None:
        if self._wait_for_begun:
            wait(list(self._under_way))

    def _done(self, future: Future[AssetResult]) -> None:
        task = self._under_way.pop(future)
        outcome: AssetResult | BaseException
        try:
            outcome = future.result()
        except BaseException as error:  # noqa: BLE001  # of the executor, whatever it is
            outcome = error
        self._note_end(_Ended(task, outcome, 0.0, time.monotonic()))


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


def _do_elsewhere(task: DownloadTask, reader: _Reader | _PickledReader) -> AssetResult:
    return run_task(task, reader.stac_io)


class _Concurrency:
    """How many jobs are done at a time: one while that is busy, then more while that pays."""

    def __init__(self, start: int, ceiling: int) -> None:
        self._ceiling = ceiling
        self._with_fewer = 0.0
        self._next_round(start, time.monotonic())

    def note_silence(self) -> None:
        """Note that nothing has ended for a while: one that works alone is waiting."""
        if self.now < min(START_WORKERS, self._ceiling):
            self._next_round(START_WORKERS, time.monotonic())

    def note(self, result: AssetResult, *, busy: float, at: float) -> None:
        """Note the end of a job; at the end of a round, decide.

        Args:
            result: What became of it.
            busy: Seconds of processor time that it took.
            at: When it ended, in seconds.
        """
        if self.now >= self._ceiling:
            return
        if self._connecting:
            # Whoever is new connects first. That is not what a job takes.
            self._connecting -= 1
            self._began = at
            return
        self._jobs += 1
        self._seconds += result.seconds
        self._busy += busy
        if result.status in ("downloaded", "resumed"):
            self._bytes += result.size or 0
        if self.now < START_WORKERS:
            if self._jobs >= _ALONE_FOR:
                waits = self._busy < self._seconds / 2
                self._next_round(START_WORKERS if waits else self.now, at)
        elif self._jobs >= self._length * self.now:
            self._compare(max(at - self._began, 1e-6), at)

    def _compare(self, elapsed: float, at: float) -> None:
        # A file costs a round trip whatever its size: what counts is files where they are small,
        # and bytes where they are large.
        rate = (self._jobs + self._bytes / 2**18) / elapsed
        # With so many, one of them computes at any time, and more have nothing to gain.
        enough = self._seconds / max(self._busy, 1e-6)
        wider = min(2 * self.now, math.ceil(enough), self._ceiling)
        if min(rate / max(self._with_fewer, 1e-6), wider / self.now) >= _WORTH_IT:
            self._with_fewer = rate
            self._next_round(wider, at)
        elif self._length < _LONGEST:
            self._next_round(self.now, at, length=2 * self._length)
        else:
            self._ceiling = self.now

    def _next_round(self, width: int, at: float, *, length: int = 1) -> None:
        self.now, self._length = min(width, self._ceiling), length
        self._connecting = self.now if self.now >= START_WORKERS and length == 1 else 0
        self._began, self._jobs, self._bytes = at, 0, 0
        self._seconds = self._busy = 0.0
