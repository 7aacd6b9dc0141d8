"""GitLabStacIO reads what pystac asks for, writes local files, and keeps its secrets."""

from __future__ import annotations

import copy
import gc
import json
import logging
import os
import pickle
import socket
import stat
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pytest
import requests
from pystac.item_collection import ItemCollection
from pystac.stac_io import DefaultStacIO, DuplicateKeyReportingMixin
from stac_documents import a

from stac_gitlab import (
    AuthenticationError,
    ConfigurationError,
    GitLabStacIO,
    InvalidResponseError,
    NotSTACError,
    RemoteWriteError,
    RetryPolicy,
    STACGitLabError,
)
from stac_gitlab.reading import documents
from stac_gitlab.testing import (
    Answer,
    Fault,
    LoopbackServer,
    Project,
    RecordedRequest,
    SharingHubServer,
)

TOKEN = "glpat-reader-000001"
NO_RETRIES = RetryPolicy(max_attempts=1)

POSIX = pytest.mark.skipif(os.name == "nt", reason="about POSIX file systems")


@pytest.fixture
def stac_io() -> Iterator[GitLabStacIO]:
    with GitLabStacIO(TOKEN, retry=NO_RETRIES) as reader:
        yield reader


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    lakes = Project("group/lakes", {"lakes.csv": b"id", "README.md": b"# L\n\n![a](a.png)"})
    with SharingHubServer([lakes], token=TOKEN) as running:
        yield running


# -- what it is -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"on_bad_item": "ignore"},
        {"page_size": 0},
        {"max_document_bytes": 0},
        {"timeout": 0},
        {"timeout": None},
        {"header": "no good: at all"},
        {"base_url": "ftp://hub.example.org"},
        {"hosts": ["http://"]},
        {"token": ""},
        {"token": "two words"},
    ],
)
def test_an_argument_that_makes_no_sense_is_an_error_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        GitLabStacIO(**options)


def test_repr_shows_where_the_token_goes_but_not_the_token(server: LoopbackServer) -> None:
    reader = GitLabStacIO(TOKEN)
    assert repr(reader) == "<GitLabStacIO with a token for the first server read>"
    server.route("/", {})
    reader.read_json(f"{server.url}/")
    assert repr(reader) == f"<GitLabStacIO with a token for {server.url}>"
    assert repr(GitLabStacIO()) == "<GitLabStacIO with no token for the first server read>"


def test_headers_are_a_plain_dict_that_can_be_read_changed_and_set(server: LoopbackServer) -> None:
    server.route("/", {})
    reader = GitLabStacIO(headers={"X-One": "1"})
    assert reader.headers == {"X-One": "1"}
    reader.headers["X-Two"] = "2"
    reader.read_json(f"{server.url}/")
    reader.headers = {"X-Gitlab-Token": TOKEN}
    reader.read_json(f"{server.url}/")
    first, second = (request.headers for request in server.requests)
    assert (first["X-One"], first["X-Two"]) == ("1", "2")
    assert second["X-Gitlab-Token"] == TOKEN
    assert "X-One" not in second
    reader.headers = None
    assert reader.headers == {}


def test_a_closed_reader_opens_again_when_it_is_used(server: LoopbackServer) -> None:
    server.route("/", {"a": 1})
    with GitLabStacIO() as reader:
        assert reader.read_json(f"{server.url}/") == {"a": 1}
    reader.close()
    assert reader.read_json(f"{server.url}/") == {"a": 1}
    reader.close()


# -- remote reading -------------------------------------------------------------------------


def test_the_frames_of_an_error_over_a_local_file_show_no_token(
    stac_io: GitLabStacIO, tmp_path: Path
) -> None:
    stac_io.credentials.token()
    (tmp_path / "broken.json").write_text("not JSON")
    with pytest.raises(InvalidResponseError) as caught:
        pystac.Item.from_file(str(tmp_path / "broken.json"), stac_io=stac_io)
    redacted = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert TOKEN not in "".join(redacted.format())


@pytest.mark.parametrize("href", ["http://[::1", "http://\u2100/item.json", "a\0b", "a\ud800"])
def test_an_href_that_cannot_be_one_is_the_callers_mistake(
    stac_io: GitLabStacIO, href: str
) -> None:
    for read in (stac_io.read_text, stac_io.read_json, stac_io.read_stac_object):
        with pytest.raises(ConfigurationError):
            read(href)
    with pytest.raises(ConfigurationError):
        pystac.Item.from_file(href, stac_io=stac_io)


def test_a_link_is_read_with_its_method_headers_and_body(
    server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    server.route("/search", {"type": "FeatureCollection", "features": []})
    link = pystac.Link(
        "search",
        f"{server.url}/search",
        extra_fields={"method": "POST", "headers": {"X-Page": "2"}, "body": {"limit": 2}},
    )
    assert stac_io.read_json(link)["features"] == []
    assert stac_io.read_text(link).startswith("{")
    for request in server.requests:
        assert (request.method, request.json()) == ("POST", {"limit": 2})
        assert request.headers["X-Page"] == "2"


def test_a_link_of_a_document_does_not_make_us_post_where_the_token_goes(
    server: LoopbackServer, other_server: LoopbackServer
) -> None:
    body = {"name": "key", "scopes": ["api"]}
    target = f"{server.url}/api/v4/projects/1/access_tokens"
    link = {"rel": "search", "href": target, "method": "POST", "body": body}
    other_server.route("/catalog", a("catalog", links=[link]))
    with GitLabStacIO(TOKEN, base_url=server.url, retry=NO_RETRIES) as reader:
        catalog = reader.read_stac_object(f"{other_server.url}/catalog")
        owned = catalog.get_single_link("search")
        for read in (reader.read_json, reader.read_text, reader.read_stac_object):
            with pytest.raises(InvalidResponseError, match="a POST to a server that gets your"):
                read(owned)
        assert server.requests == []
        server.route("/api/v4/projects/1/access_tokens", {})
        reader.read_json(pystac.Link.from_dict(link))
    assert [TOKEN in str(request.headers) for request in server.requests] == [False]


def test_a_document_larger_than_the_cap_is_an_error(server: LoopbackServer) -> None:
    server.route("/big", {"a": "x" * 5000})
    with (
        GitLabStacIO(max_document_bytes=1000) as reader,
        pytest.raises(InvalidResponseError, match=r"larger than 1000 bytes.*max_document_bytes"),
    ):
        reader.read_json(f"{server.url}/big")


def test_public_schemas_never_get_the_token_bound() -> None:
    reader = GitLabStacIO(TOKEN)
    for url in ("https://schemas.stacspec.org/v1.0.0/item.json", "https://x.github.io/s.json"):
        reader.credentials.bind(url)
    assert "first server read" in repr(reader)


@pytest.mark.parametrize(
    "href",
    [
        "s3://bucket/etc/passwd",
        "ftp://host/etc/passwd",
        "http://host:99999/etc/passwd",
        "http:///etc/passwd",
        "http://[bad/etc/passwd",
        "data:application/json,{}",
    ],
)
def test_an_href_of_another_kind_is_never_taken_for_a_local_path(
    stac_io: GitLabStacIO, href: str
) -> None:
    for read in (stac_io.read_text, stac_io.read_json, stac_io.read_stac_object):
        with pytest.raises(STACGitLabError):
            read(href)
    with pytest.raises(STACGitLabError):
        stac_io.write_text(href, "x")


BROKEN: dict[str, tuple[Any, str]] = {
    "truncated": (b'{"type": "Cat', "cut short"),
    "empty": (b"", "empty"),
    "a list": (b"[]", "a list where an object was expected"),
    "text": ("no JSON here", "not JSON"),
    "invalid UTF-8": (b'{"a": "\xff\xfe"}', "not UTF-8"),
    "an HTML page": ("<!DOCTYPE html><html><body>Hello</body></html>", "an HTML page came"),
    "too deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    "no STAC version": ({"type": "Catalog", "id": "c", "links": []}, "stac_version is missing"),
    "no id": ({"type": "Catalog", "stac_version": "1.0.0", "links": []}, "id is missing"),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("orjson", [True, False])
def test_a_broken_answer_is_an_error_of_ours(
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    orjson: bool,
) -> None:
    if not orjson:
        monkeypatch.setattr(documents, "orjson", None)
    body, said = BROKEN[how]
    server.route("/doc", body)
    for read in (pystac.Catalog.from_file, pystac.Item.from_file, pystac.read_file):
        with pytest.raises(InvalidResponseError, match=said):
            read(f"{server.url}/doc", stac_io=stac_io)


@pytest.mark.parametrize(
    "fault",
    [Fault(cut_after=30), Fault(cut_after=30, chunked=True), Fault(cut_after=30, close=True)],
    ids=["with length", "chunked", "without length"],
)
def test_a_cut_answer_is_asked_for_again(server: LoopbackServer, clock: Any, fault: Fault) -> None:
    server.route("/doc", {"a": "é" * 100})
    server.inject(fault)
    retry = RetryPolicy(clock=clock.time, sleep=clock.sleep)
    with GitLabStacIO(retry=retry) as reader:
        assert reader.read_json(f"{server.url}/doc") == {"a": "é" * 100}
    assert len(server.requests) == 2


def test_a_sign_in_page_is_an_authentication_error(
    server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    page = "<html><head><title>Sign in</title></head><form action='/users/sign_in'></form></html>"
    server.route("/doc", page, media_type="text/html")
    with pytest.raises(AuthenticationError, match="sign-in page") as caught:
        pystac.Item.from_file(f"{server.url}/doc", stac_io=stac_io)
    assert caught.value.response.status_code == 200


def test_json_that_is_no_stac_is_an_error_for_objects_only(
    server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    server.route("/doc", {"hello": "world"})
    assert stac_io.read_json(f"{server.url}/doc") == {"hello": "world"}
    for read in (pystac.Item.from_file, pystac.read_file, ItemCollection.from_file):
        with pytest.raises(NotSTACError, match="JSON that is not STAC came"):
            read(f"{server.url}/doc", stac_io=stac_io)


def test_errors_in_plain_text_are_told(server: LoopbackServer, stac_io: GitLabStacIO) -> None:
    server.route("/doc", "Upstream is asleep", status=503)
    with pytest.raises(requests.HTTPError, match=r"503 .*the server says: Upstream is asleep"):
        stac_io.read_json(f"{server.url}/doc")


def test_text_that_is_not_utf8_is_an_error(server: LoopbackServer, stac_io: GitLabStacIO) -> None:
    server.route("/text", b"caf\xe9")
    with pytest.raises(InvalidResponseError, match="not UTF-8 text") as caught:
        stac_io.read_text(f"{server.url}/text?private_token=abcdefgh")
    assert "abcdefgh" not in f"{caught.value} {caught.value.url}"


# -- secrets --------------------------------------------------------------------------------


def test_no_token_comes_through_from_sharinghub(
    hub: SharingHubServer, stac_io: GitLabStacIO
) -> None:
    item_url = hub.item_url("group/lakes")
    raw = requests.get(item_url, headers={"X-Gitlab-Token": TOKEN}, timeout=5).text
    assert raw.count(TOKEN) >= 2, "else this test is about nothing"
    for text in (
        json.dumps(pystac.Item.from_file(item_url, stac_io=stac_io).to_dict()),
        json.dumps(stac_io.read_json(item_url)),
        stac_io.read_text(item_url),
        json.dumps(pystac.read_file(item_url, stac_io=stac_io).to_dict()),
        json.dumps(stac_io.read_json(f"{hub.stac_url}/collections/dataset/items")),
    ):
        assert TOKEN not in text
        assert "gitlab_token" not in text


def test_the_token_in_a_url_that_is_read_is_not_kept(hub: SharingHubServer) -> None:
    reader = GitLabStacIO(TOKEN)
    url = f"{hub.item_url('group/lakes')}?gitlab_token={TOKEN}"
    text = json.dumps(reader.read_stac_object(url).to_dict(transform_hrefs=False)["assets"])
    assert TOKEN not in text


def test_secrets_of_the_users_headers_are_masked_too(server: LoopbackServer) -> None:
    server.route("/doc", {"echo": "your key is abc-secret-key"})
    reader = GitLabStacIO(headers={"X-Own-Key": "abc-secret-key", "Accept": "application/json"})
    assert reader.read_json(f"{server.url}/doc") == {"echo": "your key is ***"}


def test_nothing_secret_is_logged(
    hub: SharingHubServer, stac_io: GitLabStacIO, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    pystac.Item.from_file(hub.item_url("group/lakes"), stac_io=stac_io)
    assert "bound to" in caplog.text
    assert TOKEN not in caplog.text


def test_a_local_file_is_cleaned_like_an_answer(tmp_path: Path, stac_io: GitLabStacIO) -> None:
    path = tmp_path / "doc.json"
    path.write_text(json.dumps({"href": "https://h/f?gitlab_token=abc&ref=main"}))
    assert stac_io.read_json(path) == {"href": "https://h/f?ref=main"}
    assert "gitlab_token" not in stac_io.read_text(path)


# -- local files ----------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A catalog with two levels, saved by stock pystac."""
    root = pystac.Catalog("root", "The root")
    collection = pystac.Collection(
        "fields",
        "Fields",
        pystac.Extent(
            pystac.SpatialExtent([[-180.0, -90.0, 180.0, 90.0]]),
            pystac.TemporalExtent([[datetime(2024, 1, 1, tzinfo=UTC), None]]),
        ),
    )
    root.add_child(pystac.Catalog("empty", "Nothing"))
    root.add_child(collection)
    for number in range(3):
        item = pystac.Item(
            f"field {number}",
            {"type": "Point", "coordinates": [number, number]},
            [number, number, number, number],
            datetime(2024, 1, 1 + number, tzinfo=UTC),
            {"é": "日本"},
        )
        item.add_asset("data", pystac.Asset("./data.csv", roles=["data"]))
        collection.add_item(item)
    folder = tmp_path / "tree"
    root.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED, stac_io=DefaultStacIO())
    return folder


def walked(catalog: pystac.Catalog) -> list[dict[str, Any]]:
    found = []
    for parent, _, items in catalog.walk():
        found.append(parent.to_dict())
        found += [item.to_dict() for item in items]
    return found


def test_a_local_tree_reads_as_with_the_stock_reader(
    tree: Path, stac_io: GitLabStacIO, capsys: pytest.CaptureFixture[str]
) -> None:
    def seen(reader: pystac.StacIO) -> tuple[Any, ...]:
        root = pystac.Catalog.from_file(str(tree / "catalog.json"), stac_io=reader)
        root.describe(include_hrefs=True)
        items = [item.id for item in root.get_items(recursive=True)]
        one = [item.id for item in root.get_items("field 1", recursive=True)]
        child = root.get_child("fields")
        assert child is not None
        relatives = [
            i.get_collection() is child and i.get_root() is root for i in child.get_items()
        ]
        return walked(root), items, one, relatives, capsys.readouterr().out

    assert seen(stac_io) == seen(DefaultStacIO())


def test_a_local_tree_saves_as_with_the_stock_reader(
    tree: Path, tmp_path: Path, stac_io: GitLabStacIO
) -> None:
    def saved(reader: pystac.StacIO, name: str) -> dict[str, Any]:
        root = pystac.Catalog.from_file(str(tree / "catalog.json"), stac_io=reader)
        root.normalize_and_save(str(tmp_path / name), pystac.CatalogType.SELF_CONTAINED)
        return {
            path.relative_to(tmp_path / name).as_posix(): path.read_text(encoding="utf-8")
            for path in (tmp_path / name).rglob("*.*")
        }

    ours = saved(stac_io, "ours")
    assert len(ours) == 6
    assert ours == saved(DefaultStacIO(), "stock")


@pytest.mark.parametrize("kind", ["path", "str", "file url", "link", "relative"])
def test_a_local_file_is_read_by_any_name(
    tree: Path, stac_io: GitLabStacIO, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tree / "catalog.json"
    monkeypatch.chdir(tree)
    source: Any = {
        "path": path,
        "str": str(path),
        "file url": f"file://{path.as_posix()}",
        "link": pystac.Link("child", str(path)),
        "relative": "catalog.json",
    }[kind]
    assert stac_io.read_json(source)["id"] == "root"
    assert json.loads(stac_io.read_text(source))["id"] == "root"
    assert stac_io.read_stac_object(source).id == "root"
    if kind != "link":
        found = pystac.Catalog.from_file(source, stac_io=stac_io)
        assert found.get_root() is found
        assert len(list(found.get_items(recursive=True))) == 3
        assert pystac.read_file(source, stac_io=stac_io).id == "root"


def test_a_missing_local_file_is_what_python_calls_it(
    tmp_path: Path, stac_io: GitLabStacIO
) -> None:
    with pytest.raises(FileNotFoundError):
        pystac.Item.from_file(str(tmp_path / "none.json"), stac_io=stac_io)


@pytest.mark.parametrize("body", ["[]", "{", "hello", ""])
def test_a_local_file_without_a_json_object_is_an_error(
    tmp_path: Path, stac_io: GitLabStacIO, body: str
) -> None:
    path = tmp_path / "doc.json"
    path.write_text(body)
    with pytest.raises(InvalidResponseError) as caught:
        stac_io.read_json(path)
    assert isinstance(caught.value, ValueError)
    assert str(path) in str(caught.value)


def test_a_local_file_of_another_type_is_what_stock_pystac_calls_it(
    tree: Path, stac_io: GitLabStacIO
) -> None:
    with pytest.raises(pystac.STACTypeError) as caught:
        pystac.Item.from_file(str(tree / "catalog.json"), stac_io=stac_io)
    assert type(caught.value) is pystac.STACTypeError


@POSIX
def test_a_path_in_a_folder_that_is_there_may_hold_any_character(
    tmp_path: Path, stac_io: GitLabStacIO
) -> None:
    folder = tmp_path / "run #1?x=%20"
    folder.mkdir()
    path = folder / "a;b#c.json"
    stac_io.save_json(str(path), {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    assert stac_io.read_json(str(path)) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["run #1?x=%20"]


@POSIX
@pytest.mark.parametrize("item_id", ["S2#1", "what?"])
def test_a_catalog_is_saved_where_pystac_looks_for_it(
    item_id: str, tmp_path: Path, stac_io: GitLabStacIO
) -> None:
    catalog = pystac.Catalog("home", "with an odd item")
    catalog.add_item(pystac.Item(item_id, None, None, datetime(2024, 1, 1, tzinfo=UTC), {}))
    catalog.normalize_hrefs(str(tmp_path))
    catalog.save(pystac.CatalogType.SELF_CONTAINED, stac_io=stac_io)
    saved = pystac.Catalog.from_file(tmp_path / "catalog.json", stac_io=stac_io)
    assert [item.id for item in saved.get_items()] == [item_id]


OLD: dict[str, dict[str, Any]] = {
    "catalog 0.8": {
        "stac_version": "0.8.1",
        "id": "old",
        "description": "An old catalog",
        "links": [{"rel": "child", "href": "./child.json"}],
    },
    "collection 0.8": {
        "stac_version": "0.8.1",
        "id": "old",
        "description": "An old collection",
        "license": "CC-BY-4.0",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [["2019-01-01T00:00:00Z", None]]},
        },
        "links": [],
    },
    "collection 0.9": {
        "stac_version": "0.9.0",
        "stac_extensions": ["asset"],
        "id": "old",
        "description": "An old collection",
        "license": "proprietary",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [["2019-01-01T00:00:00Z", None]]},
        },
        "links": [],
    },
    "item 0.8": {
        "stac_version": "0.8.1",
        "type": "Feature",
        "id": "old",
        "geometry": {"type": "Point", "coordinates": [1, 2]},
        "bbox": [1, 2, 1, 2],
        "properties": {"datetime": "2019-01-01T00:00:00Z", "eo:gsd": 10},
        "links": [],
        "assets": {"B1": {"href": "./b1.tif", "eo:bands": [0]}},
    },
    "item 0.9": {
        "stac_version": "0.9.0",
        "stac_extensions": ["eo", "checksum"],
        "type": "Feature",
        "id": "old",
        "geometry": {"type": "Point", "coordinates": [1, 2]},
        "bbox": [1, 2, 1, 2],
        "properties": {"datetime": None, "start_datetime": "2019-01-01T00:00:00Z",
                       "end_datetime": "2019-01-02T00:00:00Z", "eo:bands": [{"name": "B1"}]},
        "links": [],
        "assets": {"B1": {"href": "./b1.tif", "checksum:multihash": "1220" + "0" * 64}},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_old_documents_read_as_with_the_stock_reader(
    tmp_path: Path, stac_io: GitLabStacIO, server: LoopbackServer, name: str
) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(OLD[name]))
    server.route("/old.json", OLD[name])
    kinds = {"catalog": pystac.Catalog, "collection": pystac.Collection, "item": pystac.Item}
    kind: Any = kinds[name.split(maxsplit=1)[0]]

    def progress(found: pystac.STACObject) -> dict[str, Any]:
        document = found.to_dict(include_self_link=False)
        document["links"] = [link for link in document["links"] if link["rel"] != "root"]
        return document

    stock = progress(kind.from_file(str(path), stac_io=DefaultStacIO()))
    assert progress(kind.from_file(str(path), stac_io=stac_io)) == stock
    assert progress(pystac.read_file(str(path), stac_io=stac_io)) == stock
    assert progress(kind.from_file(f"{server.url}/old.json", stac_io=stac_io)) == stock
    assert progress(pystac.read_file(f"{server.url}/old.json", stac_io=stac_io)) == stock


# -- writing --------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["https://hub.example.org/x.json", "s3://bucket/x.json"])
def test_writing_to_a_url_is_refused_in_pystacs_own_way(stac_io: GitLabStacIO, url: str) -> None:
    with pytest.raises(NotImplementedError, match="local files only") as caught:
        pystac.Catalog("c", "d").save_object(dest_href=url, stac_io=stac_io)
    assert isinstance(caught.value, RemoteWriteError)


@pytest.mark.parametrize("with_orjson", [True, False])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_json_cannot_hold_is_saved_as_null(
    number: str,
    with_orjson: bool,
    tmp_path: Path,
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not with_orjson:
        monkeypatch.setattr(pystac.stac_io, "orjson", None)
    properties = {"datetime": "2024-01-01T00:00:00Z", "depths": [1, 2222], "name": "NaN"}
    text = json.dumps(a("item", properties=properties)).replace("2222", number)
    server.route("/item", text.encode(), media_type="application/json")
    pystac.Item.from_file(f"{server.url}/item", stac_io).save_object(
        dest_href=str(tmp_path / "item.json"), stac_io=stac_io
    )
    saved = json.loads((tmp_path / "item.json").read_bytes(), parse_constant=pytest.fail)
    assert saved["properties"] == {**properties, "depths": [1, None]}


def test_a_text_is_written_by_any_name_and_read_back(tmp_path: Path, stac_io: GitLabStacIO) -> None:
    for number, name in enumerate(("a/b/c.json", "d.json", "a/e.json")):
        path = tmp_path / name
        dest: Any = (str(path), path, f"file://{path.as_posix()}")[number]
        stac_io.write_text(dest, f"é {number}\n")
        assert path.read_bytes() == f"é {number}\n".encode()
        assert stac_io.read_text(dest) == f"é {number}\n"


def test_a_relative_path_is_written_where_the_caller_is(
    tmp_path: Path, stac_io: GitLabStacIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stac_io.write_text("x.json", "{}")
    assert (tmp_path / "x.json").read_text() == "{}"


def failing_replace(*_: object) -> None:
    raise OSError(28, "No space left on device")


def interrupted_replace(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("replace", [failing_replace, interrupted_replace])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path,
    stac_io: GitLabStacIO,
    monkeypatch: pytest.MonkeyPatch,
    replace: Callable[..., None],
) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises((OSError, KeyboardInterrupt)):
        stac_io.write_text(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert path.read_text() == "old"


@POSIX
def test_a_symbolic_link_is_written_through(tmp_path: Path, stac_io: GitLabStacIO) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "x.json"
    target.write_text("old")
    link = tmp_path / "link.json"
    link.symlink_to(target)
    stac_io.write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["link.json", "real", "x.json"]


@POSIX
def test_permissions_are_kept_and_new_files_follow_the_umask(
    tmp_path: Path, stac_io: GitLabStacIO
) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    path.chmod(0o640)
    stac_io.write_text(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    before = os.umask(0o027)
    try:
        stac_io.write_text(tmp_path / "y.json", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "y.json").stat().st_mode) == 0o640


# -- copies and pickles ---------------------------------------------------------------------


def test_a_copy_is_the_reader_itself(stac_io: GitLabStacIO) -> None:
    assert copy.copy(stac_io) is stac_io
    assert copy.deepcopy(stac_io) is stac_io
    assert stac_io() is stac_io


def test_copied_catalogs_and_items_keep_their_reader(
    hub: SharingHubServer, stac_io: GitLabStacIO
) -> None:
    collection = pystac.Collection.from_file(f"{hub.stac_url}/collections/dataset", stac_io=stac_io)
    item = pystac.Item.from_file(hub.item_url("group/lakes"), stac_io=stac_io)
    for copied in (copy.deepcopy(collection), copy.copy(collection)):
        assert [i.id for i in copied.get_items()] == ["group/lakes"]
    for again in (copy.deepcopy(item), copy.copy(item)):
        parent = again.get_parent()
        assert parent is not None
        assert parent.id == "dataset"


def test_a_pickled_reader_leaves_its_token_behind(
    hub: SharingHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled = pickle.dumps(GitLabStacIO(TOKEN, page_size=7, on_bad_item="raise", timeout=(3, 4)))
    assert TOKEN.encode() not in pickled
    reader = pickle.loads(pickled)
    assert (reader.page_size, reader.on_bad_item, reader.session.timeout) == (7, "raise", (3, 4))
    with pytest.raises(ConfigurationError, match=r"pickled without its token.*STAC_GITLAB_TOKEN"):
        reader.read_json(hub.stac_url)
    monkeypatch.setenv("STAC_GITLAB_TOKEN", TOKEN)
    assert reader.read_json(hub.stac_url)["id"] == "sharinghub-lab"


def test_a_token_travels_where_the_caller_allowed_it(hub: SharingHubServer) -> None:
    reader = pickle.loads(pickle.dumps(GitLabStacIO(TOKEN, allow_pickle_token=True)))
    assert reader.read_json(hub.item_url("group/lakes"))["id"] == "group/lakes"
    again = pickle.loads(pickle.dumps(reader))
    assert again.read_json(hub.item_url("group/lakes"))["id"] == "group/lakes"


def test_secret_headers_stay_behind_like_the_token() -> None:
    reader = GitLabStacIO(headers={"X-Gitlab-Token": TOKEN, "Accept": "application/json"})
    pickled = pickle.dumps(reader)
    assert TOKEN.encode() not in pickled
    assert pickle.loads(pickled).headers == {"Accept": "application/json"}


def a_token() -> str:
    return TOKEN


def test_a_token_function_travels_by_name(hub: SharingHubServer) -> None:
    reader = pickle.loads(pickle.dumps(GitLabStacIO(a_token)))
    assert reader.read_json(hub.item_url("group/lakes"))["id"] == "group/lakes"


def test_a_bound_token_stays_bound_in_the_worker(hub: SharingHubServer) -> None:
    reader = GitLabStacIO(TOKEN, allow_pickle_token=True)
    reader.read_json(hub.stac_url)
    assert repr(pickle.loads(pickle.dumps(reader))) == repr(reader)


WORKER = """
    import pickle, sys
    item, catalog = pickle.load(sys.stdin.buffer)
    print(item.id, item.get_parent().id, [i.id for i in catalog.get_items(recursive=True)])
"""


@pytest.mark.parametrize("env", [{"STAC_GITLAB_TOKEN": TOKEN}, {}], ids=["token", "no token"])
def test_pickled_objects_keep_their_reader_in_another_process(
    hub: SharingHubServer, stac_io: GitLabStacIO, env: dict[str, str]
) -> None:
    item = pystac.Item.from_file(hub.item_url("group/lakes"), stac_io=stac_io)
    catalog = pystac.Catalog.from_file(hub.stac_url, stac_io=stac_io)
    worker = subprocess.run(
        [sys.executable, "-X", "dev", "-c", "import stac_gitlab\n" + textwrap.dedent(WORKER)],
        input=pickle.dumps((item, catalog)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env},
        capture_output=True,
        timeout=60,
        check=False,
    )
    said = worker.stderr.decode()
    if env:
        assert worker.stdout.decode() == "group/lakes dataset ['group/lakes']\n", said
    else:
        assert "pickled without its token" in said
    assert TOKEN not in said
    assert "ResourceWarning" not in said


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_a_reader_that_is_forgotten_leaves_nothing_open(
    hub: SharingHubServer, recwarn: pytest.WarningsRecorder
) -> None:
    for _ in range(3):
        reader = GitLabStacIO(TOKEN, page_size=1)
        items = pystac.Catalog.from_file(hub.stac_url, stac_io=reader).get_items(recursive=True)
        next(items)
        del reader, items
    gc.collect()
    assert [str(w.message) for w in recwarn] == []


def test_a_session_of_the_users_own_carries_the_requests(server: LoopbackServer) -> None:
    class Counting(requests.adapters.HTTPAdapter):
        count = 0

        def send(self, *args: Any, **kwargs: Any) -> requests.Response:
            self.count += 1
            return super().send(*args, **kwargs)

    server.route("/doc", Answer(200, (("content-type", "application/json"),), b"{}"))
    adapter = Counting()
    with requests.Session() as session:
        session.mount("http://", adapter)
        with GitLabStacIO(session=session) as reader:
            reader.read_json(f"{server.url}/doc")
    assert adapter.count == 1


# -- addresses ------------------------------------------------------------------------------


def test_relative_links_are_relative_to_where_a_redirect_led(
    server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    server.route("/stac", Answer(307, (("location", "/stac/"),)))
    links = [{"rel": "child", "href": "child.json"}, {"rel": "item", "href": "./item.json"}]
    server.route("/stac/", a("catalog", links=links))
    server.route("/stac/child.json", a("catalog", id="child"))
    server.route("/stac/item.json", a("item", assets={"a": {"href": "a.tif"}}))
    pystac.StacIO.set_default(stac_io)
    for read in (pystac.Catalog.from_file, stac_io.read_stac_object):
        catalog = read(f"{server.url}/stac")
        assert isinstance(catalog, pystac.Catalog)
        assert catalog.get_self_href() == f"{server.url}/stac/"
        assert [child.id for child in catalog.get_children()] == ["child"]
        [item] = catalog.get_items()
        assert item.assets["a"].get_absolute_href() == f"{server.url}/stac/a.tif"


def test_an_object_keeps_the_url_that_was_asked_for(server: LoopbackServer) -> None:
    server.route("/", a("catalog"))
    server.route("/a b.json", a("catalog"))
    for url in (server.url, f"{server.url}/a b.json"):
        assert pystac.Catalog.from_file(url).get_self_href() == url


def test_http_links_of_an_https_server_are_asked_for_by_https(
    tls_server: LoopbackServer,
) -> None:
    plain = tls_server.url.replace("https://", "http://")
    other = "http://elsewhere.example.org"
    more = {"rel": "next", "href": f"{plain}/items", "method": "POST", "body": {"token": 2}}
    assets = {"a": {"href": f"{plain}/a.tif"}, "b": {"href": f"{other}/b.tif"}}
    page = {"type": "FeatureCollection", "features": [a("item", assets=assets)], "links": [more]}

    def items(request: RecordedRequest) -> Any:
        return page if request.method == "GET" else {**page, "features": [], "links": []}

    tls_server.route("/items", items)
    links = [{"rel": "items", "href": f"{plain}/items"}, {"rel": "license", "href": f"{other}/"}]
    tls_server.route("/c", a("collection", links=links))
    with GitLabStacIO(TOKEN, base_url=tls_server.url) as reader:
        collection = pystac.Collection.from_file(f"{tls_server.url}/c", stac_io=reader)
        [item] = collection.get_items()
    assert [request.method for request in tls_server.requests] == ["GET", "GET", "POST"]
    assert {key: asset.href for key, asset in item.assets.items()} == {
        "a": f"{tls_server.url}/a.tif",
        "b": f"{other}/b.tif",
    }
    assert collection.get_single_link("license").href == f"{other}/"  # type: ignore[union-attr]  # it is there


@pytest.mark.parametrize(
    "plain", ["http://localhost:443", "http://LOCALHOST", "HTTP://localhost:80"]
)
def test_http_links_with_the_port_of_https_are_asked_for_by_https(
    plain: str, tls_server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = socket.getaddrinfo

    def addresses(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        assert port == 443, f"{port} is not the port of https"
        return known("127.0.0.1", tls_server.port, *args, **options)

    page = {"type": "FeatureCollection", "features": [a("item")], "links": []}
    tls_server.route("/items", page)
    links = [{"rel": "items", "href": f"{plain}/items?a=b"}]
    links.append({"rel": "license", "href": "HTTP://localhost:8080/"})
    tls_server.route("/c", a("collection", links=links))
    with (
        GitLabStacIO(TOKEN, base_url="https://localhost") as reader,
        monkeypatch.context() as patch,
    ):
        patch.setattr(socket, "getaddrinfo", addresses)
        collection = pystac.Collection.from_file("https://localhost/c", stac_io=reader)
        assert len([*collection.get_items()]) == 1
    assert [link.href for link in collection.links[-2:]] == [
        "https://localhost/items?a=b",
        "HTTP://localhost:8080/",
    ]


# -- subclasses -----------------------------------------------------------------------------


class BucketIO(GitLabStacIO):
    """Reads another scheme, as pystac's documentation shows it."""

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        if str(source) == "s3://bucket/catalog.json":
            links = [{"rel": "item", "href": "./item.json"}]
            return json.dumps(a("catalog", links=links))
        if str(source) == "s3://bucket/item.json":
            return json.dumps(a("item", links=[{"rel": "about", "href": "file:///etc/passwd"}]))
        return super().read_text(source, *args, **kwargs)


class UpperIO(GitLabStacIO):
    def json_loads(self, txt: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {**super().json_loads(txt, *args, **kwargs), "id": "PARSED"}


def test_a_subclass_reads_in_its_own_way() -> None:
    catalog = pystac.Catalog.from_file("s3://bucket/catalog.json", stac_io=BucketIO())
    [item] = catalog.get_items()
    assert item.id == "lakes"
    assert item.links[0].href == "remote-file://refused/file:///etc/passwd"


def test_a_subclass_parses_in_its_own_way(server: LoopbackServer, tmp_path: Path) -> None:
    server.route("/catalog.json", a("catalog"))
    (tmp_path / "catalog.json").write_text(json.dumps(a("catalog")))
    for href in (f"{server.url}/catalog.json", str(tmp_path / "catalog.json")):
        assert pystac.Catalog.from_file(href, stac_io=UpperIO()).id == "PARSED"
        assert UpperIO().read_json(href)["id"] == "PARSED"

    class Unique(DuplicateKeyReportingMixin, GitLabStacIO):
        pass

    server.route("/twice.json", b'{"id": "a", "id": "b"}')
    with pytest.raises(pystac.DuplicateObjectKeyError):
        Unique().read_json(f"{server.url}/twice.json")
