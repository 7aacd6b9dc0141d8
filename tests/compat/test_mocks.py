"""Libraries that replace connections, sockets or adapters in a test also replace ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import betamax
import mocket
import pook
import pystac
import pytest
import requests
import requests_mock
import responses
from mocket.mocks import mockhttp
from requests.adapters import HTTPAdapter
from stac_documents import a

from stac_gitlab import GitLabStacIO, NetworkError, NotFoundError, RetryPolicy, STACDownloader
from stac_gitlab.testing import LoopbackServer

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


def test_a_status_that_a_mock_gives_is_the_error_that_it_means() -> None:
    with responses.RequestsMock() as mock, GitLabStacIO(retry=ONCE) as stac_io:
        mock.get(f"{HOST}/item.json", status=404, json={"detail": "no such item"})
        with pytest.raises(NotFoundError, match="no such item"):
            stac_io.read_json(f"{HOST}/item.json")


@pytest.mark.parametrize("replaced", ["adapters.HTTPAdapter", "Session"])
def test_a_response_that_was_made_by_hand_is_read(replaced: str, tmp_path: Path) -> None:
    def send(_: Any, request: requests.PreparedRequest, **__: Any) -> requests.Response:
        response = requests.Response()
        response.status_code = 200
        response._content = documents(HOST)[request.url or ""]
        return response

    with patch(f"requests.{replaced}.send", send), GitLabStacIO(retry=ONCE) as stac_io:
        assert read_and_download(stac_io, HOST, tmp_path) == CONTENT


@pytest.mark.parametrize("mocked", ["all", "ours", "theirs"])
def test_a_session_of_the_caller_can_be_mocked_for_a_while(mocked: str, tmp_path: Path) -> None:
    session = requests.Session()
    stac_io = GitLabStacIO(retry=ONCE, session=session)
    target = {"all": None, "ours": stac_io.session, "theirs": session}[mocked]
    with requests_mock.Mocker(session=target) as mock:
        for url, body in documents(HOST).items():
            mock.get(url, content=body)
        assert read_and_download(stac_io, HOST, tmp_path) == CONTENT
    session.mount(HOST, Refusing())
    with pytest.raises(NetworkError, match="refused"):
        stac_io.read_json(f"{HOST}/item.json")


class Refusing(HTTPAdapter):
    def send(self, *_: Any, **__: Any) -> requests.Response:
        raise requests.ConnectionError("refused")


@pytest.fixture
def recorded(server: LoopbackServer) -> LoopbackServer:
    for url, body in documents(server.url).items():
        server.route(url.removeprefix(server.url), body)
    return server


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
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
