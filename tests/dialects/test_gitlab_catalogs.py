"""Static catalogs in private GitLab repositories are walked by their web addresses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pystac
import pytest

from stac_gitlab import (
    AuthenticationError,
    GitLabStacIO,
    NotFoundError,
    PermissionDeniedError,
    RetryPolicy,
)
from stac_gitlab.testing import GitLabServer, LoopbackServer, Project, User

TOKEN = "glpat-catalog-0001"
SMALL = "glpat-small-00001"
GUEST = "glpat-guest-00001"
JOB = "job-token-of-ci-0001"

STAC = {"stac_version": "1.0.0"}
ITEM: dict[str, Any] = {
    **STAC,
    "type": "Feature",
    "geometry": None,
    "properties": {"datetime": "2024-01-01T00:00:00Z"},
}


def link(rel: str, href: str) -> dict[str, str]:
    return {"rel": rel, "href": href, "type": "application/json"}


def files(title: str) -> dict[str, bytes]:
    catalog = {
        **STAC,
        "type": "Catalog",
        "id": "root",
        "description": title,
        "links": [
            link("root", "./catalog.json"),
            link("child", "./fields/collection.json"),
            link("item", "./räume & more/item+1.json"),
        ],
    }
    collection = {
        **STAC,
        "type": "Collection",
        "id": "fields",
        "description": "Fields",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[None, None]]},
        },
        "links": [
            link("root", "../catalog.json"),
            link("parent", "../catalog.json"),
            link("item", "./one/one.json"),
        ],
    }
    one = {
        **ITEM,
        "id": "one",
        "collection": "fields",
        "assets": {"data": {"href": "./one.csv", "roles": ["data"]}},
        "links": [
            link("root", "../../catalog.json"),
            link("parent", "../collection.json"),
            link("collection", "../collection.json"),
        ],
    }
    two = {**ITEM, "id": "two", "assets": {}, "links": [link("root", "../catalog.json")]}
    documents = {
        "catalog.json": catalog,
        "fields/collection.json": collection,
        "fields/one/one.json": one,
        "räume & more/item+1.json": two,
    }
    found = {f"stac/{name}": json.dumps(each).encode() for name, each in documents.items()}
    return {**found, "stac/fields/one/one.csv": b"id\n1\n"}


PROJECT = Project(
    "group/sub/catalog",
    files("of main"),
    branches={"feature/new/stac": files("of the branch"), "v1.0": files("of the tag")},
    lfs=["*one.json"],
    private=True,
    members=["owner"],
    guests=["guest"],
)


@pytest.fixture
def gitlab() -> Iterator[GitLabServer]:
    holders = {
        TOKEN: User("owner"),
        SMALL: User("owner", scopes=frozenset({"read_user"})),
        GUEST: User("guest"),
        JOB: User("owner"),
    }
    with GitLabServer([PROJECT], tokens=holders) as running:
        yield running


@pytest.fixture
def stac_io() -> Iterator[GitLabStacIO]:
    with GitLabStacIO(TOKEN, retry=RetryPolicy(max_attempts=1)) as reader:
        yield reader


def url_of(gitlab: GitLabServer, path: str = "stac/catalog.json", **more: str) -> str:
    return gitlab.web_url(PROJECT.path, path, **more)


def item_ids(catalog: pystac.Catalog) -> list[str]:
    return [item.id for item in catalog.get_items(recursive=True)]


@pytest.mark.parametrize("view", ["raw", "blob"])
def test_a_catalog_is_walked_from_the_address_that_a_browser_shows(
    gitlab: GitLabServer, stac_io: GitLabStacIO, view: str
) -> None:
    root = pystac.Catalog.from_file(url_of(gitlab, view=view), stac_io=stac_io)
    assert root.get_self_href() == url_of(gitlab, view=view)
    assert root.get_root() is root
    assert item_ids(root) == ["two", "one"]
    assert all(r.path.startswith("/api/v4/projects/") for r in gitlab.requests)
    assert len(gitlab.requests) == 4, "each document once"


def test_every_document_is_asked_for_at_the_files_api_with_the_token(
    gitlab: GitLabServer, stac_io: GitLabStacIO
) -> None:
    root = pystac.Catalog.from_file(url_of(gitlab), stac_io=stac_io)
    next(root.get_items())
    base = "/api/v4/projects/group%2Fsub%2Fcatalog/repository/files"
    assert [r.target for r in gitlab.requests] == [
        f"{base}/stac%2Fcatalog.json/raw?ref=main&lfs=true",
        f"{base}/stac%2Fr%C3%A4ume%20%26%20more%2Fitem%2B1.json/raw?ref=main&lfs=true",
    ]
    assert {r.headers["PRIVATE-TOKEN"] for r in gitlab.requests} == {TOKEN}
    assert not any("X-Gitlab-Token" in r.headers for r in gitlab.requests)


def test_a_document_in_git_lfs_is_its_content(gitlab: GitLabServer, stac_io: GitLabStacIO) -> None:
    item = pystac.Item.from_file(url_of(gitlab, "stac/fields/one/one.json"), stac_io=stac_io)
    assert item.id == "one"


@pytest.mark.parametrize(
    ("ref", "title"),
    [("main", "of main"), ("v1.0", "of the tag"), ("feature/new/stac", "of the branch")],
)
def test_a_ref_may_hold_slashes_and_is_kept_by_relative_links(
    gitlab: GitLabServer, stac_io: GitLabStacIO, ref: str, title: str
) -> None:
    root = pystac.Catalog.from_file(url_of(gitlab, ref=ref), stac_io=stac_io)
    assert root.description == title
    assert item_ids(root) == ["two", "one"]
    served = [r for r in gitlab.requests if r.status == 200]
    assert {r.query["ref"] for r in served} == {ref}


def test_once_a_ref_is_known_it_is_not_guessed_again(
    gitlab: GitLabServer, stac_io: GitLabStacIO
) -> None:
    root = pystac.Catalog.from_file(url_of(gitlab, ref="feature/new/stac"), stac_io=stac_io)
    gitlab.clear_requests()
    item_ids(root)
    assert [r.status for r in gitlab.requests] == [200, 200, 200]


def test_relations_and_hrefs_stay_web_addresses(
    gitlab: GitLabServer, stac_io: GitLabStacIO
) -> None:
    item = pystac.Item.from_file(url_of(gitlab, "stac/fields/one/one.json"), stac_io=stac_io)
    assert item.assets["data"].get_absolute_href() == url_of(gitlab, "stac/fields/one/one.csv")
    parent, root = item.get_parent(), item.get_root()
    assert parent is not None
    assert root is not None
    assert (parent.id, root.id) == ("fields", "root")
    assert parent.get_self_href() == url_of(gitlab, "stac/fields/collection.json")


def test_a_private_catalog_saves_to_a_local_one(
    gitlab: GitLabServer, stac_io: GitLabStacIO, tmp_path: Path
) -> None:
    root = pystac.Catalog.from_file(url_of(gitlab), stac_io=stac_io)
    root.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    local = pystac.Catalog.from_file(str(tmp_path / "catalog.json"))
    assert item_ids(local) == ["two", "one"]


@pytest.mark.parametrize(
    ("project", "path", "ref"),
    [
        ("group/sub/none", "stac/catalog.json", "main"),
        (PROJECT.path, "stac/none.json", "main"),
        (PROJECT.path, "stac/catalog.json", "no-such-ref"),
    ],
    ids=["project", "file", "ref"],
)
def test_what_is_missing_is_not_found_or_not_for_this_token(
    gitlab: GitLabServer, stac_io: GitLabStacIO, project: str, path: str, ref: str
) -> None:
    url = gitlab.web_url(project, path, ref=ref)
    with pytest.raises(NotFoundError, match="what does not exist and for what this token may not"):
        pystac.Catalog.from_file(url, stac_io=stac_io)


def test_a_missing_file_behind_a_link_is_the_cause(
    gitlab: GitLabServer, stac_io: GitLabStacIO
) -> None:
    root = pystac.Catalog.from_file(url_of(gitlab), stac_io=stac_io)
    root.add_link(pystac.Link("child", "./none/catalog.json"))
    stac_io.on_bad_item = "raise"
    with pytest.raises(pystac.STACError) as caught:
        root.get_child("none")
    assert isinstance(caught.value.__cause__, NotFoundError)


@pytest.mark.parametrize("token", [SMALL, GUEST])
def test_a_token_without_the_scope_or_role_is_told_what_it_lacks(
    gitlab: GitLabServer, token: str
) -> None:
    with (
        GitLabStacIO(token) as reader,
        pytest.raises(PermissionDeniedError, match="lacks a scope or a role") as caught,
    ):
        pystac.Catalog.from_file(url_of(gitlab), stac_io=reader)
    assert caught.value.response.status_code == 403
    assert token not in str(caught.value)


def test_a_token_that_gitlab_does_not_know_is_an_authentication_error(
    gitlab: GitLabServer,
) -> None:
    with (
        GitLabStacIO("glpat-wrong-00001") as reader,
        pytest.raises(AuthenticationError, match="does not know this token"),
    ):
        pystac.Catalog.from_file(url_of(gitlab), stac_io=reader)


def test_a_ci_job_reads_with_its_own_header(
    gitlab: GitLabServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_JOB_TOKEN", JOB)
    monkeypatch.setenv("CI_SERVER_URL", gitlab.url)
    with GitLabStacIO() as reader:
        assert item_ids(pystac.Catalog.from_file(url_of(gitlab), stac_io=reader)) == ["two", "one"]
    assert {r.headers.get("JOB-TOKEN") for r in gitlab.requests} == {JOB}


def test_the_token_does_not_follow_a_link_to_another_server(
    gitlab: GitLabServer, stac_io: GitLabStacIO, other_server: LoopbackServer
) -> None:
    two = {**ITEM, "id": "elsewhere", "assets": {}, "links": []}
    other_server.route("/item.json", two)
    root = pystac.Catalog.from_file(url_of(gitlab), stac_io=stac_io)
    root.add_link(pystac.Link("item", f"{other_server.url}/item.json"))
    assert "elsewhere" in item_ids(root)
    (request,) = other_server.requests
    assert TOKEN not in str(dict(request.headers))
