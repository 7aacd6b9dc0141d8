"""The number of threads, the executor of the caller, and cancellation."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from concurrent.futures import ThreadPoolExecutor as Threads
from pathlib import Path
from typing import Any

import fault_server as faulty
import pytest
from fault_server import FAULTS_TO_FAIL_OF, FAULTS_TO_SURVIVE, Gate
from sample_items import BODY, SHA256, TOKEN, files_in, item_of, served

from stac_gitlab import GitLabStacIO, RetryPolicy, STACDownloader
from stac_gitlab.download.pool import MAX_WORKERS, START_WORKERS, _WorkerCount
from stac_gitlab.download.report import AssetResult, BatchReport
from stac_gitlab.errors import DownloadError, NotFoundError
from stac_gitlab.testing import Answer, Fault, LoopbackServer, RecordedRequest


class Pickling(Executor):
    """Pickles tasks and results, like an executor on other machines."""

    def __init__(self) -> None:
        self._threads = Threads(4)

    def submit(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        sent = pickle.dumps((function, args, named))

        def work() -> Any:
            called, its_args, its_named = pickle.loads(sent)
            return pickle.loads(pickle.dumps(called(*its_args, **its_named)))

        return self._threads.submit(work)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


@pytest.fixture
def pickling() -> Iterator[Pickling]:
    with Pickling() as executor:
        yield executor


# -- number of threads -----------------------------------------------------------------------------


def run_round(
    count: _WorkerCount,
    *,
    seconds: float,
    size: int = 1000,
    busy: float = 0.0,
    tasks: int | None = None,
) -> int:
    """Add a round of tasks that ends after some seconds, and return the new number.

    Each task took a second. The tasks that include connecting end before the round.
    """
    result = AssetResult("a", "", size=size, seconds=1.0)
    for _ in range(count._connecting):
        count.add(result, busy=0.0, at=count._began)
    at = count._began + seconds
    for _ in range(count._length * count.now if tasks is None else tasks):
        count.add(result, busy=busy, at=at)
    return count.now


def test_the_number_grows_while_rounds_become_faster() -> None:
    count = _WorkerCount(START_WORKERS, 100)
    assert run_round(count, seconds=1) == 32
    assert run_round(count, seconds=1) == 64
    assert run_round(count, seconds=1) == 100
    assert run_round(count, seconds=0.1) == 100


def test_the_number_stays_after_rounds_that_were_not_faster() -> None:
    count = _WorkerCount(START_WORKERS, 100)
    assert run_round(count, seconds=1) == 32
    for length in (1, 2, 4):
        assert run_round(count, seconds=2 * length) == 32
    assert run_round(count, seconds=0.01) == 32


def test_one_slow_round_does_not_stop_the_growth() -> None:
    count = _WorkerCount(START_WORKERS, 100)
    assert run_round(count, seconds=1, busy=0.9) == START_WORKERS
    assert run_round(count, seconds=2) == 32
    assert run_round(count, seconds=2) == 32
    assert run_round(count, seconds=2) == 64


def test_the_number_stops_where_the_processor_is_busy() -> None:
    count = _WorkerCount(START_WORKERS, 100)
    assert run_round(count, seconds=1, busy=0.04) == 25
    for _ in range(3):
        assert run_round(count, seconds=0.1, busy=0.039) == 25
    assert run_round(count, seconds=0.01, busy=0.0) == 25


def test_connecting_does_not_count() -> None:
    count = _WorkerCount(START_WORKERS, 64)
    slow = AssetResult("a", "", size=1000, seconds=100.0)
    for _ in range(START_WORKERS):
        count.add(slow, busy=0.0, at=count._began + 100)
    assert run_round(count, seconds=0.5, busy=0.5) == START_WORKERS


def test_large_files_are_measured_by_their_bytes() -> None:
    count = _WorkerCount(START_WORKERS, 100)
    assert run_round(count, seconds=1, size=100_000_000) == 32
    assert run_round(count, seconds=1, size=10_000_000) == 32


def test_the_bytes_of_skipped_files_are_not_counted() -> None:
    count = _WorkerCount(START_WORKERS, 100)
    assert run_round(count, seconds=1, size=100_000_000) == 32
    skipped = AssetResult("a", "", size=10**9, status="skipped", seconds=1.0)
    for _ in range(64):
        count.add(skipped, busy=0.0, at=count._began + 1)
    assert count.now == 32


def test_a_busy_thread_stays_alone() -> None:
    count = _WorkerCount(1, 64)
    for _ in range(10):
        assert run_round(count, seconds=1, busy=0.9, tasks=4) == 1
    assert run_round(count, seconds=1, busy=0.1, tasks=4) == START_WORKERS


def test_a_waiting_thread_gets_company() -> None:
    count = _WorkerCount(1, 64)
    count.add_silence()
    assert count.now == START_WORKERS
    count.add_silence()
    assert count.now == START_WORKERS


def test_a_requested_number_is_kept() -> None:
    count = _WorkerCount(3, 3)
    count.add_silence()
    assert run_round(count, seconds=0.001, tasks=4) == 3


def test_a_fixed_number_is_never_exceeded(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    under_way = [0, 0]
    lock = threading.Lock()

    def count(_request: RecordedRequest) -> Answer:
        with lock:
            under_way[0] += 1
            under_way[1] = max(under_way)
        time.sleep(0.002)
        with lock:
            under_way[0] -= 1
        return Answer(200, (), b"x")

    server.route("/x", count)
    item = item_of({f"{n}": f"{server.url}/x" for n in range(40)})
    STACDownloader(stac_io=downloader.stac_io, max_workers=3).download_assets(item, tmp_path)
    assert under_way[1] == 3


def test_sixteen_threads_start_if_the_server_is_slow(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    gate = Gate(BODY)
    server.route("/slow", gate)
    item = item_of({f"{n}": f"{server.url}/slow" for n in range(START_WORKERS + 8)})
    with Threads(1) as pool:
        ended = pool.submit(downloader.download_assets, item, tmp_path)
        gate.wait_for(START_WORKERS)
        assert not gate.waiting.acquire(timeout=0.05)
        gate.open()
        assert ended.result().ok
    assert START_WORKERS < MAX_WORKERS


@pytest.mark.parametrize(("hint", "wasted"), [("0.03", 0.10), (None, 0.25)])
def test_a_rate_limit_wastes_few_requests_of_many_threads(
    server: LoopbackServer, tmp_path: Path, hint: str | None, wasted: float
) -> None:
    lock = threading.Lock()
    window = [0.0, 0]

    def limited(_request: RecordedRequest) -> Answer:
        with lock:
            now = time.monotonic()
            if now - window[0] > 0.03:
                window[:] = [now, 0]
            window[1] += 1
            if window[1] > 15:
                headers = () if hint is None else (("retry-after", hint),)
                return Answer(429, headers)
        return Answer(200, (), b"x")

    def refused_of_all(folder: Path) -> float:
        server.clear_requests()
        with STACDownloader(TOKEN, server.url, retry=policy, max_workers=32) as downloader:
            assert downloader.download_assets(item, folder).ok
        refused = sum(request.status == 429 for request in server.requests)
        assert refused
        return refused / len(server.requests)

    server.route("/x", limited)
    item = item_of({f"{n}": f"{server.url}/x" for n in range(400)})
    policy = RetryPolicy(max_attempts=10, backoff_base=0.06, backoff_cap=0.06)
    # The server's clock goes on while a busy machine runs something else: the best of five counts.
    assert any(refused_of_all(tmp_path / f"{n}") <= wasted for n in range(5))


# -- executors -------------------------------------------------------------------------------------


def test_the_callers_executor_runs_the_tasks_and_is_not_shut_down(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a.csv", "data/b.csv", big=BODY)
    with Threads(2) as executor:
        report = downloader.download_assets(item, tmp_path, executor=executor)
        assert executor.submit(int, "7").result() == 7
    assert report.ok
    assert set(files_in(tmp_path)) == {"a.csv", "data/b.csv", "big"}


def test_tasks_and_results_pickle(
    server: LoopbackServer,
    tmp_path: Path,
    pickling: Pickling,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STAC_GITLAB_TOKEN", TOKEN)
    item = served(server, "a.csv", "gone.csv", big=BODY)
    server.inject(Fault(path="gone", status=404, times=None))
    with (
        STACDownloader(base_url=server.url) as downloader,
        pytest.raises(DownloadError, match="1 of 3 assets failed") as caught,
    ):
        downloader.download_assets(item, tmp_path, executor=pickling)
    assert isinstance(caught.value.errors["gone.csv"], NotFoundError)
    assert files_in(tmp_path) == {"a.csv": b"content of a.csv", "big": BODY}
    assert all(request.headers["X-Gitlab-Token"] == TOKEN for request in server.requests)


def test_another_process_unpickles_the_reader_once(
    server: LoopbackServer,
    tmp_path: Path,
    pickling: Pickling,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[object] = []
    real = GitLabStacIO.__setstate__

    def counted(self: GitLabStacIO, state: dict[str, Any]) -> None:
        made.append(self)
        real(self, state)

    monkeypatch.setattr(GitLabStacIO, "__setstate__", counted)
    item = served(server, *(f"{n}.csv" for n in range(30)))
    with STACDownloader(base_url=server.url) as downloader:
        assert downloader.download_assets(item, tmp_path, executor=pickling).ok
    # Threads that ask for it at the same time may each make one.
    assert len(made) <= 4


def test_a_relative_folder_is_that_of_the_caller(
    server: LoopbackServer,
    tmp_path: Path,
    pickling: Pickling,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    item = served(server, "a.csv")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    real = pickling.submit

    def submit(*args: Any, **named: Any) -> Future[Any]:
        os.chdir(elsewhere)
        return real(*args, **named)

    monkeypatch.setattr(pickling, "submit", submit)
    with STACDownloader(base_url=server.url) as downloader:
        report = downloader.download_assets(item, "out", executor=pickling)
    assert report.paths == {"a.csv": tmp_path / "out" / "a.csv"}
    assert (tmp_path / "out" / "a.csv").read_bytes() == b"content of a.csv"


def test_a_reader_that_cannot_be_unpickled_fails_its_tasks_only(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    pickling: Pickling,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_self: object, _state: object) -> None:
        raise ImportError("another version there")

    monkeypatch.setattr(GitLabStacIO, "__setstate__", refuse)
    with pytest.raises(DownloadError, match="ImportError: another version there"):
        downloader.download_assets(served(server, "a.csv"), tmp_path, executor=pickling)


def in_spawned_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def test_other_processes_read_the_token_from_their_environment(
    server: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = served(server, "a.csv", big=BODY)
    item.assets["big"].extra_fields["file:checksum"] = SHA256
    server.inject(faulty.cut(20_000, path="big"))
    downloader = STACDownloader(TOKEN, server.url)
    with downloader:
        with in_spawned_process() as executor:
            with pytest.raises(DownloadError, match="STAC_GITLAB_TOKEN") as caught:
                downloader.download_assets(item, tmp_path / "without", executor=executor)
            assert set(caught.value.errors) == {"a.csv", "big"}
            assert TOKEN not in str(caught.value)
            assert server.requests == []
            assert files_in(tmp_path / "without") == {}
        monkeypatch.setenv("STAC_GITLAB_TOKEN", TOKEN)
        with in_spawned_process() as executor:
            report = downloader.download_assets(item, tmp_path / "with", executor=executor)
    assert report["big"].status == "resumed"
    assert files_in(tmp_path / "with") == {"a.csv": b"content of a.csv", "big": BODY}
    assert all(request.headers["X-Gitlab-Token"] == TOKEN for request in server.requests)


def test_a_missing_token_in_workers_is_one_line(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, pickling: Pickling
) -> None:
    item = served(server, *(f"{n}.csv" for n in range(300)))
    with pytest.raises(DownloadError, match="STAC_GITLAB_TOKEN") as caught:
        downloader.download_assets(item, tmp_path, executor=pickling)
    assert len(caught.value.errors) == 300
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.filterwarnings("ignore")
def test_the_executor_of_dask_runs_the_tasks(
    server: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("STAC_GITLAB_TOKEN", TOKEN)
    item = served(server, "a.csv", big=BODY)
    with (
        distributed.Client(
            processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None
        ) as client,
        STACDownloader(base_url=server.url) as downloader,
    ):
        report = downloader.download_assets(item, tmp_path, executor=client.get_executor())
    assert report.ok
    assert files_in(tmp_path) == {"a.csv": b"content of a.csv", "big": BODY}


class Broken(Executor):
    """Runs a few tasks, and then fails."""

    def __init__(self, after: int, *, refuses: bool) -> None:
        self.submitted = 0
        self._after = after
        self._refuses = refuses

    def submit(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        self.submitted += 1
        future: Future[Any] = Future()
        if self.submitted <= self._after:
            future.set_result(function(*args, **named))
        elif self._refuses:
            raise RuntimeError(f"cannot schedule new futures after shutdown {TOKEN}")
        else:
            future.set_exception(BrokenExecutor("a process was terminated abruptly"))
        return future


def test_a_broken_pool_fails_its_unfinished_tasks_only(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, *(f"{n}.csv" for n in range(5)))
    broken = Broken(2, refuses=False)
    with pytest.raises(DownloadError, match=r"BrokenExecutor: a process was") as caught:
        downloader.download_assets(item, tmp_path, executor=broken)
    assert set(caught.value.errors) == {"2.csv", "3.csv", "4.csv"}
    assert set(files_in(tmp_path)) == {"0.csv", "1.csv"}


def test_after_a_broken_pool_the_report_names_what_was_never_begun(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    items = [served(server, "a.csv", "b.csv", item_id=f"item{n}") for n in range(300)]
    broken = Broken(3, refuses=True)
    with pytest.raises(DownloadError) as caught:
        downloader.download_items(items, tmp_path, executor=broken)
    report = caught.value.report
    assert isinstance(report, BatchReport)
    assert list(report) == [item.id for item in items]
    assert len(caught.value.errors) == len(report.failed) == 597
    assert "not started" in str(caught.value.errors["item299: b.csv"])
    assert len(str(caught.value).splitlines()) == 3
    assert len(server.requests) == 3


def test_an_executor_that_rejects_a_task_gets_no_other(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, *(f"{n}.csv" for n in range(5)))
    broken = Broken(2, refuses=True)
    with pytest.raises(DownloadError, match="cannot schedule new futures") as caught:
        downloader.download_assets(item, tmp_path, executor=broken)
    assert broken.submitted == 3
    assert set(caught.value.errors) == {"2.csv", "3.csv", "4.csv"}
    assert "not started" in str(caught.value.errors["3.csv"])
    assert TOKEN not in str(caught.value)
    assert set(files_in(tmp_path)) == {"0.csv", "1.csv"}


def test_a_process_that_dies_is_an_error_of_its_assets(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    with in_spawned_process() as executor:
        executor.submit(os._exit, 1).exception()
        with pytest.raises(DownloadError, match="BrokenProcessPool"):
            downloader.download_assets(served(server, "a.csv"), tmp_path, executor=executor)


@pytest.mark.parametrize("name", [*FAULTS_TO_SURVIVE, *(f"always {n}" for n in FAULTS_TO_FAIL_OF)])
def test_no_fault_in_another_process_leaves_wrong_bytes(
    server: LoopbackServer,
    tmp_path: Path,
    pickling: Pickling,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setenv("STAC_GITLAB_TOKEN", TOKEN)
    item = served(server, big=BODY)
    item.assets["big"].extra_fields["file:checksum"] = SHA256
    lasting = name not in FAULTS_TO_SURVIVE
    if lasting:
        item.assets["big"].extra_fields["file:size"] = len(BODY)
    fault = FAULTS_TO_FAIL_OF[name[7:]][0] if lasting else FAULTS_TO_SURVIVE[name]
    server.inject(Fault(**{**vars(fault), "times": None if lasting else 1}))
    policy = RetryPolicy(max_attempts=3, backoff_base=0)
    with STACDownloader(base_url=server.url, retry=policy) as downloader:
        if lasting:
            with pytest.raises(DownloadError):
                downloader.download_assets(item, tmp_path, executor=pickling)
        else:
            downloader.download_assets(item, tmp_path, executor=pickling)
    assert files_in(tmp_path) == ({} if lasting else {"big": BODY})


# -- stopping --------------------------------------------------------------------------------------


def threads_of_ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("stac-gitlab")]


@pytest.mark.parametrize("own", [True, False], ids=["own", "of the caller's"])
def test_fail_fast_cancels_running_tasks_in_any_thread_pool(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, own: bool
) -> None:
    gate = Gate(BODY)
    hrefs = {f"{n}": f"{server.url}/slow" for n in range(30)}
    server.route("/slow", gate)
    server.route("/bad", lambda _: (gate.wait_for(3), Answer(404))[1])
    item = item_of({"bad": f"{server.url}/bad", **hrefs})
    with Threads(4) as executor:
        started = time.monotonic()
        with pytest.raises(DownloadError) as caught:
            downloader.download_assets(
                item, tmp_path, fail_fast=True, executor=None if own else executor
            )
        assert time.monotonic() - started < 10
        gate.open()
    assert isinstance(caught.value.errors["bad"], NotFoundError)
    assert set(caught.value.errors) == {*item.assets}
    assert all(
        "because the run was stopped" in str(error)
        for key, error in caught.value.errors.items()
        if key != "bad"
    )
    assert files_in(tmp_path) == {}
    assert threads_of_ours() == []


def test_fail_fast_does_not_wait_for_tasks_that_have_not_started(
    server: LoopbackServer, tmp_path: Path, pickling: Pickling
) -> None:
    item = served(server, "00", *(f"{n}" for n in range(1, 100)))
    server.inject(Fault(path="/00$", status=404, times=None))
    server.inject(Fault(path="/files/", delay=0.01, times=None))
    with (
        STACDownloader(base_url=server.url) as downloader,
        pytest.raises(DownloadError) as caught,
    ):
        downloader.download_assets(item, tmp_path, fail_fast=True, executor=pickling)
    assert len(server.requests) < 50
    assert isinstance(caught.value.errors["00"], NotFoundError)


class Interrupts:
    """Raises KeyboardInterrupt when the first file is done."""

    def expect(self, files: int, size: int | None) -> None: ...

    def advance(self, key: str, received: int, total: int | None) -> None: ...

    def done(self, key: str, size: int | None) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("own", [True, False], ids=["own", "of the caller's"])
def test_an_interrupt_leaves_no_thread(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, own: bool
) -> None:
    gate = Gate(BODY)
    server.route("/slow", gate)
    server.route("/good", lambda _: (gate.wait_for(3), Answer(200, (), b"good"))[1])
    hrefs = {f"{n}": f"{server.url}/slow" for n in range(30)}
    item = item_of({"good": f"{server.url}/good", **hrefs})
    with Threads(4) as executor:
        started = time.monotonic()
        # The traceback that pytest keeps holds every frame; that must not keep threads going.
        with pytest.raises(KeyboardInterrupt):
            downloader.download_assets(
                item, tmp_path, progress=Interrupts(), executor=None if own else executor
            )
        assert time.monotonic() - started < 10
        assert threads_of_ours() == []
        gate.open()
    assert files_in(tmp_path) == {"good": b"good"}


def test_reading_a_large_local_file_can_be_cancelled(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stac_gitlab.download.task.BUFFER_SIZE", 1)
    item = served(server, "bad", big=BODY)
    item.assets["big"].extra_fields["file:checksum"] = SHA256
    (tmp_path / "big").write_bytes(BODY * 1000)
    server.inject(Fault(path="bad", status=404, delay=0.2))
    both = STACDownloader(stac_io=downloader.stac_io, max_workers=2)
    started = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        both.download_assets(item, tmp_path, fail_fast=True)
    assert time.monotonic() - started < 10
    assert "cancelled" in str(caught.value.errors["big"])


def test_an_error_of_the_progress_object_fails_the_asset(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    class Clumsy:
        def expect(self, files: int, size: int | None) -> None: ...

        def advance(self, key: str, received: int, total: int | None) -> None:
            raise ZeroDivisionError(f"by zero, said {TOKEN}")

        def done(self, key: str, size: int | None) -> None: ...

    with pytest.raises(DownloadError, match="ZeroDivisionError: by zero") as caught:
        downloader.download_assets(served(server, "a"), tmp_path, progress=Clumsy())
    assert TOKEN not in str(caught.value)
    assert files_in(tmp_path) == {}
