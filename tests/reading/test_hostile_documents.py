"""Whatever a server answers, it ends in an object that works or in an error of ours, and soon."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pystac
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pystac.item_collection import ItemCollection
from raw_server import RawServer

from stac_gitlab import (
    STACAPI,
    ConfigurationError,
    DownloadError,
    GitLabStacIO,
    InvalidResponseError,
    Limits,
    NetworkError,
    RetryPolicy,
    STACDownloader,
    STACGitLabError,
    UnreadableItemWarning,
    asset_roles,
)
from stac_gitlab.download.source import Locator
from stac_gitlab.errors import HTTPStatusError
from stac_gitlab.files.checksums import Checksum, UnknownChecksumError
from stac_gitlab.http.rate_headers import retry_after
from stac_gitlab.reading import documents
from stac_gitlab.reading.listing import list_collections, list_items
from stac_gitlab.testing import Answer, LoopbackServer

HURRY = RetryPolicy(max_attempts=1, deadline=5)

ITEM: dict[str, Any] = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "stac_extensions": ["https://stac-extensions.github.io/file/v2.1.0/schema.json"],
    "id": "lakes",
    "geometry": {"type": "Point", "coordinates": [6.5, 46.5]},
    "bbox": [6.5, 46.5, 6.5, 46.5],
    "properties": {
        "datetime": "2020-01-01T00:00:00Z",
        "title": "Lakes",
        "start_datetime": "2020-01-01T00:00:00Z",
        "end_datetime": "2020-01-02T00:00:00Z",
        "created": "2020-01-01T00:00:00Z",
        "sharinghub:id": 7,
        "updated": "2020-01-01T00:00:00Z",
    },
    "collection": "all",
    "links": [
        {"rel": "self", "href": "https://hub.example.org/lakes.json", "type": "application/json"},
        {"rel": "license", "href": "./LICENSE", "title": "Licence", "method": "GET"},
    ],
    "assets": {
        "data/lakes.csv": {
            "href": "./lakes.csv",
            "title": "Lakes",
            "type": "text/csv",
            "roles": ["data"],
            "file:size": 12,
            "file:checksum": "1220" + "00" * 32,
            "alternate": {"s3": {"href": "s3://bucket/lakes.csv"}},
        }
    },
}
COLLECTION: dict[str, Any] = {
    "type": "Collection",
    "stac_version": "1.0.0",
    "stac_extensions": [],
    "id": "all",
    "title": "All",
    "description": "All of them",
    "keywords": ["lakes"],
    "license": "MIT",
    "providers": [{"name": "Us", "roles": ["host"], "url": "https://example.org"}],
    "extent": {
        "spatial": {"bbox": [[0, 0, 1, 1]]},
        "temporal": {"interval": [["2020-01-01T00:00:00Z", None]]},
    },
    "summaries": {"gsd": {"minimum": 1, "maximum": 2}, "platform": ["a"]},
    "item_assets": {"a": {"type": "text/csv", "roles": ["data"]}},
    "links": [{"rel": "license", "href": "./LICENSE"}],
    "assets": {"a": {"href": "./a.csv", "roles": ["data"]}},
}
CATALOG: dict[str, Any] = {
    "type": "Catalog",
    "stac_version": "1.0.0",
    "id": "top",
    "title": "Top",
    "description": "Of all",
    "conformsTo": ["https://api.stacspec.org/v1.0.0/core"],
    "links": [{"rel": "service-desc", "href": "./api", "type": "application/json"}],
}
OLD_ITEM = {**ITEM, "stac_version": "0.9.0", "stac_extensions": ["eo", "checksum"]}
DOCUMENTS = {"item": ITEM, "collection": COLLECTION, "catalog": CATALOG, "old item": OLD_ITEM}


@pytest.fixture
def stac_io(server: LoopbackServer) -> Iterator[GitLabStacIO]:
    with GitLabStacIO("glpat-hostile-doc", base_url=server.url, retry=HURRY) as reader:
        pystac.StacIO.set_default(reader)
        yield reader


def answering(server: LoopbackServer, body: bytes, **headers: str) -> str:
    server.route("/doc", Answer(200, (("content-type", "application/json"),), body))
    if headers:
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        server.route("/doc", Answer(200, named, body))
    return f"{server.url}/doc"


# -- depth ----------------------------------------------------------------------------------


def nested(depth: int, opening: str, closing: str, inside: str = "1") -> bytes:
    document = json.dumps({**ITEM, "deep": "HERE"})
    return document.replace('"HERE"', opening * depth + inside + closing * depth).encode()


@pytest.mark.parametrize("depth", [200, 900, 5_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_a_document_that_is_nested_too_deeply_is_an_error_at_once(
    depth: int, opening: str, closing: str, server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    url = answering(server, nested(depth, opening, closing))
    with pytest.raises(InvalidResponseError, match="nested too deeply"):
        pystac.Item.from_file(url)


def test_a_document_as_deep_as_allowed_can_be_copied_and_written(
    server: LoopbackServer, stac_io: GitLabStacIO, tmp_path: Path
) -> None:
    # One level is the document itself.
    item = pystac.Item.from_file(answering(server, nested(Limits().nesting - 1, "[", "]")))
    copy.deepcopy(item.full_copy().clone().to_dict())
    item.save_object(dest_href=str(tmp_path / "item.json"))
    assert (
        pystac.Item.from_file(str(tmp_path / "item.json")).to_dict()["deep"]
        == item.to_dict()["deep"]
    )


def test_the_depth_can_be_raised(server: LoopbackServer) -> None:
    url = answering(server, nested(190, "[", "]"))
    with GitLabStacIO(limits=Limits(nesting=200)) as deep:
        assert pystac.Item.from_file(url, stac_io=deep).id == "lakes"
    with GitLabStacIO() as usual, pytest.raises(InvalidResponseError, match=r"Limits\(nesting=\)"):
        pystac.Item.from_file(url, stac_io=usual)


def test_beyond_what_python_bears_depth_is_an_error_all_the_same(
    server: LoopbackServer, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="at most 200 levels"):
        Limits(nesting=201)
    with GitLabStacIO(limits=Limits(nesting=200)) as stac_io:
        for inside in ("1", '"\\ud800"'):
            for depth in (190, 196, 197, 200, 600, 900, 5_000, 100_000):
                url = answering(server, nested(depth, "[", "]", inside))
                with contextlib.suppress(InvalidResponseError):
                    use(pystac.Item.from_file(url, stac_io=stac_io), stac_io, tmp_path)


def test_brackets_in_texts_are_not_nesting(server: LoopbackServer, stac_io: GitLabStacIO) -> None:
    body = json.dumps({**ITEM, "text": "[{" * 10_000}).encode()
    assert pystac.Item.from_file(answering(server, body)).id == "lakes"


TEXTS = st.text(alphabet='[]{}"\\/u0a\u00e9', max_size=6)
NESTED = st.recursive(
    TEXTS | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(document=st.dictionaries(TEXTS, NESTED, max_size=4), ascii_only=st.booleans())
def test_nesting_is_counted_whatever_stands_in_the_texts(
    document: dict[str, Any], ascii_only: bool
) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    depth = depth_of(document)
    limits = Limits(nesting=depth)
    assert documents.parse_json(body, url="https://h/x", limits=limits) == document
    if depth > 1:
        with pytest.raises(InvalidResponseError, match="nested too deeply"):
            documents.parse_json(body, url="https://h/x", limits=Limits(nesting=depth - 1))


def test_an_error_body_that_is_nested_deeply_does_no_harm(
    server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    for depth in (400, 900, 30_000):
        body = ('{"detail":' * depth + "1" + "}" * depth).encode()
        server.route("/doc", Answer(400, (), body))
        with pytest.raises(HTTPStatusError):
            stac_io.read_json(f"{server.url}/doc")


# -- compression ----------------------------------------------------------------------------


def bomb(compress: Callable[[bytes], bytes], size: int = 200 * 2**20) -> bytes:
    return compress(bytes(size))


BOMBS = {
    "gzip": ("gzip", lambda: bomb(gzip.compress)),
    "deflate": ("deflate", lambda: bomb(zlib.compress)),
    "gzip in gzip": ("gzip, gzip", lambda: gzip.compress(bomb(gzip.compress))),
    "members of gzip": ("gzip", lambda: gzip.compress(bytes(2**20)) * 200),
}


@pytest.fixture(scope="module", params=BOMBS)
def exploding(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    encoding, make = BOMBS[request.param]
    return encoding, make()


@pytest.mark.parametrize("status", [200, 404, 302])
def test_a_bomb_does_not_explode_in_memory(
    status: int, exploding: tuple[str, bytes], server: LoopbackServer
) -> None:
    encoding, body = exploding
    headers = (("content-encoding", encoding), ("location", "/doc"))
    server.route("/doc", Answer(status, headers, body))
    tracemalloc.start()
    with (
        GitLabStacIO(retry=HURRY, max_document_bytes=2**20) as stac_io,
        pytest.raises(STACGitLabError),
    ):
        stac_io.read_json(f"{server.url}/doc")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip" + ", gzip" * 50, "x"])
def test_a_body_that_is_not_what_it_says_is_an_error(
    encoding: str, server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    url = answering(server, b"\x1f\x8b nothing of the kind", content_encoding=encoding)
    with pytest.raises(STACGitLabError):
        stac_io.read_json(url)


# -- headers --------------------------------------------------------------------------------

HEADS = {
    "a long line": [b"HTTP/1.1 200 OK\r\nX: ", b"x" * 300_000, b"\r\n\r\n{}"],
    "countless headers": [b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 50_000, b"\r\n{}"],
    "a status line without end": [b"HTTP/1.1 200 " + b"O" * 300_000],
    "no HTTP at all": [b"\x16\x03\x01 hello\r\n\r\n"],
    "a garbled header": [b"HTTP/1.1 200 OK\r\nno header\r\n\r\n{}"],
    "a status that is none": [b"HTTP/1.1 2e3 OK\r\n\r\n"],
    "a status of 0": [b"HTTP/1.1 000 Nothing\r\n\r\n"],
    "a status of 999": [b"HTTP/1.1 999 Everything\r\nContent-Length: 2\r\n\r\n{}"],
    "two lengths": [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 99\r\n\r\n{}"],
    "a negative length": [b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{"],
    "a huge length": [b"HTTP/1.1 200 OK\r\nContent-Length: 9" + b"9" * 30 + b"\r\n\r\n{}"],
    "letters beyond ASCII": [b"HTTP/1.1 200 \xff\xfe\r\nX-\xe9: \xff\r\n\r\n{"],
    "a location beyond ASCII": [b"HTTP/1.1 302 F\r\nLocation: http://\xff\xfe/\xe9\r\n\r\n"],
    "a location with a bracket": [b"HTTP/1.1 302 F\r\nLocation: http://[::1/\r\n\r\n"],
    "a location with a port": [b"HTTP/1.1 302 F\r\nLocation: http://a:99999999/\r\n\r\n"],
    "a location that is a zero": [b"HTTP/1.1 302 F\r\nLocation: http://a%00b/\r\n\r\n"],
    "a location with dots": [b"HTTP/1.1 302 F\r\nLocation: http://a..b/\r\n\r\n"],
    "a location of a script": [b"HTTP/1.1 302 F\r\nLocation: javascript:alert(1)\r\n\r\n"],
    "chunks of nothing": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n;;;\r\n"],
    "chunks of less": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n"],
    "a wait that is none": [b"HTTP/1.1 429 X\r\nRetry-After: \xb2e9\r\nRateLimit: ;;\r\n\r\n"],
}


@pytest.mark.parametrize("wire", HEADS.values(), ids=HEADS.keys())
def test_an_answer_that_is_no_proper_one_is_an_error_of_ours(wire: list[bytes]) -> None:
    with (
        RawServer(lambda server, connection: server.send(connection, wire)) as server,
        GitLabStacIO("glpat-hostile-doc", retry=HURRY) as stac_io,
        pytest.raises(STACGitLabError),
    ):
        stac_io.read_json(f"{server.url}/doc")


@pytest.mark.parametrize("name", ["no HTTP at all", "a status that is none", "a garbled header"])
def test_an_answer_that_is_no_http_is_not_taken_for_no_connection(name: str) -> None:
    with (
        RawServer(lambda server, connection: server.send(connection, HEADS[name])) as server,
        GitLabStacIO("glpat-hostile-doc", retry=HURRY) as stac_io,
        pytest.raises(InvalidResponseError, match=r"cut short or is malformed \(.+\)\. Try again"),
    ):
        stac_io.read_json(f"{server.url}/doc")
    assert len(server.requests) == HURRY.max_attempts


ENDLESS = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0),
    "trickling interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05),
    "trickling headers": (b"HTTP/1.1 200 OK\r\n", b"X", 0.05),
    "trickling body": (b"HTTP/1.1 200 OK\r\n\r\n", b" ", 0.05),
    "trickling chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\n \r\n",
        0.05,
    ),
    "trickling error": (b"HTTP/1.1 400 Bad\r\n\r\n", b" ", 0.05),
    "trickling chunk extension": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"x",
        0.05,
    ),
}


@pytest.mark.parametrize(("head", "piece", "pause"), ENDLESS.values(), ids=ENDLESS.keys())
def test_nothing_without_end_is_listened_to_without_end(
    head: bytes, piece: bytes, pause: float
) -> None:
    def answer(server: RawServer, connection: Any) -> None:
        server.send(connection, [head])
        server.send(connection, iter(lambda: piece, None), pause)

    policy = RetryPolicy(max_attempts=1, deadline=1)
    started = time.monotonic()
    with (
        RawServer(answer) as server,
        GitLabStacIO("glpat-hostile-doc", retry=policy) as stac_io,
        pytest.raises((NetworkError, InvalidResponseError, HTTPStatusError)),
    ):
        stac_io.read_json(f"{server.url}/doc")
    assert time.monotonic() - started < 10


# -- JSON that is nearly JSON ---------------------------------------------------------------

ODD_BODIES = {
    "a byte order mark": (b"\xef\xbb\xbf" + json.dumps(ITEM).encode(), True),
    "UTF-16": (json.dumps(ITEM).encode("utf-16"), False),
    "latin-1": (json.dumps(ITEM).replace("Lakes", "S\xe9e").encode("latin-1"), False),
    "NaN": (json.dumps({**ITEM, "bbox": [float("nan")] * 4}).encode(), True),
    "infinity": (json.dumps({**ITEM, "x": float("-inf")}).encode(), True),
    "equal keys": (json.dumps(ITEM).encode()[:-1] + b', "id": "again"}', True),
    "a huge integer": (json.dumps(ITEM).encode()[:-1] + b', "n": ' + b"9" * 400 + b"}", True),
    "an integer too huge": (
        json.dumps(ITEM).encode()[:-1] + b', "n": ' + b"9" * 9999 + b"}",
        False,
    ),
    "a huge exponent": (json.dumps(ITEM).encode()[:-1] + b', "n": 1e99999}', True),
    "a lone surrogate": (json.dumps({**ITEM, "x": "\ud800"}).encode(), True),
    "a surrogate as a key": (json.dumps({**ITEM, "\udfff": 1}).encode(), True),
    "a surrogate in the id": (json.dumps({**ITEM, "id": "a\ud83d"}).encode(), True),
    "a surrogate in raw bytes": (json.dumps(ITEM).encode()[:-1] + b', "x": "\xed\xa0\x80"}', False),
    "a zero byte": (json.dumps(ITEM).encode() + b"\x00", False),
    "zeros in texts": (json.dumps({**ITEM, "x": "\x00"}).encode(), True),
    "two documents": (json.dumps(ITEM).encode() * 2, False),
}


@pytest.mark.parametrize("with_orjson", [True, False])
@pytest.mark.parametrize(("body", "is_readable"), ODD_BODIES.values(), ids=ODD_BODIES.keys())
def test_odd_json_is_an_object_that_can_be_written_or_an_error(
    body: bytes,
    is_readable: bool,
    with_orjson: bool,
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not with_orjson:
        monkeypatch.setattr(documents, "orjson", None)
    url = answering(server, body)
    if not is_readable:
        with pytest.raises(InvalidResponseError):
            pystac.Item.from_file(url)
        return
    item = pystac.Item.from_file(url)
    item.save_object(dest_href=str(tmp_path / "item.json"))
    again = pystac.Item.from_file(str(tmp_path / "item.json"))
    assert again.id == item.id


# -- wrong types everywhere -----------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(
        [
            "",
            "http://[",
            "http://a:b/",
            "//",
            "\x00",
            "../../x",
            "file:///etc/passwd",
            "2020-13-45T99:99:99Z",
            "9999999-01-01T00:00:00Z",
            "1.0.0",
            "0.9.0",
            "0.8.1",
            "Collection",
            "Feature",
            "?gitlab_token=x",
            "\ud800",
            "x" * 5000,
        ]
    )
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inside:
        yield (*path, key)
        if isinstance(one, (dict, list)):
            yield from paths_in(one, (*path, key))


@st.composite
def broken_documents(draw: st.DrawFn) -> dict[str, Any]:
    document: dict[str, Any] = copy.deepcopy(draw(st.sampled_from(list(DOCUMENTS.values()))))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(paths_in(document)) or [("id",)]))
        holder: Any = document
        for key in path[:-1]:
            holder = holder[key]
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "remove":
            del holder[path[-1]]
        elif action == "add" and isinstance(holder, dict):
            holder[draw(st.text(max_size=8))] = draw(values)
        else:
            holder[path[-1]] = draw(values)
    return document


def use(found: pystac.STACObject, stac_io: GitLabStacIO, tmp_path: Path) -> None:
    """Do with an object what must work with any that was read."""
    json.dumps(found.to_dict(include_self_link=True))
    repr(found)
    with contextlib.suppress(STACGitLabError):
        json.dumps(found.clone().to_dict(transform_hrefs=False))
    with contextlib.suppress(STACGitLabError, pystac.STACError):
        list(found.get_stac_objects("child"))
        list(found.get_stac_objects("item"))
    if isinstance(found, (pystac.Item, pystac.Collection)):
        asset_roles(found)
        locator = Locator(stac_io.session, ("s3",))
        for key, asset in found.assets.items():
            with contextlib.suppress(STACGitLabError):
                locator.locate(found, key, asset)
        downloader = STACDownloader(stac_io=stac_io)
        with contextlib.suppress(STACGitLabError):
            downloader.download_assets(found, tmp_path / "x", roles=None, dry_run=True)


@pytest.mark.parametrize("href", ["http://[::1", "http://\u2100/a.csv"])
def test_an_asset_that_stands_at_no_url_fails_by_itself_when_it_is_downloaded(
    href: str, server: LoopbackServer, stac_io: GitLabStacIO, tmp_path: Path
) -> None:
    assets = {"a": {"href": href}, "b": {"href": f"{server.url}/b"}}
    server.route("/item", {**ITEM, "assets": assets})
    server.route("/b", b"content of b")
    item = pystac.Item.from_file(f"{server.url}/item")
    with pytest.raises(DownloadError, match="'a'") as caught:
        STACDownloader(stac_io=stac_io).download_assets(item, tmp_path, roles=None)
    assert list(caught.value.errors) == ["a"]
    assert isinstance(caught.value.errors["a"], STACGitLabError)
    assert (tmp_path / "b").read_bytes() == b"content of b"
    server.route("/", {**CATALOG, "links": [{"rel": "item", "href": "/item"}]})
    with pytest.warns(UnreadableItemWarning, match="ValueError"):
        assert not list(pystac.Catalog.from_file(f"{server.url}/").get_items())


@pytest.mark.parametrize("href", ["", None, 0, [], {}])
def test_a_link_without_a_target_is_kept_and_copied(
    href: Any, server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    link = {"rel": "about", "href": href}
    server.route("/item", {**ITEM, "links": [*ITEM["links"], link]})
    item = pystac.Item.from_file(f"{server.url}/item")
    kept = {"rel": "about", "href": href or None if href != "" else ""}
    assert item.get_single_link("about").to_dict() == kept  # type: ignore[union-attr]
    assert item.clone().get_single_link("about").to_dict() == kept  # type: ignore[union-attr]


def test_an_empty_href_leads_to_its_own_document(
    server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    links = [{"rel": "root", "href": ""}, {"rel": "item", "href": "./item"}]
    server.route("/catalog", {**CATALOG, "links": links})
    server.route("/item", ITEM)
    catalog = pystac.Catalog.from_file(f"{server.url}/catalog")
    assert catalog.get_single_link("root").get_href() == ""  # type: ignore[union-attr]
    assert catalog.get_root() is catalog
    assert [item.id for item in catalog.get_items()] == [ITEM["id"]]
    assert len(server.requests) == 2


@pytest.mark.parametrize("value", [True, None, {}, ["a"]])
def test_a_member_without_an_id_is_left_out_of_a_listing(
    value: Any, server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    """As a document of its own, it is read like in stock pystac."""
    server.route("/item", {**ITEM, "id": value})
    assert pystac.Item.from_file(f"{server.url}/item").id == value
    server.route("/", {**CATALOG, "links": [{"rel": "item", "href": "/item"}]})
    with pytest.warns(UnreadableItemWarning, match="an item without an id"):
        assert not list(pystac.Catalog.from_file(f"{server.url}/").get_items())
    server.route("/items", {"type": "FeatureCollection", "features": [{**ITEM, "id": value}]})
    with pytest.warns(UnreadableItemWarning, match="item whose id is no text"):
        assert not list(list_items(stac_io, f"{server.url}/items"))


@pytest.mark.parametrize(
    "link",
    [
        {"href": "https://hub.example.org/"},
        {"rel": "parent", "href": "http://[::1"},
        {"rel": "parent", "href": ["https://hub.example.org/"]},
    ],
)
def test_a_broken_link_of_a_hub_is_an_error_that_names_it(
    link: dict[str, Any], server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    path = "/api/stac/collections/all/items/lakes"
    server.route(path, {**ITEM, "links": [*ITEM["links"], link]})
    with pytest.raises(InvalidResponseError, match=r"links\[2\]"):
        pystac.Item.from_file(server.url + path)


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(document=broken_documents(), listed=st.booleans())
def test_wrong_types_anywhere_are_an_error_of_ours_or_an_object_that_works(
    document: dict[str, Any],
    listed: bool,
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    tmp_path: Path,
) -> None:
    body = json.dumps(document).encode()
    url = answering(server, body)
    reads: list[Callable[[], Any]] = [
        lambda: [pystac.read_file(url)],
        lambda: [pystac.Item.from_file(url)],
        lambda: [pystac.Catalog.from_file(url)],
        lambda: [pystac.Collection.from_file(url)],
    ]
    if listed:
        page = {"type": "FeatureCollection", "features": [document], "links": []}
        server.route("/items", page)
        server.route("/all", {"collections": [document], "links": []})
        server.route("/top", {**CATALOG, "links": [{"rel": "data", "href": f"{server.url}/all"}]})
        api = STACAPI(f"{server.url}/top", stac_io=stac_io)
        with_items = {**COLLECTION, "links": [{"rel": "items", "href": f"{server.url}/items"}]}
        server.route("/with_items", with_items)
        reads = [
            lambda: ItemCollection.from_file(f"{server.url}/items").items,
            lambda: list(pystac.Collection.from_file(f"{server.url}/with_items").get_items()),
            lambda: list(pystac.Catalog.from_file(f"{server.url}/top").get_children()),
            lambda: list(api.collections()),
        ]
    for read in reads:
        try:
            found = read()
        except (STACGitLabError, pystac.STACError):
            continue
        for one in found:
            use(one, stac_io, tmp_path)


links = st.lists(
    st.fixed_dictionaries(
        {"rel": st.just("next")},
        optional={
            "href": scalars,
            "method": scalars,
            "headers": values,
            "body": values,
            "merge": scalars,
        },
    )
    | values,
    max_size=3,
)


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(links=links | values, features=st.lists(values, max_size=3) | values, more=values)
def test_any_page_is_an_error_of_ours_or_comes_to_an_end(
    links: Any, features: Any, more: Any, server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    document = {"features": features, "collections": features, "links": links}
    document |= {"numberMatched": more, "context": more}
    server.route("/items", json.dumps(document).encode())
    for listing in (partial(list_items, stac_io), partial(list_collections, stac_io)):
        with contextlib.suppress(STACGitLabError):
            list(listing(f"{server.url}/items"))


@settings(max_examples=300)
@given(text=st.text(max_size=60) | st.sampled_from(["9" * 400, "-1", "1e400", "٣", "²"]))
def test_any_wait_header_is_a_sensible_time_or_none(text: str) -> None:
    for name in ("Retry-After", "RateLimit-Reset", "X-RateLimit-Reset", "RateLimit", "Date"):
        hint = retry_after({name: text, "RateLimit-Remaining": "0"}, rate_limited=True)
        assert hint is None or hint >= 0


@settings(max_examples=300)
@given(text=st.text(alphabet="0123456789abcdef", max_size=90) | values)
def test_any_checksum_is_one_or_is_called_unknown(text: Any) -> None:
    with contextlib.suppress(UnknownChecksumError):
        checksum = Checksum.parse(text)
        assert Checksum.parse(str(checksum)) == checksum
