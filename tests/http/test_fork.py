"""A forked child uses no connection, no lock and no limit of its parent."""

from __future__ import annotations

import multiprocessing
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pystac
import pytest
import requests
from home import Home
from stac_documents import a

from stac_gitlab import GitLabStacIO, RetryPolicy, STACDownloader
from stac_gitlab.files.partial_file import PartialFile, leftovers_for, leftovers_in
from stac_gitlab.reading.paging import Page, PageRequest, Pages
from stac_gitlab.testing import Answer, Fault, LoopbackServer, RecordedRequest
from stac_gitlab.testing.exchange import response_of

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.timeout(60),
    # Python 3.12 and newer warn of what is tested here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
FORK = multiprocessing.get_context("fork")
PROMPT = RetryPolicy(max_attempts=2, backoff_base=0, deadline=20)


class ItemServer(LoopbackServer):
    """Serves an item, or a file, whose content says which one it is."""

    def answer(self, request: RecordedRequest) -> Answer:
        name = request.path.rpartition("/")[2]
        if request.path.startswith("/files/"):
            return Answer(200, (("content-type", "application/octet-stream"),), content_of(name))
        asset = {"href": f"{self.url}/files/{name}", "roles": ["data"]}
        return response_of(a("item", id=name, assets={"data": asset}))


def content_of(name: str) -> bytes:
    return name.encode() * 5000


@pytest.fixture
def items() -> Iterator[ItemServer]:
    with ItemServer() as running:
        yield running


@pytest.fixture(params=["own adapters", "a session of the caller"])
def stac_io(request: pytest.FixtureRequest, items: ItemServer) -> Iterator[GitLabStacIO]:
    session = None if request.param == "own adapters" else requests.Session()
    with GitLabStacIO(token, base_url=items.url, retry=PROMPT, session=session) as made:
        pystac.StacIO.set_default(made)
        yield made


def token() -> str:
    return "glpat-fork"


def id_at(url: str) -> str:
    return pystac.Item.from_file(url).id


def urls_of(items: ItemServer, count: int = 200) -> list[str]:
    return [f"{items.url}/i{number}" for number in range(count)]


def names_of(urls: list[str]) -> list[str]:
    return [url.rpartition("/")[2] for url in urls]


def in_child(work: Callable[[], Any]) -> Any:
    """What a forked child returns, or raises; it is ended if that takes too long."""
    results: Any = FORK.SimpleQueue()

    def run() -> None:
        try:
            results.put(work())
        except BaseException as error:  # noqa: BLE001  # shown where it is expected
            results.put(f"{type(error).__name__}: {error}")

    child = FORK.Process(target=run)
    child.start()
    child.join(20)
    if child.is_alive():
        child.kill()
        pytest.fail("the child hangs")
    return results.get()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_process_pool_read_what_they_ask_for(
    stac_io: GitLabStacIO, items: ItemServer, method: str
) -> None:
    urls = urls_of(items)
    context: BaseContext = multiprocessing.get_context(method)
    started = {} if method == "fork" else {"initializer": set_default, "initargs": (stac_io,)}
    assert id_at(f"{items.url}/first") == "first"
    with context.Pool(4, **started) as pool:  # type: ignore[arg-type]  # either both, or none
        reading = pool.map_async(id_at, urls, chunksize=1)
        # The parent reads at the same time, over the connections that it had before.
        assert [id_at(url) for url in urls[:50]] == names_of(urls[:50])
        assert reading.get(40) == names_of(urls)


def set_default(stac_io: GitLabStacIO) -> None:
    pystac.StacIO.set_default(stac_io)


def test_a_process_pool_executor_reads_what_it_asks_for(
    stac_io: GitLabStacIO, items: ItemServer
) -> None:
    urls = urls_of(items)
    id_at(f"{items.url}/first")
    with ProcessPoolExecutor(4, mp_context=FORK) as pool:
        assert list(pool.map(id_at, urls, timeout=40)) == names_of(urls)


def test_children_forked_after_many_threads_have_read_read_in_threads(
    stac_io: GitLabStacIO, items: ItemServer
) -> None:
    urls = urls_of(items, 100)

    def read_all() -> list[str]:
        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(id_at, urls))

    assert read_all() == names_of(urls)
    with ThreadPoolExecutor(3) as starters:
        children = [starters.submit(in_child, read_all) for _ in range(3)]
        assert read_all() == names_of(urls)
        assert [child.result() for child in children] == [names_of(urls)] * 3


def test_children_download_the_bytes_that_they_ask_for(
    stac_io: GitLabStacIO, items: ItemServer, tmp_path: Path
) -> None:
    def download(child: int) -> bool:
        same = True
        for name in (f"c{child}-{number}" for number in range(20)):
            item = pystac.Item.from_file(f"{items.url}/{name}")
            folder = tmp_path / str(child) / name
            report = STACDownloader(stac_io=stac_io).download_assets(item, folder)
            same &= report["data"].path.read_bytes() == content_of(name)
        return same

    assert download(0)
    with ThreadPoolExecutor(4) as starters:
        children = [starters.submit(in_child, lambda n=n: download(n)) for n in range(1, 5)]
        assert [child.result() for child in children] == [True] * 4


def test_a_child_does_not_touch_a_file_that_the_parent_is_writing(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    with PartialFile(target) as part:
        part.save_resume_info({"total": 12})
        part.write(b"first ")
        # As at the end of a `with` statement that an exception leaves.
        assert in_child(part.discard) is None
        assert in_child(lambda: part.save_resume_info(None)) is None
        assert "begun in another process" in in_child(lambda: part.write(b"child"))
        assert "begun in another process" in in_child(part.finish)
        assert "begun in another process" in in_child(lambda: in_child(part.finish))
        # It is locked after the children have gone.
        assert leftovers_in(tmp_path) == {}
        part.write(b"second")
        part.finish()
    assert target.read_bytes() == b"first second"
    assert os.listdir(tmp_path) == ["lakes.csv"]


def test_a_child_writes_a_file_that_the_parent_has_not_begun(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"

    def write() -> None:
        part.write(b"child")
        part.finish()

    with PartialFile(target) as part:
        assert in_child(write) is None
    assert target.read_bytes() == b"child"


def test_a_child_that_lives_on_does_not_keep_the_lock_of_a_file_that_the_parent_gave_up(
    tmp_path: Path,
) -> None:
    target = tmp_path / "lakes.csv"
    is_there, may_end = FORK.Event(), FORK.Event()

    def live_on() -> None:
        is_there.set()
        may_end.wait(30)

    with PartialFile(target) as part:
        part.save_resume_info({"total": 12})
        part.write(b"first ")
        child = FORK.Process(target=live_on, daemon=True)
        child.start()
        assert is_there.wait(20)
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
    with PartialFile(target) as part:
        assert part.take_over(leftover)
        part.write(b"second")
        part.finish()
    may_end.set()
    child.join(20)
    assert target.read_bytes() == b"first second"
    assert os.listdir(tmp_path) == ["lakes.csv"]


def test_a_child_that_outlives_a_killed_parent_does_not_keep_its_lock(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    script = f"""
import os, sys
from stac_gitlab.files.partial_file import PartialFile

part = PartialFile({str(target)!r})
part.save_resume_info({{"total": 12}})
part.write(b"first ")
if os.fork() == 0:
    print("forked", flush=True)
    sys.stdin.read()
    os._exit(0)
sys.stdin.readline()
os._exit(9)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"forked\n"
        assert leftovers_in(tmp_path) == {}
        process.kill()
        process.wait(20)
        (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
        assert (leftover.size, leftover.resume_info()) == (6, {"total": 12})


def test_a_child_forked_within_a_download_leaves_it_to_the_parent(home: Home) -> None:
    home.server.inject(Fault(trickle=(5000, 0.001)))
    parent, children = os.getpid(), list[int]()
    said, say = os.pipe()

    def fork(_received: int, _size: int | None) -> None:
        if not children:
            children.append(os.fork())
            if children[0]:
                # The child goes first, so that the rest of the body is there for it to take.
                os.waitpid(children[0], 0)

    try:
        result = home.download(on_bytes=fork)
    except BaseException as error:
        if os.getpid() == parent:
            raise
        os.write(say, f"{type(error).__name__}: {error}".encode())
    finally:
        if os.getpid() != parent:
            os._exit(0)
    os.close(say)
    with open(said, "rb") as file:
        assert b"DownloadError: " in (words := file.read())
        assert b"begun in another process" in words
    assert (result.verified, result.resumed) == (True, False)
    home.assert_there()


def held_by_another_thread(lock: Any, work: Callable[[], Any]) -> Any:
    """What `work` returns while another thread holds a lock."""
    is_held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            is_held.set()
            may_end.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert is_held.wait(5)
        return work()
    finally:
        may_end.set()
        holder.join(5)


LOCKS: dict[str, Callable[[GitLabStacIO, str], Any]] = {
    "credentials": lambda io, _: io.session.credentials._lock,
    "limiter": lambda io, url: io.session.limiter_for(url)._lock,
    "cookies": lambda io, _: io.session.cookies._cookies_lock,
    "pools": lambda io, url: io.session.get_adapter(url).poolmanager.pools.lock,
    "idle connections": lambda io, url: pool_of(io, url).mutex,
}


def pool_of(io: GitLabStacIO, url: str) -> queue.LifoQueue[Any]:
    pools = io.session.get_adapter(url).poolmanager.pools
    [key] = pools.keys()
    idle: queue.LifoQueue[Any] = pools[key].pool
    return idle


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_that_is_held_at_the_fork_is_free_in_the_child(
    stac_io: GitLabStacIO, items: ItemServer, name: str
) -> None:
    url = f"{items.url}/first"
    assert id_at(url) == "first"
    stac_io.session.limiter_for(url).refused(0.01)

    def read() -> str:
        stac_io.session.limiter_for("https://other.example")
        return id_at(url)

    lock = LOCKS[name](stac_io, url)
    assert held_by_another_thread(lock, lambda: in_child(read)) == "first"


def test_what_one_server_taught_the_parent_about_its_limit_is_not_the_childs(
    stac_io: GitLabStacIO, items: ItemServer
) -> None:
    limiter = stac_io.session.limiter_for(items.url)
    limiter.refused(100)
    assert in_child(lambda: id_at(f"{items.url}/first")) == "first"


@pytest.mark.usefixtures("always_ahead")
def test_a_page_that_is_read_ahead_at_the_fork_is_read_by_the_child_itself() -> None:
    is_asked, may_come = threading.Event(), threading.Event()
    parent = os.getpid()

    def read(request: PageRequest) -> Page:
        features = [{"id": f"{request.href}-1"}, {"id": f"{request.href}-2"}]
        if request.href == "https://hub.example/first":
            link = {"rel": "next", "href": "https://hub.example/second"}
            return Page(request.href, {"features": features, "links": [link]})
        if os.getpid() == parent:
            is_asked.set()
            assert may_come.wait(30)
        return Page(request.href, {"features": features})

    listed = Pages(read, PageRequest("https://hub.example/first")).listed(lambda *_: True)
    first = [next(listed)["id"], next(listed)["id"]]
    assert is_asked.wait(5)
    rest = in_child(lambda: [feature["id"] for feature in listed])
    assert rest == ["https://hub.example/second-1", "https://hub.example/second-2"]
    may_come.set()
    assert [feature["id"] for feature in listed] == rest
    assert first == ["https://hub.example/first-1", "https://hub.example/first-2"]


def test_the_parent_keeps_its_connections(stac_io: GitLabStacIO, items: ItemServer) -> None:
    url = f"{items.url}/first"
    id_at(url)
    [connection] = filter(None, pool_of(stac_io, url).queue)
    before = connection.sock.getsockname()
    assert in_child(lambda: id_at(url)) == "first"
    id_at(url)
    [connection] = filter(None, pool_of(stac_io, url).queue)
    assert connection.sock.getsockname() == before


def test_the_connection_of_an_inherited_response_stays_with_the_parent(items: ItemServer) -> None:
    url = f"{items.url}/files/i1"
    with GitLabStacIO(token, base_url=items.url, retry=PROMPT) as stac_io:
        assert stac_io.session.open(url).content == content_of("i1")
        response = stac_io.session.open(url)
        pool = pool_of(stac_io, url)

        def read_in_child() -> int:
            # With another request under way, there is room in the pool.
            other = stac_io.session.open(f"{items.url}/files/i2")
            while response.raw.read_some(100_000):
                pass
            found = sum(connection is not None for connection in pool.queue)
            other.close()
            return found

        assert in_child(read_in_child) == 0
        assert response.content == content_of("i1")
