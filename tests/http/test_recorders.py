"""Libraries that replace connections, sockets or adapters in a test also replace ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pystac
import pytest
import requests
import requests_mock
from stac_documents import a

from stac_gitlab import GitLabStacIO, NetworkError, RetryPolicy, STACDownloader
from stac_gitlab.testing import LoopbackServer

# Of the extra `dev`, because they have no wheels for the newest Python yet.
betamax = pytest.importorskip("betamax")
mocket = pytest.importorskip("mocket")
mockhttp = pytest.importorskip("mocket.mocks.mockhttp")
pook = pytest.importorskip("pook")
responses = pytest.importorskip("responses")
vcr = pytest.importorskip("vcr")

HOST = "http://hub.example.org"
CONTENT = b"content of the file"
ONCE = RetryPolicy(max_attempts=1)


def read_and_download(stac_io: GitLabStacIO, url: str, folder: Path) -> bytes:
    """What an asset of an item holds; both are requested."""
    item = pystac.Item.from_file(f"{url}/item.json", stac_io=stac_io)
    report = STACDownloader(stac_io=stac_io).download_assets(item, folder)
    return report["file"].path.read_bytes()


def documents(url: str) -> dict[str, bytes]:
    asset = {"href": f"{url}/file.bin", "roles": ["data"], "file:size": len(CONTENT)}
    item = json.dumps(a("item", assets={"file": asset})).encode()
    return {f"{url}/item.json": item, f"{url}/file.bin": CONTENT}


@contextmanager
def with_responses() -> Iterator[None]:
    with responses.RequestsMock() as mock:
        for url, body in documents(HOST).items():
            mock.get(url, body=body)
        yield


@contextmanager
def with_requests_mock() -> Iterator[None]:
    with requests_mock.Mocker() as mock:
        for url, body in documents(HOST).items():
            mock.get(url, content=body)
        yield


@contextmanager
def with_pook() -> Iterator[None]:
    with pook.use():
        for url, body in documents(HOST).items():
            pook.get(url).reply(200).body(body)
        yield


@contextmanager
def with_mocket() -> Iterator[None]:
    for url, body in documents(HOST).items():
        mockhttp.Entry.single_register("GET", url, body=body)
    with mocket.Mocketizer():
        yield


@pytest.mark.parametrize("mocked", [with_responses, with_requests_mock, with_pook, with_mocket])
def test_what_a_mock_gives_is_read(
    mocked: Callable[[], AbstractContextManager[None]], tmp_path: Path
) -> None:
    with mocked(), GitLabStacIO(retry=ONCE) as stac_io:
        assert read_and_download(stac_io, HOST, tmp_path) == CONTENT


@pytest.fixture
def recorded(server: LoopbackServer) -> LoopbackServer:
    for url, body in documents(server.url).items():
        server.route(url.removeprefix(server.url), body)
    return server


@pytest.mark.parametrize("session", [None, requests.Session])
def test_vcr_records_and_plays(
    recorded: LoopbackServer, tmp_path: Path, session: type[requests.Session] | None
) -> None:
    cassette = str(tmp_path / "cassette.yaml")
    for mode in ("once", "none"):
        made = None if session is None else session()
        with (
            vcr.use_cassette(cassette, record_mode=mode) as played,
            GitLabStacIO(retry=ONCE, session=made) as stac_io,
        ):
            assert read_and_download(stac_io, recorded.url, tmp_path / mode) == CONTENT
        assert len(played) == 2
        assert len(recorded.requests) == 2


def test_a_reader_from_before_a_cassette_is_recorded_and_goes_on_after_it(
    recorded: LoopbackServer, tmp_path: Path
) -> None:
    cassette = str(tmp_path / "cassette.yaml")
    url = f"{recorded.url}/item.json"
    with GitLabStacIO(retry=ONCE) as stac_io:
        stac_io.read_json(url)
        with vcr.use_cassette(cassette) as played:
            stac_io.read_json(url)
        assert len(played) == 1
        stac_io.read_json(url)
        assert len(recorded.requests) == 3
        recorded.close()
        with vcr.use_cassette(cassette, record_mode="none"):
            stac_io.read_json(url)
        with pytest.raises(NetworkError):
            stac_io.read_json(url)


def test_betamax_records_and_plays_a_session_of_the_caller(
    recorded: LoopbackServer, tmp_path: Path
) -> None:
    for number in range(2):
        session = requests.Session()
        library = betamax.Betamax(session, cassette_library_dir=str(tmp_path))
        with library.use_cassette("cassette"), GitLabStacIO(retry=ONCE, session=session) as stac_io:
            content = read_and_download(stac_io, recorded.url, tmp_path / str(number))
        assert content == CONTENT
        assert len(recorded.requests) == 2
