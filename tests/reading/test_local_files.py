"""What comes over the network never makes us open a file on this machine, whatever it calls it."""

from __future__ import annotations

import copy
import json
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pystac
import pytest
from pystac.item_collection import ItemCollection
from pystac.layout import CustomLayoutStrategy, HrefLayoutStrategy
from pystac.validation import RegisteredValidator
from pystac.validation.stac_validator import GetSchemaError
from stac_documents import KINDS, a

from stac_gitlab import (
    STACAPI,
    DownloadError,
    GitLabStacIO,
    InvalidResponseError,
    RetryPolicy,
    STACDownloader,
    STACGitLabError,
    UnreadableItemWarning,
    UnsafePathError,
    materialize,
)
from stac_gitlab.reading.listing import list_collections, list_items
from stac_gitlab.reading.untrusted_links import REMOTE_FILE, secure_schema
from stac_gitlab.search import GitLabStacApiIO
from stac_gitlab.testing import Answer, LoopbackServer

NO_RETRIES = RetryPolicy(max_attempts=1)
REFUSALS = (
    STACGitLabError,
    pystac.STACError,
    pystac.errors.STACValidationError,
    GetSchemaError,
)
POSIX = pytest.mark.skipif(os.name == "nt", reason="about POSIX paths")

# An audit hook sees every attempt to open a file, also one that fails, and cannot be taken away
# again: it is told where to look.
_watched: list[str] = []
_opened: list[str] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watched and any(name in str(arguments[0]) for name in _watched):
        _opened.append(str(arguments[0]))


sys.addaudithook(_note)


def pickled(item: pystac.Item) -> pystac.Item:
    return pickle.loads(pickle.dumps(item))  # type: ignore[no-any-return]


FOLLOWED = ("root", "parent", "child", "item", "collection", "items", "data", "next", "self")
OTHERS = ("derived_from", "search", "whatever")


SPELLINGS: dict[str, Callable[[str], str]] = {
    "file:// and a path": lambda path: f"file://{path}",
    "FILE:// and a path": lambda path: f"FILE://{path}",
    "file: and a path": lambda path: f"file:{path}",
    "file: and a relative path": lambda path: f"file:{os.path.relpath(path)}",
    "file:// and this machine": lambda path: f"file://localhost{path}",
    "file:// and four slashes": lambda path: f"file:////{path}",
    "file:// in quotes": lambda path: f"file://{path.replace('/', '%2F')}",
    "a space before file://": lambda path: f" file://{path}",
    "a tab inside file://": lambda path: f"fi\tle://{path}",
    "an absolute path": lambda path: path,
    "a space and a path": lambda path: f" {path}",
    "three slashes and a path": lambda path: f"//{path}",
    "backslashes": lambda path: path.replace("/", "\\"),
    "a relative path": os.path.relpath,
    "a relative path with a dot": lambda path: f"./{os.path.relpath(path)}",
    "the way up and down": lambda path: "../" * 40 + path.lstrip("/"),
    "a Windows drive": lambda path: f"C:{path}".replace("/", "\\"),
    "a Windows drive with slashes": lambda path: f"c:{path}",
    "backslashes and a bracket": lambda path: f"\\\\\\\\[{path}",
    "a UNC path": lambda path: rf"\\localhost\share{path}".replace("/", "\\"),
    "a UNC path with slashes": lambda path: f"//localhost{path}",
    "a GDAL file system": lambda path: f"/vsizip/{path}",
    "a scheme with one slash": lambda path: f"s3:{path}",
    "a Windows drive with a tab": lambda path: f"c\t:{path}",
    "a Windows drive after a space": lambda path: f" c:{path}",
    "a line break after the scheme": lambda path: f"s3:\n{path}",
}


@pytest.fixture(params=SPELLINGS.values(), ids=SPELLINGS.keys())
def spell(request: pytest.FixtureRequest) -> Callable[[str], str]:
    made: Callable[[str], str] = request.param
    return made


@pytest.fixture
def forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of documents that would do, were they asked for, below the working folder."""
    folder = tmp_path / "forbidden"
    folder.mkdir()
    for kind in KINDS:
        (folder / f"{kind}.json").write_text(json.dumps(a(kind, id=f"stolen-{kind}")))
    (folder / "secret.csv").write_bytes(b"password")
    (folder / "schema.json").write_text('{"$id": "x", "type": "object"}')
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    _opened.clear()
    _watched.append("forbidden")
    try:
        yield folder
    finally:
        _watched.clear()
    assert _opened == []
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.fixture
def stac_io(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitLabStacIO]:
    with GitLabStacIO("glpat-local-files-1", base_url=server.url, retry=NO_RETRIES) as reader:
        pystac.StacIO.set_default(reader)
        # Schemas that were read stay in memory, and one that leads nowhere spoils the others.
        monkeypatch.setattr(RegisteredValidator, "_validator", None)
        yield reader


def follow_everything(found: pystac.STACObject, folder: Path) -> None:
    """Do all that makes pystac open something; only errors of ours or pystac's may come of it."""
    steps: list[Callable[[], Any]] = [
        lambda link=link: link.resolve_stac_object(root=found.get_root()) for link in found.links
    ]
    steps += [
        found.get_root,
        found.get_parent,
        found.full_copy,
        lambda: list(found.get_stac_objects("derived_from")),
        lambda: found.save_object(include_self_link=True),
    ]
    if isinstance(found, pystac.Item):
        steps += [found.get_collection, found.get_derived_from, found.make_asset_hrefs_absolute]
    if isinstance(found, pystac.Catalog):
        steps += [
            lambda: list(found.get_children()),
            lambda: list(found.get_items(recursive=True)),
            lambda: list(found.get_items("lakes")),
            lambda: [list(entry[2]) for entry in found.walk()],
            lambda: found.get_child("all"),
            found.describe,
            found.fully_resolve,
            lambda: found.save(pystac.CatalogType.ABSOLUTE_PUBLISHED),
            lambda: materialize(found, max_items=3),
            lambda: found.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED),
        ]
    for step in steps:
        with suppress(*REFUSALS):
            step()


# -- links ----------------------------------------------------------------------------------


@POSIX
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_no_link_of_a_remote_document_leads_to_a_file(
    kind: str,
    spell: Callable[[str], str],
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    forbidden: Path,
    tmp_path: Path,
) -> None:
    for rel in (*FOLLOWED, *OTHERS):
        target = {"item": "item", "derived_from": "item", "child": "catalog"}.get(rel, "collection")
        link = {"rel": rel, "href": spell(str(forbidden / f"{target}.json"))}
        server.route("/stac.json", a(kind, links=[link]))
        with suppress(STACGitLabError):
            follow_everything(pystac.read_file(f"{server.url}/stac.json"), tmp_path / "out")


@POSIX
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_link_of_what_an_api_lists_leads_to_a_file(
    spell: Callable[[str], str],
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    forbidden: Path,
    tmp_path: Path,
) -> None:
    rels = ("self", "collection", "root", "parent", "derived_from", "items", "child")
    for rel in rels:
        name = "item" if rel in ("self", "derived_from") else "collection"
        bad = {"rel": rel, "href": spell(str(forbidden / f"{name}.json"))}
        item = a("item", links=[bad])
        item["assets"] = {"data": {"href": "secret.csv", "roles": ["data"]}}
        collection = a("collection", links=[bad, {"rel": "items", "href": f"{server.url}/items"}])
        server.route("/", a("catalog", links=[{"rel": "data", "href": f"{server.url}/all"}]))
        server.route("/all", {"collections": [collection], "links": []})
        server.route("/items", {"type": "FeatureCollection", "features": [item], "links": []})
        root = pystac.Catalog.from_file(f"{server.url}/")
        follow_everything(root, tmp_path / "out")
        listings = (root.get_children, lambda: ItemCollection.from_file(f"{server.url}/items"))
        for listing in listings:
            with suppress(STACGitLabError):
                for found in listing():
                    follow_everything(found, tmp_path / "out")
        with suppress(STACGitLabError, pystac.STACError):
            for listed in STACAPI(f"{server.url}/", stac_io=stac_io).items("all"):
                follow_everything(listed, tmp_path / "out")
                with suppress(DownloadError):
                    STACDownloader(stac_io=stac_io).download_assets(listed, tmp_path / "got")
    assert not list((tmp_path / "got").rglob("secret*"))


@POSIX
@pytest.mark.parametrize("field", ["features", "collections"])
def test_the_next_page_is_never_a_file(
    field: str,
    spell: Callable[[str], str],
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    forbidden: Path,
) -> None:
    following = {"rel": "next", "href": spell(str(forbidden / "item.json"))}
    page = {"type": "FeatureCollection", "features": [], "collections": [], "links": [following]}
    server.route("/list", page)
    listing = (
        partial(list_items, stac_io) if field == "features" else partial(list_collections, stac_io)
    )
    with suppress(STACGitLabError):
        list(listing(f"{server.url}/list"))
    assert server.requests


def test_following_a_link_to_a_file_is_an_error_that_says_why(
    server: LoopbackServer, stac_io: GitLabStacIO, forbidden: Path
) -> None:
    href = f"file://{forbidden}/catalog.json"
    server.route("/stac.json", a("catalog", links=[{"rel": "child", "href": href}]))
    catalog = pystac.Catalog.from_file(f"{server.url}/stac.json")
    with pytest.warns(UnreadableItemWarning) as warned:
        assert list(catalog.get_children()) == []
    [message] = [str(each.message) for each in warned]
    assert "only documents on this machine choose files on this machine" in message
    assert href in message


def test_a_path_from_the_root_of_the_server_is_a_path_there(
    server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    links = [{"rel": "child", "href": "/deep/child.json"}, {"rel": "item", "href": "./item.json"}]
    server.route("/a/stac.json", a("catalog", links=links))
    server.route("/deep/child.json", a("catalog", id="child"))
    server.route("/a/item.json", a("item"))
    catalog = pystac.Catalog.from_file(f"{server.url}/a/stac.json")
    assert [child.id for child in catalog.get_children()] == ["child"]
    assert [item.id for item in catalog.get_items()] == ["lakes"]
    assert [request.path for request in server.requests] == [
        *("/a/stac.json", "/deep/child.json", "/a/item.json"),
    ]
    again = pystac.Catalog.from_file(f"{server.url}/a/stac.json")
    # pystac takes a catalog with relative links for a self-contained one.
    assert [link.href for link in again.get_item_links()] == ["./item.json"]
    assert [link.absolute_href for link in again.get_child_links()] == [
        f"{server.url}/deep/child.json"
    ]


@POSIX
@pytest.mark.parametrize("rel", ["collection", "root"])
def test_an_old_item_is_not_completed_from_a_file(
    rel: str,
    spell: Callable[[str], str],
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    forbidden: Path,
) -> None:
    link = {"rel": rel, "href": spell(str(forbidden / "collection.json"))}
    for version in ("0.8.1", "0.9.0"):
        old = a("item", stac_version=version, stac_extensions=["commons"], links=[link])
        server.route("/old.json", old)
        with suppress(STACGitLabError, pystac.STACError):
            pystac.read_file(f"{server.url}/old.json")
    assert server.requests


# -- schemas --------------------------------------------------------------------------------


@POSIX
def test_no_extension_of_a_remote_document_is_a_schema_on_this_machine(
    spell: Callable[[str], str], server: LoopbackServer, stac_io: GitLabStacIO, forbidden: Path
) -> None:
    named = spell(str(forbidden / "schema.json"))
    server.route("/item.json", a("item", stac_extensions=[named]))
    item = a("item", stac_extensions=[named])
    server.route("/items", {"type": "FeatureCollection", "features": [item], "links": []})
    listed = ItemCollection.from_file(f"{server.url}/items").items
    for found in (pystac.Item.from_file(f"{server.url}/item.json"), *listed):
        with suppress(*REFUSALS):
            found.validate()
        found.to_dict()


NAMES_WITHOUT_A_PATH = (
    "eo",
    "item-assets",
    "label",
    "forbidden",
    "file:forbidden",
    "file:",
    "C:x",
    "forb\tidden",
)


@POSIX
@pytest.mark.parametrize("version", ["0.8.1", "0.9.0", "1.0.0", "1.1.0"])
@pytest.mark.parametrize("names", [[name] for name in NAMES_WITHOUT_A_PATH] + [["eo", "eo"]])
def test_a_bare_name_of_an_extension_is_no_file_in_the_working_folder(
    names: list[str],
    version: str,
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    forbidden: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(forbidden)
    item = a("item", stac_version=version, stac_extensions=names)
    collection = a("collection", stac_version=version, stac_extensions=names, type="Collection")
    collection["links"] = [{"rel": "items", "href": f"{server.url}/items"}]
    server.route("/item.json", item)
    server.route("/collection.json", collection)
    server.route("/items", {"type": "FeatureCollection", "features": [item], "links": []})
    server.route("/", a("catalog", links=[{"rel": "data", "href": f"{server.url}/all"}]))
    server.route("/all", {"collections": [collection], "links": []})
    made: list[pystac.STACObject] = []
    with suppress(STACGitLabError):
        made.append(pystac.Item.from_file(f"{server.url}/item.json"))
        made += ItemCollection.from_file(f"{server.url}/items").items
        # As pystac-client makes them.
        made += [pystac.Item.from_dict(one) for one in list_items(stac_io, f"{server.url}/items")]
    with suppress(STACGitLabError):
        found = pystac.Collection.from_file(f"{server.url}/collection.json")
        made += [found, *found.get_items()]
        made += pystac.Catalog.from_file(f"{server.url}/").get_children()
    assert made
    for one in made:
        for place in (None, str(forbidden / "moved.json")):
            if place is not None:
                one.set_self_href(place)
            with suppress(*REFUSALS):
                one.validate()


def test_a_name_that_pystac_knows_is_migrated_as_ever(
    server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    old = a("item", stac_version="0.9.0", stac_extensions=["eo", "checksum", "mine"])
    server.route("/item.json", old)
    item = pystac.Item.from_file(f"{server.url}/item.json")
    assert [name for name in item.stac_extensions if "/eo/v" in name]
    assert "checksum" not in item.stac_extensions
    assert "mine" in item.to_dict()["stac_extensions"]


@POSIX
@pytest.mark.parametrize("again", [lambda item: item, copy.deepcopy, pystac.Item.clone, pickled])
def test_a_name_of_an_extension_stays_as_it_is_and_is_resolved_where_it_is_read(
    again: Callable[[pystac.Item], pystac.Item],
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    forbidden: Path,
    tmp_path: Path,
) -> None:
    names = [f"{forbidden}/schema.json", "./own.json", "bare"]
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "own", "not": {}}
    server.route("/item.json", a("item", stac_extensions=names))
    server.route("/own.json", schema)
    item = again(pystac.Item.from_file(f"{server.url}/item.json"))
    assert item.to_dict()["stac_extensions"] == names
    item.stac_extensions = item.stac_extensions[1:2]
    with pytest.raises(pystac.errors.STACValidationError, match=f"{server.url}/own.json"):
        item.validate()
    item = again(pystac.Item.from_file(f"{server.url}/item.json"))
    item.save_object(dest_href=str(tmp_path / "saved.json"), stac_io=stac_io)
    saved = json.loads((tmp_path / "saved.json").read_text())
    urls = [f"{server.url}{forbidden}/schema.json", f"{server.url}/own.json", f"{server.url}/bare"]
    assert saved["stac_extensions"] == urls


@pytest.mark.parametrize("name", ["$ref", "$id"])
def test_a_remote_schema_does_not_refer_to_a_file(
    name: str, server: LoopbackServer, stac_io: GitLabStacIO, forbidden: Path
) -> None:
    inner: dict[str, Any] = {name: f"file://{forbidden}/schema.json"}
    if name == "$id":
        inner["allOf"] = [{"$ref": "other.json"}]
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "allOf": [inner]}
    server.route("/schema.json", {**schema, "$id": f"{server.url}/schema.json"})
    server.route("/item.json", a("item", stac_extensions=[f"{server.url}/schema.json"]))
    item = pystac.Item.from_file(f"{server.url}/item.json")
    with pytest.raises(
        Exception, match=r"refused|other\.json"
    ):  # the validator's own, whatever it is
        item.validate()
    assert [request.path for request in server.requests] == ["/item.json", "/schema.json"]


@POSIX
@pytest.mark.parametrize(
    "base", ["urn:x", " urn:x", "u\nrn:x", "file:///x", "/vsizip/x", "httpx:y", "s3://b/x", "x:"]
)
@pytest.mark.parametrize("keyword", ["$id", "id"])
@pytest.mark.parametrize(
    "reference", ["{folder}/schema.json", "forbidden", "/{folder}/x", "./forbidden"]
)
def test_what_a_remote_schema_calls_itself_makes_no_reference_a_file(
    reference: str,
    keyword: str,
    base: str,
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    forbidden: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # urllib joins nothing to a base of a scheme that it does not know.
    monkeypatch.chdir(forbidden)
    reference = reference.format(folder=forbidden)
    for dialect in ("draft-04", "draft-07"):
        inner = {"properties": {"id": {"$ref": reference}}}
        schema = {
            "$schema": f"http://json-schema.org/{dialect}/schema#",
            "$id": f"{server.url}/schema.json",
            "id": f"{server.url}/schema.json",
            "allOf": [{keyword: base, **inner}, {keyword: base, "allOf": [inner]}],
        }
        server.route("/schema.json", schema)
        server.route("/item.json", a("item", stac_extensions=[f"{server.url}/schema.json"]))
        monkeypatch.setattr(RegisteredValidator, "_validator", None)
        item = pystac.Item.from_file(f"{server.url}/item.json")
        with suppress(Exception):  # the validator's own, whatever it is
            item.validate()
        server.route("/schema.json", {**schema, keyword: base})
        monkeypatch.setattr(RegisteredValidator, "_validator", None)
        with suppress(Exception):
            item.validate()


@POSIX
@pytest.mark.parametrize("reader", [GitLabStacIO, GitLabStacApiIO])
@pytest.mark.parametrize("reference", ["file://{}/schema.json", "{}/schema.json"])
def test_schemas_are_confined_whichever_of_our_readers_is_the_default(
    reference: str,
    reader: type[GitLabStacIO],
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    forbidden: Path,
) -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": f"{server.url}/schema.json",
        "allOf": [{"$id": "urn:x", "allOf": [{"$ref": reference.format(forbidden)}]}],
    }
    server.route("/schema.json", schema)
    server.route("/item.json", a("item", stac_extensions=[f"{server.url}/schema.json"]))
    with reader() as default:
        pystac.StacIO.set_default(default)
        item = pystac.Item.from_file(f"{server.url}/item.json")
        with pytest.raises(Exception, match="refused"):  # the validator's own, whatever it is
            item.validate()


@POSIX
def test_a_path_that_a_part_of_a_schema_calls_itself_is_not_looked_up_by_a_fragment(
    server: LoopbackServer, stac_io: GitLabStacIO, forbidden: Path
) -> None:
    hidden = {"$id": f"{forbidden}/schema.json", "allOf": [{"$ref": "#/definitions/z"}]}
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": f"{server.url}/schema.json",
        "allOf": [{"$ref": "#/unknown"}],
        # What stands under a word that means nothing is not known by its name beforehand.
        "unknown": {"allOf": [{"$id": "urn:x", "allOf": [hidden]}]},
    }
    server.route("/schema.json", schema)
    server.route("/item.json", a("item", stac_extensions=[f"{server.url}/schema.json"]))
    item = pystac.Item.from_file(f"{server.url}/item.json")
    with suppress(Exception):  # the validator's own, whatever it is
        item.validate()


def test_a_schema_may_be_bundled_with_others_under_any_name() -> None:
    text = json.dumps(
        {
            "$id": "https://schemas.example.org/x.json",
            "$defs": {"a": {"$id": "urn:a", "$anchor": "b", "type": "object"}},
            "allOf": [{"$ref": "urn:a"}, {"$ref": "#/$defs/a"}, {"$ref": "https://h/other.json"}],
        }
    )
    assert secure_schema(text, url="u") == text


def test_a_schema_that_is_nested_too_deeply_to_look_into_is_refused() -> None:
    with pytest.raises(InvalidResponseError, match="nested too deeply"):
        secure_schema('{"a":' * 100_000, url="u")


def test_a_schema_without_files_and_other_texts_stay_as_they_are() -> None:
    for text in (
        '{"$ref": "#/definitions/a",  "$id": "https://schemas.example.org/x.json"}',
        '{"properties": {"id": {"type": "string"}, "$ref": {"type": "string"}}}',
        "{not json",
        "[" * 10_000,
        "# A readme about file:///etc/passwd",
    ):
        assert secure_schema(text, url="u") == text


# -- assets ---------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize(
    "stands",
    ["{url}/item.json", None, "s3://bucket/item.json", "urn:item", "file:///x/item.json", "/x/i"],
)
def test_no_asset_of_a_remote_item_is_a_file(
    stands: str | None,
    spell: Callable[[str], str],
    server: LoopbackServer,
    stac_io: GitLabStacIO,
    forbidden: Path,
    tmp_path: Path,
) -> None:
    href = spell(str(forbidden / "secret.csv"))
    item = a("item")
    if stands is not None:
        item["links"] = [{"rel": "self", "href": stands.format(url=server.url)}]
    item["assets"] = {
        "main": {"href": href, "roles": ["data"]},
        "other": {
            "href": f"{server.url}/nothing",
            "roles": ["data"],
            "alternate": {"near": {"href": href}},
        },
    }
    server.route("/items", {"type": "FeatureCollection", "features": [item], "links": []})
    downloader = STACDownloader(stac_io=stac_io)
    for found in ItemCollection.from_file(f"{server.url}/items").items:
        with pytest.raises(DownloadError) as caught:
            downloader.download_assets(found, tmp_path / "got", alternates=["near"])
        assert set(caught.value.errors) == {"main", "other"}
        with pytest.raises(STACGitLabError):
            downloader.open(found.assets["main"], item=found)
        with pytest.raises(STACGitLabError):
            downloader.download_item(found, tmp_path / "whole", alternates=["near"])
    assert not [path for path in tmp_path.rglob("*") if path.name in ("main", "other")]


# -- what is written ------------------------------------------------------------------------


ODD_IDS = [
    *("../../evil", "a/../../../evil", "/evil", "..\\..\\evil", "C:\\evil", "..", "a\0b"),
    *(".", "./", "a//b", "", "a?b", "a#b", "a%2Fb", "a", "a/b", "collection", "x" * 300),
]


def test_any_ids_are_saved_inside_the_folder_and_come_back(
    server: LoopbackServer, stac_io: GitLabStacIO, tmp_path: Path
) -> None:
    items = [a("item", id=name) for name in ODD_IDS]
    server.route("/items", {"type": "FeatureCollection", "features": items, "links": []})
    own = [{"rel": "items", "href": f"{server.url}/items"}]
    server.route("/stac.json", a("collection", id="..", links=own))
    out = tmp_path / "deep" / "out"
    collection = materialize(pystac.Collection.from_file(f"{server.url}/stac.json"))
    collection.normalize_and_save(str(out), pystac.CatalogType.SELF_CONTAINED)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and out not in p.parents]
    saved = pystac.Collection.from_file(str(out / "collection.json"))
    assert sorted(item.id for item in saved.get_items()) == sorted(ODD_IDS)


def put_items(path: str) -> HrefLayoutStrategy:
    return CustomLayoutStrategy(item_func=lambda _, parent: f"{parent}/{path}")


@pytest.mark.parametrize(
    ("ids", "layout"),
    [
        (["a", "b"], put_items("same.json")),
        (["a"], put_items("../x.json")),
        (["a"], put_items("x?.json")),
        (["a"], put_items("collection.json")),
        (["collection.json"], None),
    ],
)
def test_what_cannot_be_saved_side_by_side_is_an_error_before_anything_is_written(
    server: LoopbackServer, stac_io: GitLabStacIO, tmp_path: Path, ids: list[str], layout: Any
) -> None:
    items = [a("item", id=name) for name in ids]
    server.route("/items", {"type": "FeatureCollection", "features": items, "links": []})
    own = [{"rel": "items", "href": f"{server.url}/items"}]
    server.route("/stac.json", a("collection", links=own))
    collection = materialize(pystac.Collection.from_file(f"{server.url}/stac.json"))
    with pytest.raises(UnsafePathError, match="Nothing was saved"):
        collection.normalize_and_save(
            str(tmp_path / "out"), pystac.CatalogType.SELF_CONTAINED, strategy=layout
        )
    assert not (tmp_path / "out").exists()


def test_a_saved_catalog_stays_in_its_folder_and_its_links_stay_harmless(
    server: LoopbackServer, stac_io: GitLabStacIO, forbidden: Path, tmp_path: Path
) -> None:
    href = f"file://{forbidden}/item.json"
    links = [{"rel": "self", "href": href}, {"rel": "derived_from", "href": href}]
    page = {"type": "FeatureCollection", "features": [a("item", links=links)], "links": []}
    server.route("/items", page)
    own = [{"rel": "items", "href": f"{server.url}/items"}]
    server.route("/stac.json", a("collection", links=own))
    collection = pystac.Collection.from_file(f"{server.url}/stac.json")
    item = next(collection.get_items())
    with pytest.raises(NotImplementedError):
        item.save_object()
    out = tmp_path / "out"
    materialize(collection).normalize_and_save(str(out), pystac.CatalogType.SELF_CONTAINED)
    written = {p.relative_to(tmp_path).as_posix() for p in out.rglob("*") if p.is_file()}
    assert written == {"out/collection.json", "out/lakes/lakes.json"}
    again = pystac.Item.from_file(str(out / "lakes" / "lakes.json"))
    with pytest.raises(pystac.STACError) as caught:
        list(again.get_stac_objects("derived_from"))
    assert isinstance(caught.value.__cause__, InvalidResponseError)
    assert again.get_single_link("derived_from").href == f"{REMOTE_FILE}{href}"  # type: ignore[union-attr]


# -- what is on this machine ----------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("how", ["{folder}/{name}", "file://{folder}/{name}", "./{name}"])
def test_a_local_catalog_may_link_locally(how: str, tmp_path: Path) -> None:
    def href(name: str) -> str:
        return how.format(folder=tmp_path, name=name)

    (tmp_path / "data.csv").write_bytes(b"1")
    item = a("item", assets={"data": {"href": str(tmp_path / "data.csv"), "roles": ["data"]}})
    (tmp_path / "item.json").write_text(json.dumps(item))
    (tmp_path / "child.json").write_text(json.dumps(a("catalog", id="child")))
    links = [
        {"rel": "item", "href": href("item.json")},
        {"rel": "child", "href": href("child.json")},
    ]
    (tmp_path / "catalog.json").write_text(json.dumps(a("catalog", links=links)))
    with GitLabStacIO() as stac_io:
        pystac.StacIO.set_default(stac_io)
        catalog = pystac.Catalog.from_file(str(tmp_path / "catalog.json"))
        assert [child.id for child in catalog.get_children()] == ["child"]
        found = next(catalog.get_items())
        STACDownloader(stac_io=stac_io).download_assets(found, tmp_path / "got")
    assert (tmp_path / "got" / "data").read_bytes() == b"1"


def test_a_local_catalog_may_link_to_a_server_which_may_not_link_back(
    server: LoopbackServer, stac_io: GitLabStacIO, forbidden: Path, tmp_path: Path
) -> None:
    bad = {"rel": "item", "href": f"file://{forbidden}/item.json"}
    server.route("/child.json", a("catalog", id="child", links=[bad]))
    links = [{"rel": "child", "href": f"{server.url}/child.json"}]
    (tmp_path / "catalog.json").write_text(json.dumps(a("catalog", links=links)))
    catalog = pystac.Catalog.from_file(str(tmp_path / "catalog.json"))
    with pytest.warns(UnreadableItemWarning, match="points at a file"):
        assert list(catalog.get_items(recursive=True)) == []
    assert [request.path for request in server.requests] == ["/child.json"]


def test_a_redirect_does_not_lead_to_a_file(
    server: LoopbackServer, stac_io: GitLabStacIO, forbidden: Path
) -> None:
    for href in (f"file://{forbidden}/item.json", f"FILE:{forbidden}/item.json"):
        server.route("/old", lambda _, href=href: Answer(302, (("location", href),)))
        with pytest.raises(STACGitLabError):
            pystac.read_file(f"{server.url}/old")
