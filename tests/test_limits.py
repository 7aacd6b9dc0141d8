"""Bounds that users can set, seen at a socket; each error names the setting that raises it."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pystac
import pytest
from fault_server import ServedFile
from raw_server import RawServer
from sample_items import leftovers_in
from stac_documents import a

from stac_gitlab import (
    ConfigurationError,
    DownloadError,
    GitLabStacIO,
    InvalidResponseError,
    Limits,
    RequestTimeoutError,
    RetryPolicy,
    STACDownloader,
)
from stac_gitlab.http.head import MAX_HEAD
from stac_gitlab.reading.listing import list_collections, list_items
from stac_gitlab.testing import Answer, LoopbackServer

HURRY = RetryPolicy(max_attempts=3, backoff_base=0, deadline=5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"redirects": -1},
        {"nesting": 0},
        {"nesting": None},
        {"empty_pages": 2.5},
        {"file_bytes": "2 GiB"},
        {"file_bytes": True},
    ],
)
def test_a_limit_that_makes_no_sense_is_an_error_that_names_it(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))}=.*whole number"):
        Limits(**wrong)


def test_limits_are_a_value() -> None:
    assert Limits().replace(redirects=3) == Limits(redirects=3)
    assert hash(Limits()) == hash(Limits(redirects=10))
    with pytest.raises(AttributeError):
        Limits().redirects = 3  # type: ignore[misc]


def test_limits_travel_in_a_pickle() -> None:
    limits = Limits(redirects=2, nesting=20, empty_pages=3, file_bytes=4)
    with GitLabStacIO(limits=limits) as stac_io:
        again = pickle.loads(pickle.dumps(stac_io))
    assert again.session.limits == limits
    assert again.session.max_redirects == 2


# -- redirects ------------------------------------------------------------------------------


def hops(server: LoopbackServer, count: int) -> str:
    """A document behind so many redirects."""
    for number in range(count):
        location = ("location", f"/{number + 1}")
        server.route(f"/{number}", lambda _, location=location: Answer(302, (location,)))
    server.route(f"/{count}", {"a": 1})
    return f"{server.url}/0"


@pytest.mark.parametrize("allowed", [0, 1, 10, 25])
def test_as_many_redirects_are_followed_as_allowed(allowed: int, server: LoopbackServer) -> None:
    with GitLabStacIO(limits=Limits(redirects=allowed), retry=HURRY) as stac_io:
        assert stac_io.read_json(hops(server, allowed)) == {"a": 1}
        url = hops(server, allowed + 1)
        server.clear_requests()
        with pytest.raises(InvalidResponseError, match=r"Limits\(redirects=\)"):
            stac_io.read_json(url)
    assert len(server.requests) == allowed + 1


# -- pages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["features", "collections"])
def test_as_many_empty_pages_are_read_as_allowed(field: str, server: LoopbackServer) -> None:
    def answer(request: Any) -> dict[str, Any]:
        number = int(request.query.get("page", 0))
        following = {"rel": "next", "href": f"{server.url}/list?page={number + 1}"}
        return {field: [], "links": [following]}

    server.route("/list", answer)
    with GitLabStacIO(limits=Limits(empty_pages=4)) as stac_io:
        listing = (
            partial(list_items, stac_io)
            if field == "features"
            else partial(list_collections, stac_io)
        )
        with pytest.raises(InvalidResponseError, match=r"4 empty pages.*Limits\(empty_pages=\)"):
            list(listing(f"{server.url}/list"))
    assert len(server.requests) == 5


# -- heads ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head", [b"X: " + b"x" * 200_000 + b"\r\n", b"X: y\r\n" * 1000], ids=["a line", "many lines"]
)
def test_a_head_may_be_large(head: bytes) -> None:
    wire = [b"HTTP/1.1 200 OK\r\n", head, b"Content-Length: 2\r\n\r\n{}"]
    with (
        RawServer(lambda server, connection: server.send(connection, wire)) as server,
        GitLabStacIO(retry=HURRY) as stac_io,
    ):
        assert stac_io.read_json(f"{server.url}/x") == {}


@pytest.mark.parametrize(
    "head",
    [b"X: " + b"x" * MAX_HEAD + b"\r\n", b"X: y\r\n" * (MAX_HEAD // 6)],
    ids=["a line", "many lines"],
)
def test_a_head_that_is_too_large_is_an_error_that_says_so_and_not_tried_again(head: bytes) -> None:
    wire = [b"HTTP/1.1 200 OK\r\n", head, b"Content-Length: 2\r\n\r\n{}"]
    with (
        RawServer(lambda server, connection: server.send(connection, wire)) as server,
        GitLabStacIO(retry=HURRY) as stac_io,
        pytest.raises(
            InvalidResponseError, match=r"headers of the response are too large.*262144 bytes"
        ),
    ):
        stac_io.read_json(f"{server.url}/x")
    assert len(server.requests) == 1


def test_a_server_that_says_nothing_is_an_error_that_names_no_object_of_ours() -> None:
    with (
        RawServer(lambda server, connection: server.send(connection, iter([b""]), 5)) as server,
        GitLabStacIO(retry=RetryPolicy(max_attempts=1), timeout=0.2) as stac_io,
        pytest.raises(RequestTimeoutError, match=r"in time \(Read timed out.*timeout=") as caught,
    ):
        stac_io.read_json(f"{server.url}/x")
    assert "_Pool" not in str(caught.value)


# -- files ----------------------------------------------------------------------------------

BODY = bytes(range(256)) * 20


def chunked(body: bytes) -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, b"%x\r\n" % len(body), body, b"\r\n0\r\n\r\n"]


SENT: dict[str, Callable[[bytes], list[bytes]]] = {
    "a length": lambda body: [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body],
    "chunks": chunked,
    "neither": lambda body: [b"HTTP/1.1 200 OK\r\n\r\n", body],
    "gzip": lambda body: [
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
        gzip.compress(body),
    ],
}


def item_with(url: str) -> pystac.Item:
    assets = {"a.bin": {"href": url, "roles": ["data"]}}
    return pystac.Item.from_dict(a("item", assets=assets))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("sent", SENT.values(), ids=SENT.keys())
def test_a_file_may_be_as_large_as_allowed_and_no_larger(
    sent: Callable[[bytes], list[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"the old one")
    with RawServer(lambda server, connection: server.send(connection, sent(BODY))) as server:
        item = item_with(f"{server.url}/a.bin")
        small = GitLabStacIO(limits=Limits(file_bytes=len(BODY) - 1), retry=HURRY)
        with small, pytest.raises(DownloadError, match=r"Limits\(file_bytes=\)") as caught:
            STACDownloader(stac_io=small).download_assets(item, tmp_path, overwrite="always")
        assert list(caught.value.errors) == ["a.bin"]
        assert (tmp_path / "a.bin").read_bytes() == b"the old one"
        assert leftovers_in(tmp_path) == []
        assert len(server.requests) == 1
        with GitLabStacIO(limits=Limits(file_bytes=len(BODY)), retry=HURRY) as enough:
            STACDownloader(stac_io=enough).download_assets(item, tmp_path, overwrite="always")
        assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_length_that_is_too_large_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
    with (
        RawServer(lambda server, connection: server.send(connection, [head])) as server,
        GitLabStacIO(limits=Limits(file_bytes=10**9), retry=HURRY, timeout=30) as stac_io,
        pytest.raises(DownloadError, match="larger than 1000000000 bytes"),
    ):
        STACDownloader(stac_io=stac_io).download_assets(item_with(f"{server.url}/a"), tmp_path)


def test_what_an_earlier_run_left_counts_as_well(server: LoopbackServer, tmp_path: Path) -> None:
    body = b"0123456789" * 200_000
    server.route("/a.bin", ServedFile(body))
    item = item_with(f"{server.url}/a.bin")

    def stop(received: int, _total: int | None) -> None:
        if received > 1_200_000:
            raise KeyboardInterrupt

    class Stopping:
        def expect(self, files: int, size: int | None) -> None: ...

        def advance(self, _key: str, received: int, total: int | None) -> None:
            stop(received, total)

        def done(self, key: str, size: int | None) -> None: ...

    with GitLabStacIO(retry=HURRY) as stac_io, pytest.raises(KeyboardInterrupt):
        STACDownloader(stac_io=stac_io, progress=Stopping()).download_assets(item, tmp_path)
    limits = Limits(file_bytes=1_500_000)
    with GitLabStacIO(limits=limits, retry=HURRY) as stac_io, pytest.raises(DownloadError):
        STACDownloader(stac_io=stac_io).download_assets(item, tmp_path)
    assert not (tmp_path / "a.bin").exists()
