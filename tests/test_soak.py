"""Many threads, and servers at their worst: all that can be had is there, the rest is reported."""

from __future__ import annotations

import gc
import hashlib
import os
import random
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pystac
import pytest
from fault_server import FAULTS_TO_SURVIVE, SIGN_IN_PAGE, ServedFile, stalled
from raw_server import RawServer
from sample_items import leftovers_in
from stac_documents import a

from stac_gitlab import (
    AuthenticationError,
    DownloadError,
    GitLabStacIO,
    NetworkError,
    NotFoundError,
    RetryPolicy,
    STACDownloader,
)
from stac_gitlab.testing import Answer, Fault, LoopbackServer, RecordedRequest
from stac_gitlab.testing.exchange import response_of

THREADS = 32
ITEMS = 24
FILES = 6
SIZE = 40_000
SHARE_OF_FAULTS = 0.2

# How long the longest of these tests goes on; at least three rounds, which take a few seconds.
SECONDS = float(os.environ.get("STAC_GITLAB_SOAK_SECONDS", "0"))
GROWTH_ALLOWED = 32 * 2**20

STUBBORN = RetryPolicy(max_attempts=12, backoff_base=0.01, backoff_cap=0.2, deadline=60)

BODIES = {
    f"/files/{item}/{key}": random.Random(f"{item}/{key}").randbytes(SIZE)
    for item in range(ITEMS)
    for key in range(FILES)
}

# A length that contradicts the metadata is no passing fault, but another file: not tried again.
FAULTS = [fault for name, fault in FAULTS_TO_SURVIVE.items() if name != "too long announced"]
FAULTS += [stalled(20_000), Fault(delay=0.05), Fault(status=408)]


class Unwell(LoopbackServer):
    """Serves items and files to whoever has the token of the moment, and fails at every fifth."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.faults_made = 0
        self.renewals = 0
        self.is_unwell = True
        self._dice = random.Random(5)
        self._count = 0
        self._guard = threading.Lock()

    def token(self) -> str:
        with self._guard:
            self.renewals += 1
            return f"glpat-soak-token-{self.number:04}"

    def _fault_for(self, request: RecordedRequest) -> Fault:
        with self._guard:
            self._count += 1
            if self._count % 400 == 0:
                self.number += 1
            if self.is_unwell and self._dice.random() < SHARE_OF_FAULTS:
                self.faults_made += 1
                return self._dice.choice(FAULTS)
        return super()._fault_for(request)

    def answer(self, request: RecordedRequest) -> Answer:
        sent = request.headers.get("X-Gitlab-Token")
        if sent not in (f"glpat-soak-token-{n:04}" for n in (self.number, self.number - 1)):
            return Answer(401, (), b"{}")
        if request.path in BODIES:
            return ServedFile(BODIES[request.path])(request)
        if request.path == "/collection":
            return self._json(self._collection())
        if request.path == "/items":
            return self._json(self._page(int(request.query.get("page", 0))))
        if request.path.startswith("/items/"):
            return self._json(self._item(int(request.path.rpartition("/")[2])))
        if request.path == "/page":
            return Answer(200, (("content-type", "text/html"),), SIGN_IN_PAGE)
        return super().answer(request)

    @staticmethod
    def _json(document: Any) -> Answer:
        return response_of(document)

    def _item(self, number: int) -> dict[str, Any]:
        assets: dict[str, Any] = {}
        for key in range(FILES):
            path = f"/files/{number}/{key}"
            assets[f"data/{key}.bin"] = {"href": f"{self.url}{path}", "file:size": SIZE}
            if key % 2:
                digest = hashlib.sha256(BODIES[path]).hexdigest()
                assets[f"data/{key}.bin"]["file:checksum"] = f"1220{digest}"
        assets["lost.bin"] = {"href": f"{self.url}/nowhere"}
        assets["page.bin"] = {"href": f"{self.url}/page"}
        return a(
            "item",
            id=f"item-{number}",
            links=[{"rel": "self", "href": f"{self.url}/items/{number}"}],
            assets={key: {**asset, "roles": ["data"]} for key, asset in assets.items()},
        )

    def _page(self, number: int) -> dict[str, Any]:
        size = 5
        items = [self._item(n) for n in range(ITEMS)[number * size : (number + 1) * size]]
        following = [{"rel": "next", "href": f"{self.url}/items?page={number + 1}"}]
        more = (number + 1) * size < ITEMS
        return {
            "type": "FeatureCollection",
            "features": items,
            "links": following if more else [],
            "numberMatched": ITEMS,
        }

    def _collection(self) -> dict[str, Any]:
        return a("collection", links=[{"rel": "items", "href": f"{self.url}/items"}])


@pytest.fixture
def unwell() -> Iterator[Unwell]:
    with Unwell() as running:
        yield running


def file_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def settled(measure: Callable[[], int], wanted: int, patience: float = 5) -> int:
    """What a measure comes down to; threads and sockets take a moment to go."""
    end = time.monotonic() + patience
    while measure() > wanted and time.monotonic() < end:
        gc.collect()
        time.sleep(0.02)
    return measure()


def download(stac_io: GitLabStacIO, url: str, folder: Path, number: int) -> None:
    """Bring one item home, and check that everything is as it has to be."""
    item = pystac.Item.from_file(f"{url}/items/{number}", stac_io=stac_io)
    with pytest.raises(DownloadError) as caught:
        STACDownloader(stac_io=stac_io, max_workers=4).download_assets(item, folder)
    errors = caught.value.errors
    assert {key: type(error) for key, error in errors.items()} == {
        "lost.bin": NotFoundError,
        "page.bin": AuthenticationError,
    }, str(caught.value)
    for key in range(FILES):
        written = (folder / "data" / f"{key}.bin").read_bytes()
        assert written == BODIES[f"/files/{number}/{key}"]
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {"data"}


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="what is left is seen in /proc")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_thirty_two_threads_get_all_that_can_be_had_from_a_server_that_fails_every_fifth_time(
    unwell: Unwell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporaries = tmp_path / "temporaries"
    temporaries.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporaries))
    stac_io = GitLabStacIO(unwell.token, base_url=unwell.url, retry=STUBBORN, timeout=(5, 0.7))

    def work(task: tuple[int, int]) -> None:
        which, number = task
        if number % 8 == 0:
            collection = pystac.Collection.from_file(f"{unwell.url}/collection", stac_io)
            listed = [item.id for item in collection.get_items()]
            assert listed == [f"item-{n}" for n in range(ITEMS)]
        download(stac_io, unwell.url, tmp_path / f"{which}/{number}", number)

    def round_of(which: int) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, [(which, number) for number in range(ITEMS)]))
        unwell.clear_requests()
        assert leftovers_in(tmp_path) == []
        shutil.rmtree(tmp_path / f"{which}")

    threads = settled(threading.active_count, 0, patience=0)
    descriptors = file_descriptors()
    sizes: list[int] = []
    end = time.monotonic() + SECONDS
    with stac_io:
        while len(sizes) < 3 or time.monotonic() < end:
            round_of(len(sizes))
            gc.collect()
            sizes.append(resident_bytes())
    assert unwell.faults_made > 100
    assert unwell.renewals > 1
    # The server's own side of a connection that it lets hang lasts as long as the server.
    unwell.close()
    assert settled(threading.active_count, threads) <= threads
    assert settled(file_descriptors, descriptors) <= descriptors
    assert list(temporaries.iterdir()) == []
    # The first round fills pools and caches.
    growth = max(sizes[1:]) - sizes[1]
    print(
        f"{len(sizes)} rounds, {len(sizes) * ITEMS * FILES} files, {unwell.faults_made} faults, "
        f"{unwell.renewals} tokens, {sizes[1] >> 20} MiB and {growth >> 10} KiB more"
    )
    assert growth < GROWTH_ALLOWED


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_server_that_restarts_in_the_middle_is_waited_for(unwell: Unwell, tmp_path: Path) -> None:
    unwell.is_unwell = False
    url, port = unwell.url, unwell.port
    with (
        GitLabStacIO(unwell.token, base_url=url, retry=STUBBORN, timeout=(5, 5)) as stac_io,
        ThreadPoolExecutor(8) as pool,
    ):
        under_way = [
            pool.submit(download, stac_io, url, tmp_path / str(number), number)
            for number in range(16)
        ]
        for _ in range(3):
            time.sleep(0.1)
            unwell.close()
            time.sleep(0.1)
            unwell.start(port)
        for one in under_way:
            one.result(60)
    assert leftovers_in(tmp_path) == []


def test_a_token_that_expires_in_the_middle_is_renewed_and_one_that_is_fixed_is_reported(
    unwell: Unwell, tmp_path: Path
) -> None:
    unwell.is_unwell = False
    fixed = unwell.token()
    with (
        GitLabStacIO(unwell.token, base_url=unwell.url, retry=STUBBORN) as renewing,
        GitLabStacIO(fixed, base_url=unwell.url, retry=STUBBORN) as stuck,
    ):
        for _ in range(3):
            download(renewing, unwell.url, tmp_path / "got", 1)
            unwell.number += 2
        item = pystac.Item.from_file(f"{unwell.url}/items/2", stac_io=renewing)
        with pytest.raises(DownloadError) as caught:
            STACDownloader(stac_io=stuck).download_assets(item, tmp_path / "lost")
        assert set(map(type, caught.value.errors.values())) == {AuthenticationError}
        assert len(caught.value.errors) == len(item.assets)
    assert not list((tmp_path / "lost").rglob("*.bin"))


def test_a_name_that_is_not_known_for_a_moment_is_asked_for_again(
    server: LoopbackServer, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.route("/x", {"a": 1})
    known = socket.getaddrinfo
    failures = [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")] * 2

    def forgetful(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "hub.example.org":
            if failures:
                raise failures.pop()
            host = "127.0.0.1"
        return known(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", forgetful)
    policy = RetryPolicy(max_attempts=3, clock=clock.time, sleep=clock.sleep)
    url = f"http://hub.example.org:{server.port}/x"
    with GitLabStacIO(retry=policy) as stac_io:
        assert stac_io.read_json(url) == {"a": 1}
        failures.extend([socket.gaierror(socket.EAI_NONAME, "Name or service not known")] * 3)
        stac_io.close()
        with pytest.raises(NetworkError, match=r"hub\.example\.org.*Check the address"):
            stac_io.read_json(url)


def test_a_clock_that_jumps_neither_hurries_nor_delays_anything(
    clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    jumps = [86_400.0, -86_400.0, 1e9, -1e9]
    progress = b"Date: Wed, 01 Jan 2020 00:00:00 GMT\r\nConnection: close\r\nContent-Length: 0\r\n"
    until = b"Retry-After: Wed, 01 Jan 2020 00:00:07 GMT\r\n"
    answers = [
        b"HTTP/1.1 503 No\r\n" + progress + until + b"\r\n",
        b"HTTP/1.1 429 No\r\n" + progress + b"RateLimit-Reset: 1577836809\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}',
    ]
    policy = RetryPolicy(clock=clock.time, sleep=clock.sleep)
    with (
        RawServer(lambda server, connection: server.send(connection, [answers.pop(0)])) as server,
        GitLabStacIO(retry=policy) as stac_io,
    ):
        monkeypatch.setattr(time, "time", lambda: real() + random.choice(jumps))
        assert stac_io.read_json(f"{server.url}/x") == {"a": 1}
    assert clock.slept == [7.0, 9.0]
