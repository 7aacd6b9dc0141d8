"""The threads that run tasks, or the caller's executor.

Without a fixed number, one thread starts. If it keeps the processor busy, more threads would only
compete for the interpreter. If it waits for the network, 16 threads go on, and then more while that
increases the throughput. Rate limits are not handled here: after a 429 the session, which all tasks
share, slows down.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

from stac_gitlab.download.progress import Progress, announce_end
from stac_gitlab.download.report import AssetResult, StoppedError
from stac_gitlab.download.task import DownloadTask, UnusableFolderError, run_task
from stac_gitlab.errors import DownloadError
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import quoted, redact

START_WORKERS = 16
MAX_WORKERS = 64
# The size of the caller's executor is not known.
_SUBMITTED_TO_EXECUTOR = 256
# Seconds between two looks at the finished tasks. Waking this thread for each small file would take
# a fifth of the time of the others.
_POLL_INTERVAL = 0.01


class HasSession(Protocol):
    """A reader. Its pickle brings its session to another process."""

    @property
    def session(self) -> GitLabSession: ...


_Run = Callable[[DownloadTask], AssetResult]


class DownloadPool:
    """Runs tasks in threads of its own, or in the caller's executor. Can be used once.

    Args:
        reader: Its session sends the requests.
        progress: Is informed about progress. Of a task in another process, only about its end.
        workers: The number of threads; None for as many as increase the throughput.
        executor: Any ``concurrent.futures.Executor``. Tasks for other processes are pickled.
        fail_fast: Whether to stop at the first failure.
    """

    def __init__(
        self,
        reader: HasSession,
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
        self._has_news = threading.Event()
        self._running = 0
        run: _Run = partial(
            run_task, session=reader.session, stop=self._stop, on_bytes=progress.advance
        )
        self._workers: _Workers
        if executor is None:
            self._workers = _ThreadWorkers(run, self._add_ended)
            self._count = _WorkerCount(workers or 1, workers or MAX_WORKERS)
        else:
            # Not a subclass: some run tasks in other interpreters.
            is_here = type(executor) is ThreadPoolExecutor
            run = run if is_here else _RunElsewhere(reader)
            self._workers = _ExecutorWorkers(run, self._add_ended, executor, joins=is_here)
            self._count = _WorkerCount(_SUBMITTED_TO_EXECUTOR, _SUBMITTED_TO_EXECUTOR)

    def run(
        self,
        tasks: Iterable[DownloadTask],
        on_result: Callable[[DownloadTask, AssetResult], None],
        *,
        queued: int = 1,
    ) -> None:
        """Run all tasks. If anything raises, running tasks are cancelled first.

        Args:
            tasks: Tasks. They are taken as workers become free.
            queued: How many tasks to take before a worker is free.
        """
        waiting = iter(tasks)
        try:
            while self._submit_from(waiting, queued):
                has_news = self._has_news.wait(_POLL_INTERVAL)
                self._has_news.clear()
                if not has_news and not self._ended:
                    self._count.add_silence()
                self._handle_results(on_result)
        finally:
            self._stop.set()
            self._workers.cancel_waiting()
            self._workers.join()

    def _submit_from(self, waiting: Iterator[DownloadTask], queued: int) -> bool:
        """Submit tasks while there is room; return whether any is unfinished."""
        while self._workers.accept_tasks and self._running < self._count.now + queued:
            task = next(waiting, None)
            if task is None:
                break
            self._workers.submit(task)
            self._running += 1
        self._workers.grow(min(self._running, self._count.now))
        return self._running > 0

    def _handle_results(self, on_result: Callable[[DownloadTask, AssetResult], None]) -> None:
        while self._ended:
            ended = self._ended.popleft()
            self._running -= 1
            result = _result_of(ended)
            self._count.add(result, busy=ended.busy, at=ended.at)
            announce_end(self._progress, ended.task.name, result)
            on_result(ended.task, result)
            if self._stop.is_set():
                self._running -= self._workers.cancel_waiting()

    def _add_ended(self, ended: _Ended, *, is_idle: bool = True) -> None:
        """Add the end of a task. Called by its worker."""
        outcome = ended.outcome
        error = outcome.error if isinstance(outcome, AssetResult) else outcome
        if isinstance(error, UnusableFolderError) or (error is not None and self._fail_fast):
            # Here, in the thread that failed: it would start the next task before the other thread
            # looks at this one.
            self._stop.set()
            self._workers.accept_tasks = False
        self._ended.append(ended)
        if is_idle or error is not None:
            self._has_news.set()


class _Ended(NamedTuple):
    """The end of a task.

    Attributes:
        outcome: Its result, or the exception that was raised.
        busy: Seconds of processor time that its thread used; 0 if they are not known.
        at: When it ended, in seconds.
    """

    task: DownloadTask
    outcome: AssetResult | BaseException
    busy: float
    at: float


def _result_of(ended: _Ended) -> AssetResult:
    task, outcome = ended.task, ended.outcome
    if isinstance(outcome, AssetResult):
        return outcome
    if not isinstance(outcome, Exception):
        # An interrupt, or an exit, in a method of the caller's progress object.
        raise outcome
    if isinstance(outcome, CancelledError):
        return task.result("failed", error=StoppedError.of(task.key, started=False))
    # Raised by the executor or the progress object.
    raised = f"{type(outcome).__name__}: {redact(str(outcome)).rstrip('.')}"
    problem = f"the task raised {raised}."
    if isinstance(outcome, BrokenExecutor):
        problem = (
            f"not finished, because a worker of the executor died ({raised}). Perhaps its memory "
            "was full. Run it again with fewer workers."
        )
    return task.result("failed", error=DownloadError(f"{quoted(task.key)}: {problem}"))


class _Workers:
    """Run tasks, as long as they `accept_tasks`, and report the end of each."""

    def __init__(self, run: _Run, on_end: Callable[..., None]) -> None:
        self.accept_tasks = True
        self._run = run
        self._on_end = on_end

    def submit(self, task: DownloadTask) -> None:
        """Run a task as soon as a worker is free."""

    def grow(self, count: int) -> None:
        """Start workers until there are `count`, unless an executor decides about them."""

    def cancel_waiting(self) -> int:
        """Drop the tasks that have not started; return for how many no end is reported."""
        raise NotImplementedError

    def join(self) -> None:
        """Wait for the running tasks."""


class _ThreadWorkers(_Workers):
    """Threads of our own. Each takes the next task by itself."""

    def __init__(self, run: _Run, on_end: Callable[..., None]) -> None:
        super().__init__(run, on_end)
        self._tasks: queue.SimpleQueue[DownloadTask | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, task: DownloadTask) -> None:
        self._tasks.put(task)

    def grow(self, count: int) -> None:
        while len(self._threads) < count:
            name = f"stac-gitlab_{len(self._threads)}"
            # A daemon: a slow server must not keep an interpreter from ending.
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def cancel_waiting(self) -> int:
        self.accept_tasks = False
        dropped = 0
        with contextlib.suppress(queue.Empty):
            while self._tasks.get_nowait() is not None:
                dropped += 1
        return dropped

    def join(self) -> None:
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            # An interrupt can come before a thread has started.
            if thread.ident is not None:
                thread.join()

    def _work(self) -> None:
        while self.accept_tasks and (task := self._tasks.get()) is not None:
            began = time.thread_time()
            outcome: AssetResult | BaseException
            try:
                outcome = self._run(task)
            except BaseException as error:  # noqa: BLE001  # any error of the progress object
                outcome = error
            ended = _Ended(task, outcome, time.thread_time() - began, time.monotonic())
            self._on_end(ended, is_idle=self._tasks.empty())


class _ExecutorWorkers(_Workers):
    """The caller's executor. `joins` says whether to wait for running tasks at the end."""

    def __init__(
        self, run: _Run, on_end: Callable[..., None], executor: Executor, *, joins: bool
    ) -> None:
        super().__init__(run, on_end)
        self._executor = executor
        self._joins = joins
        self._tasks: dict[Future[AssetResult], DownloadTask] = {}

    def submit(self, task: DownloadTask) -> None:
        try:
            future = self._executor.submit(self._run, task)
        except Exception as error:  # noqa: BLE001  # an executor may raise anything
            # It would reject any other task as well.
            self.accept_tasks = False
            self._on_end(_Ended(task, error, 0.0, time.monotonic()))
            return
        self._tasks[future] = task
        future.add_done_callback(self._done)

    def cancel_waiting(self) -> int:
        self.accept_tasks = False
        for future in list(self._tasks):
            # The end of a cancelled future is reported.
            future.cancel()
        return 0

    def join(self) -> None:
        if self._joins:
            wait(list(self._tasks))

    def _done(self, future: Future[AssetResult]) -> None:
        task = self._tasks.pop(future)
        outcome: AssetResult | BaseException
        try:
            outcome = future.result()
        except BaseException as error:  # noqa: BLE001  # any error of the executor
            outcome = error
        self._on_end(_Ended(task, outcome, 0.0, time.monotonic()))


class _RunElsewhere:
    """Runs tasks with a reader, or with its pickle in another process."""

    # Dask names its tasks after the function.
    __name__ = "stac_gitlab_download"

    def __init__(self, reader: HasSession) -> None:
        self._reader = reader

    def __call__(self, task: DownloadTask) -> AssetResult:
        return run_task(task, self._reader.session)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial, (_run_with_pickle, pickle.dumps(self._reader))


def _run_with_pickle(pickled: bytes, task: DownloadTask) -> AssetResult:
    # Unpickled here, so that an error in that fails the task only.
    return run_task(task, _unpickle_reader(pickled).session)


@lru_cache(maxsize=8)
def _unpickle_reader(pickled: bytes) -> HasSession:
    """Return a reader, the same for all tasks in a process: they share its connections."""
    reader: HasSession = pickle.loads(pickled)  # noqa: S301  # pickled by ourselves, just before
    return reader


# After so many tasks, the processor time shows whether a single thread is busy.
_TASKS_OF_ONE_THREAD = 4
# A round with more threads has to be faster by this factor.
_MIN_SPEEDUP = 1.15
# A round may be slow for other reasons. Before the number is final, rounds up to this many times
# as long are compared.
_MAX_ROUND_LENGTH = 4


class _WorkerCount:
    """The number of threads: one while it is busy, more while that increases the throughput."""

    def __init__(self, start: int, limit: int) -> None:
        self._limit = limit
        self._rate_with_fewer = 0.0
        self._start_round(start, time.monotonic())

    def add_silence(self) -> None:
        """Add that no task has ended for a while: then a single thread is waiting."""
        if self.now < min(START_WORKERS, self._limit):
            self._start_round(START_WORKERS, time.monotonic())

    def add(self, result: AssetResult, *, busy: float, at: float) -> None:
        """Add the end of a task. At the end of a round, this decides about the number."""
        if self.now >= self._limit:
            return
        if self._connecting:
            # A new thread's first task includes connecting; ignore it.
            self._connecting -= 1
            self._began = at
            return
        self._tasks += 1
        self._seconds += result.seconds
        self._busy += busy
        if result.status in ("downloaded", "resumed"):
            self._bytes += result.size or 0
        if self.now < START_WORKERS:
            if self._tasks >= _TASKS_OF_ONE_THREAD:
                waits = self._busy < self._seconds / 2
                self._start_round(START_WORKERS if waits else self.now, at)
        elif self._tasks >= self._length * self.now:
            self._end_round(max(at - self._began, 1e-6), at)

    def _end_round(self, elapsed: float, at: float) -> None:
        # A file costs a round trip whatever its size: small files are counted, and the bytes of
        # large ones.
        rate = (self._tasks + self._bytes / 2**18) / elapsed
        # With so many threads, one of them computes at any time.
        enough = self._seconds / max(self._busy, 1e-6)
        more = min(2 * self.now, math.ceil(enough), self._limit)
        if min(rate / max(self._rate_with_fewer, 1e-6), more / self.now) >= _MIN_SPEEDUP:
            self._rate_with_fewer = rate
            self._start_round(more, at)
        elif self._length < _MAX_ROUND_LENGTH:
            self._start_round(self.now, at, length=2 * self._length)
        else:
            self._limit = self.now

    def _start_round(self, workers: int, at: float, *, length: int = 1) -> None:
        self.now, self._length = min(workers, self._limit), length
        self._connecting = self.now if self.now >= START_WORKERS and length == 1 else 0
        self._began, self._tasks, self._bytes = at, 0, 0
        self._seconds = self._busy = 0.0
