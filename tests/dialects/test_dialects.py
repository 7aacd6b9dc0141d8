"""What only GitLab and SharingHub do, alone and against servers that answer as they do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import requests
from stac_documents import a

from stac_gitlab import GitLabStacIO
from stac_gitlab.auth import Credentials, Token
from stac_gitlab.dialects.base import Dialect
from stac_gitlab.dialects.gitlab import GitLab
from stac_gitlab.dialects.sharinghub import SharingHub, api_url
from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    HTTPStatusError,
    NotFoundError,
    PermissionDeniedError,
    ServerError,
)
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import strip_token_parameters
from stac_gitlab.settings import RetryPolicy
from stac_gitlab.testing import (
    AccessLevel,
    Fault,
    GitLabServer,
    LoopbackServer,
    Project,
    SharingHubServer,
    User,
)
from tests.conftest import Clock

HUB = "https://hub.example.org"
LAB = "https://gitlab.example.org"


@pytest.fixture
def policy(clock: Clock) -> RetryPolicy:
    return RetryPolicy(clock=clock.time, sleep=clock.sleep)


# -- who is in charge ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "dialect"),
    [
        (f"{LAB}/api/v4/projects/1", GitLab),
        (f"{LAB}/group/project/-/raw/main/catalog.json", GitLab),
        (f"{LAB}/group/project/-/archive/main/x.zip", GitLab),
        (f"{HUB}/api/stac", SharingHub),
        (f"{HUB}/api/stac/collections/dataset/items?limit=1", SharingHub),
        (f"{HUB}/prefix/api/stac/", SharingHub),
        (f"{HUB}/api/download/a/b/repository/c", SharingHub),
        (f"{HUB}/api/proxy/projects/1", SharingHub),
        (f"{HUB}/api/stac/search", SharingHub),
        (f"{HUB}/api/stacks", Dialect),
        (f"{HUB}/api/stac/v1", Dialect),
        (f"{HUB}/api/stac/v1/collections/dataset/items", Dialect),
        (f"{HUB}/stac/v1", Dialect),
        (f"{HUB}/?next=/api/v4/", Dialect),
        (f"{HUB}/catalog.json#/-/raw/", Dialect),
    ],
)
def test_the_path_alone_decides_who_is_in_charge(url: str, dialect: type[Dialect]) -> None:
    session = GitLabSession(Credentials())
    assert type(session.dialect_of(url)) is dialect


def test_a_stac_api_is_taken_as_its_specification_describes_it() -> None:
    plain = Dialect()
    document = {"type": "Feature", "collection": "other"}
    plain.correct(document, f"{HUB}/collections/c/items/1")
    assert document == {"type": "Feature", "collection": "other"}
    assert list(plain.request_urls("any")) == ["any"]
    assert plain.short_forms(f"{HUB}/collections/c/items") == ()
    assert plain.lfs_url("any") is None
    assert not plain.advice
    assert plain.asset_url("any#?", key="k", item_id="i", item_url=HUB, properties={}) == "any#?"
    assert (
        plain.item_url(f"{HUB}/collections/c/items/?limit=3", "a/b c?")
        == f"{HUB}/collections/c/items/a%2Fb%20c%3F?limit=3"
    )


# -- GitLab: tokens -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "header"),
    [
        (Token("glpat-0123456789"), ("PRIVATE-TOKEN", "")),
        (Token("an-instance-of-its-own"), ("PRIVATE-TOKEN", "")),
        (Token("glcbt-0123456789"), ("JOB-TOKEN", "")),
        (Token("gldt-0123456789"), ("Deploy-Token", "")),
        (Token("0" * 64), ("Authorization", "Bearer")),
        (Token("0" * 63), ("PRIVATE-TOKEN", "")),
        (Token("eyJh.eyJz.sig"), ("Authorization", "Bearer")),
    ],
)
def test_gitlab_gets_each_kind_of_token_under_its_header(
    token: Token, header: tuple[str, str]
) -> None:
    assert GitLab().token_header(token) == header


@pytest.mark.parametrize("value", ["eyJh.eyJz.sig", "glpat-0123456789"])
def test_the_token_of_the_ci_job_is_known_however_it_was_handed_over(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_JOB_TOKEN", value)
    assert GitLab().token_header(Token(value)) == ("JOB-TOKEN", "")


def test_sharinghub_never_gets_an_authorization_header() -> None:
    for value in ("glpat-0123456789", "0" * 64, "eyJh.eyJz.sig"):
        assert SharingHub().token_header(Token(value)) == ("X-Gitlab-Token", "")


# -- GitLab: files of private repositories ------------------------------------------------------


def api(project: str, path: str, ref: str) -> str:
    return f"{LAB}/api/v4/projects/{project}/repository/files/{path}/raw?ref={ref}&lfs=true"


@pytest.mark.parametrize(
    ("web", "first"),
    [
        (f"{LAB}/g/p/-/raw/main/catalog.json", api("g%2Fp", "catalog.json", "main")),
        (f"{LAB}/g/p/-/blob/main/catalog.json", api("g%2Fp", "catalog.json", "main")),
        (f"{LAB}/g/s/p/-/raw/v1/a/b.json?inline=false", api("g%2Fs%2Fp", "a%2Fb.json", "v1")),
        (f"{LAB}/g/p/-/raw/main/a%20b+c.json#L1", api("g%2Fp", "a%20b%2Bc.json", "main")),
        (f"{LAB}/g/p/-/raw/a%2Fb/c.json", api("g%2Fp", "c.json", "a%2Fb")),
        (f"{LAB}/g/p/-/raw/v1+x/c%25d.json", api("g%2Fp", "c%25d.json", "v1%2Bx")),
        (f"{LAB}/g/p/-/raw/main/-/raw/x", api("g%2Fp", "-%2Fraw%2Fx", "main")),
    ],
)
def test_a_web_url_is_asked_for_at_the_files_api(web: str, first: str) -> None:
    assert next(iter(GitLab().request_urls(web))) == first


def test_what_is_no_file_of_a_repository_is_asked_for_as_it_is() -> None:
    for url in (f"{LAB}/api/v4/projects/1?x=%2F", f"{LAB}/g/p/-/archive/main/x", f"{LAB}/-/x"):
        assert list(GitLab().request_urls(url)) == [url]


def test_every_split_of_ref_and_path_is_tried_shortest_ref_first() -> None:
    urls = list(GitLab().request_urls(f"{LAB}/g/p/-/raw/a/b/c.json"))
    assert urls == [api("g%2Fp", "b%2Fc.json", "a"), api("g%2Fp", "c.json", "a%2Fb")]


def refs_tried(gitlab: GitLab, rest: str, *, found_at: str | None) -> list[str]:
    """Ask for one file after the other until it is found; return the refs tried."""
    call_with_retries = []
    for url in gitlab.request_urls(f"{LAB}/g/p/-/raw/{rest}"):
        call_with_retries.append(unquote(url.partition("ref=")[2].partition("&")[0]))
        if call_with_retries[-1] == found_at:
            break
    return call_with_retries


def test_the_ref_that_fitted_is_tried_first_the_next_time() -> None:
    gitlab = GitLab()
    assert refs_tried(gitlab, "a/b/c.json", found_at="a/b") == ["a", "a/b"]
    assert refs_tried(gitlab, "a/b/d/e.json", found_at="a/b") == ["a/b"]
    assert refs_tried(gitlab, "v1/x.json", found_at="v1") == ["v1"]


def test_a_file_that_is_nowhere_does_not_spoil_the_guess() -> None:
    gitlab = GitLab()
    refs_tried(gitlab, "a/b/c.json", found_at="a/b")
    assert len(refs_tried(gitlab, "a/b/d/gone.json", found_at=None)) == 3
    assert refs_tried(gitlab, "a/b/d/e.json", found_at="a/b") == ["a/b"]
    fresh = GitLab()
    refs_tried(fresh, "a/b/gone.json", found_at=None)
    assert refs_tried(fresh, "a/b/c.json", found_at="a") == ["a"]


@pytest.fixture
def gitlab() -> Iterator[GitLabServer]:
    files: dict[str, Any] = {
        "stac/catalog.json": _json(a("catalog", id="private")),
        "data/big.bin": b"content",
    }
    branch = Project("group/branch", dict(files), ref="feature/x", private=True)
    with GitLabServer([Project("group/lakes", files, private=True), branch]) as server:
        yield server


def _json(document: dict[str, Any]) -> bytes:
    return requests.compat.json.dumps(document).encode()  # type: ignore[no-any-return]


@pytest.mark.parametrize("view", ["raw", "blob"])
def test_a_catalog_of_a_private_repository_is_read_by_its_web_url(
    view: str, gitlab: GitLabServer
) -> None:
    url = gitlab.web_url("group/lakes", "stac/catalog.json", view=view)
    with GitLabStacIO(gitlab.token) as stac_io:
        assert stac_io.read_json(url)["id"] == "private"
    [request] = gitlab.requests
    assert request.headers["PRIVATE-TOKEN"] == gitlab.token
    assert request.query == {"ref": "main", "lfs": "true"}


def test_a_ref_with_a_slash_costs_one_request_more_and_only_once(
    gitlab: GitLabServer, policy: RetryPolicy
) -> None:
    url = gitlab.web_url("group/branch", "stac/catalog.json", ref="feature/x")
    with GitLabStacIO(gitlab.token, retry=policy) as stac_io:
        for _ in range(3):
            assert stac_io.read_json(url)["id"] == "private"
    assert [request.status for request in gitlab.requests] == [404, 200, 200, 200]


def test_a_file_that_is_not_there_is_asked_for_once_where_its_ref_is_known(
    gitlab: GitLabServer, policy: RetryPolicy
) -> None:
    url = gitlab.web_url("group/lakes", "stac/gone.json")
    advice = "Check the project, the ref and the path"
    with (
        GitLabStacIO(gitlab.token, retry=policy) as stac_io,
        pytest.raises(NotFoundError, match=advice) as caught,
    ):
        stac_io.read_json(url)
    assert "ref=main" in caught.value.url
    assert len(gitlab.requests) == 1


@pytest.mark.parametrize("rest", ["main", "main?inline=false"])
def test_a_web_url_that_names_no_file_is_the_callers_mistake(
    rest: str, gitlab: GitLabServer
) -> None:
    with GitLabStacIO(gitlab.token) as stac_io, pytest.raises(ConfigurationError, match="no file"):
        stac_io.read_json(f"{gitlab.url}/group/lakes/-/raw/{rest}")
    assert gitlab.requests == []


def test_gitlabs_refusals_are_explained(gitlab: GitLabServer, policy: RetryPolicy) -> None:
    url = gitlab.raw_url("group/lakes", "data/big.bin")
    with GitLabStacIO("glpat-wrong-00000001", retry=policy) as stac_io:
        with pytest.raises(AuthenticationError, match="wrong, revoked or expired"):
            stac_io.read_text(url)
        gitlab.inject(Fault(status=403, body={"error": "insufficient_scope"}))
        with pytest.raises(PermissionDeniedError, match=r"insufficient_scope.*read_repository"):
            stac_io.read_text(url)


@pytest.mark.parametrize(
    ("url", "lfs"),
    [
        (
            f"{LAB}/api/v4/projects/1/x/raw?ref=main",
            f"{LAB}/api/v4/projects/1/x/raw?ref=main&lfs=true",
        ),
        (f"{LAB}/api/v4/projects/1/x/raw?lfs=false", f"{LAB}/api/v4/projects/1/x/raw?lfs=true"),
        (f"{LAB}/api/v4/projects/1/x/raw?ref=main&lfs=true", None),
        (f"{LAB}/g/p/-/raw/main/x", None),
    ],
)
def test_gitlab_is_asked_for_what_a_pointer_points_to_once(url: str, lfs: str | None) -> None:
    assert GitLab().lfs_url(url) == lfs


def test_relative_links_of_a_web_file_are_relative_to_the_web_url() -> None:
    web, api = f"{LAB}/g/p/-/raw/main/c.json", f"{LAB}/api/v4/projects/g%2Fp/repository/files/c"
    assert GitLab().base_href(web, api) == web
    assert GitLab().base_href(f"{LAB}/api/v4/x", f"{LAB}/api/v4/x/") == f"{LAB}/api/v4/x/"
    assert Dialect().base_href(HUB, f"{HUB}/") == f"{HUB}/"


@pytest.mark.parametrize("status", [400, 404, 410, 500])
def test_only_sharinghub_answers_400_for_a_missing_item(status: int) -> None:
    assert Dialect().is_missing(status) is (status in (404, 410))
    assert SharingHub().is_missing(status) is (status in (400, 404, 410))


def test_only_sharinghub_ignores_the_case_of_ids() -> None:
    assert SharingHub().is_same_id("Group/Lakes", "group/lakes")
    assert not Dialect().is_same_id("Group/Lakes", "group/lakes")


# -- SharingHub: the token in its answers -------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://h/x?gitlab_token=a", "https://h/x"),
        ("https://h/x?gitlab_token=", "https://h/x"),
        ("https://h/x?gitlab_token=a&b=1", "https://h/x?b=1"),
        ("https://h/x?b=1&gitlab_token=a", "https://h/x?b=1"),
        ("https://h/x?b=1&gitlab_token=a&c=2#f", "https://h/x?b=1&c=2#f"),
        ("https://h/x?gitlab_token=a#f", "https://h/x#f"),
        ("https://h/x?gitlab_token=a&gitlab_token=b", "https://h/x"),
        ("https://h/x?gitlab_token=a&gitlab_token=b&c=1&gitlab_token=d", "https://h/x?c=1"),
        ("https://h/x?GitLab_Token=a", "https://h/x"),
        ("https://h/x?gitlab%5Ftoken=a%2Fb", "https://h/x"),
        ("https://h/?u=https%3A%2F%2Fk%3Fgitlab_token%3Da", "https://h/?u=https%3A%2F%2Fk"),
        (
            "https://h/?u=https%3A%2F%2Fk%3Fgitlab_token%3Da%26b%3D1",
            "https://h/?u=https%3A%2F%2Fk%3Fb%3D1",
        ),
        ("![a](https://h/x?gitlab_token=a) b", "![a](https://h/x) b"),
        ('<img src="https://h/x?gitlab_token=a&amp;b=1">', '<img src="https://h/x?b=1">'),
        ('<img src="https://h/x?b=1&amp;gitlab_token=a">', '<img src="https://h/x?b=1">'),
        ("no gitlab_token here", "no gitlab_token here"),
        ("https://h/x?my_gitlab_token_name=a", "https://h/x?my_gitlab_token_name=a"),
        ("", ""),
    ],
)
def test_the_token_parameter_is_removed_and_nothing_else(text: str, clean: str) -> None:
    assert strip_token_parameters(text) == clean
    assert strip_token_parameters(clean) == clean


def test_a_text_made_to_slow_the_search_down_does_not() -> None:
    began = time.process_time()
    for text in ("?gitlab_token=" * 50_000, "&gitlab_token=a" * 50_000, "?gitlab" * 50_000):
        strip_token_parameters(text + "!")
    assert time.process_time() - began < 10


def test_the_address_of_the_api_is_found_with_or_without_its_path() -> None:
    for base in (HUB, f"{HUB}/", f"{HUB}/api/stac", f"{HUB}/api/stac/"):
        assert api_url(base) == f"{HUB}/api/stac"


# -- SharingHub: items and pages ----------------------------------------------------------------


def test_the_slashes_of_an_item_id_stay() -> None:
    url = SharingHub().item_url(f"{HUB}/api/stac/collections/dataset/items", "a/b c/d#e")
    assert url == f"{HUB}/api/stac/collections/dataset/items/a/b%20c/d%23e"


def test_the_collection_asked_for_wins() -> None:
    items = f"{HUB}/api/stac/collections/dataset/items"
    item = {
        "type": "Feature",
        "collection": "ai-model",
        "links": [
            {"rel": "self", "href": f"{HUB}/api/stac/collections/ai-model/items/a/b"},
            {"rel": "collection", "href": f"{HUB}/api/stac/collections/ai-model"},
            {"rel": "derived_from", "href": f"{HUB}/api/stac/collections/ai-model/items/c"},
            {"rel": "parent", "href": f"{HUB}/api/stac/collections/ai-model-2"},
            {"rel": "self"},
            "no link",
        ],
    }
    page = {"type": "FeatureCollection", "features": [item, None, {"type": "Feature"}]}
    SharingHub().correct(page, f"{items}?limit=2")
    assert item["collection"] == "dataset"
    hrefs = [link.get("href") for link in item["links"] if isinstance(link, dict)]
    assert hrefs[:4] == [
        f"{items}/a/b",
        f"{HUB}/api/stac/collections/dataset",
        f"{HUB}/api/stac/collections/ai-model/items/c",
        f"{HUB}/api/stac/collections/ai-model-2",
    ]


@pytest.mark.parametrize("url", [f"{HUB}/api/stac/search", f"{HUB}/api/stac/collections/dataset"])
def test_elsewhere_the_server_is_believed(url: str) -> None:
    document = {"type": "Feature", "collection": "ai-model", "links": []}
    SharingHub().correct(document, url)
    assert document["collection"] == "ai-model"


@pytest.mark.parametrize("broken", [{}, {"features": None}, {"features": [1]}, {"links": 7}])
def test_a_broken_document_is_left_to_be_refused(broken: dict[str, Any]) -> None:
    broken = {"type": "Feature", "collection": "other", **broken}
    SharingHub().correct(broken, f"{HUB}/api/stac/collections/dataset/items/x")


@pytest.mark.parametrize(
    ("page", "modes"),
    [
        ("collections/dataset/items?limit=2&after=a%2Bb%3D&empty=", ["preview", "reference"]),
        ("collections/dataset/items?mode=full", ["preview", "reference"]),
        ("search?collections=dataset&q=lakes", ["preview", "reference"]),
        # References ignore the extent and the time: they would list what was not asked for.
        ("search?collections=dataset&bbox=0,0,1,1", ["preview"]),
        ("collections/dataset/items?datetime=2024-01-01T00:00:00Z", ["preview"]),
        ("collections/dataset/items?mode=preview", []),
        ("collections/dataset/items/a/b", []),
        ("collections?limit=2", []),
    ],
)
def test_a_page_has_short_forms(page: str, modes: list[str]) -> None:
    forms = SharingHub().short_forms(f"{HUB}/api/stac/{page}")
    assert [form["mode"] for form in forms] == modes


def test_a_page_of_a_search_lists_items_of_its_collection() -> None:
    page = f"{HUB}/api/stac/search?collections=ai%20models&q=lakes"
    url = SharingHub().item_url(page, "group/a b")
    assert url.partition("?")[0] == f"{HUB}/api/stac/collections/ai%20models/items/group/a%20b"


# -- SharingHub: downloads ----------------------------------------------------------------------


def asset_url(href: str, key: str, **properties: Any) -> str:
    return SharingHub().asset_url(
        href,
        key=key,
        item_id="group/lakes",
        item_url=f"{HUB}/api/stac/collections/dataset/items/group/lakes",
        properties=properties,
    )


BASE = f"{HUB}/api/download/group/lakes/repository"


@pytest.mark.parametrize(
    ("href", "key", "url"),
    [
        (f"{BASE}/a.csv?ref=main", "a.csv", f"{BASE}/a.csv?ref=main"),
        (f"{BASE}/a.csv?ref=main&gitlab_token=s", "a.csv", f"{BASE}/a.csv?ref=main"),
        (f"{BASE}/a.csv?gitlab_token=s&ref=main", "a.csv", f"{BASE}/a.csv?ref=main"),
        (f"{BASE}/d/a b.csv?ref=main", "d/a b.csv", f"{BASE}/d/a%20b.csv?ref=main"),
        (f"{BASE}/d/a%20b.csv?ref=main", "d/a b.csv", f"{BASE}/d/a%20b.csv?ref=main"),
        (f"{BASE}/a?ref=main#b.csv", "a#b.csv", f"{BASE}/a%23b.csv?ref=main"),
        (f"{BASE}/a?ref=main", "a?b.csv", f"{BASE}/a%3Fb.csv?ref=main"),
        (f"{BASE}/100%25.csv?ref=main", "100%25.csv", f"{BASE}/100%2525.csv?ref=main"),
        (f"{BASE}/a+b.csv?ref=main", "a+b.csv", f"{BASE}/a%2Bb.csv?ref=main"),
        (f"{BASE}/a'b\".csv?ref=main", "a'b\".csv", f"{BASE}/a%27b%22.csv?ref=main"),
        (f"{BASE}/é.csv?ref=main", "é.csv", f"{BASE}/%C3%A9.csv?ref=main"),
        (f"{BASE}/a.csv?ref=main", "a key of its own", f"{BASE}/a.csv?ref=main"),
        (f"{BASE}/a.csv?ref=v1%2Bx", "a.csv", f"{BASE}/a.csv?ref=v1%2Bx"),
        # Another name of the same server, as its item cache has it: only for the item's own files.
        ("http://old/api/download/group/lakes/repository/a?ref=m", "a", f"{BASE}/a?ref=m"),
        (
            "http://old/api/download/Group/Lakes/repository/a?ref=m",
            "a",
            f"{HUB}/api/download/Group/Lakes/repository/a?ref=m",
        ),
        (
            "http://old/api/download/x/y/repository/a?ref=m",
            "a",
            "http://old/api/download/x/y/repository/a?ref=m",
        ),
        (
            "http://old/api/download/group/lakes/archive.zip?ref=m",
            "release",
            f"{HUB}/api/download/group/lakes/archive.zip?ref=m",
        ),
        # What is no download of a hub stays as it is.
        ("https://mlflow.example.org/x?a=b#c", "x", "https://mlflow.example.org/x?a=b#c"),
        ("s3://bucket/api/download/x", "x", "s3://bucket/api/download/x"),
        ("../data.csv", "data.csv", "../data.csv"),
    ],
)
def test_a_download_url_is_rebuilt_from_what_was_meant(href: str, key: str, url: str) -> None:
    assert asset_url(href, key) == url


@pytest.mark.parametrize("path", ["repository/a.csv", "x/repository/a b.csv", "データ/%.csv"])
def test_a_path_that_the_router_gets_wrong_goes_through_the_proxy_route(path: str) -> None:
    url = asset_url(f"{BASE}/{path}?ref=feature/x", path, **{"sharinghub:id": 7})
    head, _, tail = url.partition("/repository/files/")
    twice, _, query = tail.partition("/raw?")
    assert head == f"{HUB}/api/proxy/projects/7"
    assert unquote(unquote(twice)) == path
    assert "/" not in twice
    assert query == "ref=feature%2Fx&lfs=true"


def test_without_a_project_number_the_router_has_to_do() -> None:
    url = asset_url(f"{BASE}/repository/a.csv?ref=main", "repository/a.csv")
    assert url == f"{BASE}/repository/a.csv?ref=main"


HARD_PATHS = [
    "plain.csv",
    "data/sub folder/a b.csv",
    "data/a#b.csv",
    "data/a?b.csv",
    "data/a;b.csv",
    "data/100%.csv",
    "data/100%25.csv",
    "data/a+b&c=d.csv",
    "data/quote'\".csv",
    "data/[x](y).csv",
    "données/é.csv",
    "データ/水.csv",
    "repository/a.csv",
    "data/repository/b.csv",
]


def test_every_hard_path_is_downloaded_from_a_hub(policy: RetryPolicy) -> None:
    files = {path: path.encode() for path in HARD_PATHS}
    found = {}
    with (
        SharingHubServer([Project("group/lakes", files)]) as hub,
        GitLabStacIO(hub.token, retry=policy) as stac_io,
    ):
        url = hub.item_url("group/lakes")
        item = stac_io.read_json(url)
        for key in files:
            rebuilt = SharingHub().asset_url(
                item["assets"][key]["href"],
                key=key,
                item_id=item["id"],
                item_url=url,
                properties=item["properties"],
            )
            with stac_io.session.open(rebuilt) as response:
                found[key] = response.raw.read()
    assert found == files


@pytest.mark.parametrize(
    ("url", "lfs"),
    [
        (f"{BASE}/a.bin?ref=main", f"{BASE}/a.bin?ref=main&lfs=true"),
        (f"{BASE}/a.bin?ref=main&lfs=true", None),
        (f"{HUB}/api/stac/collections", None),
    ],
)
def test_sharinghub_is_asked_for_what_a_pointer_points_to_once(url: str, lfs: str | None) -> None:
    assert SharingHub().lfs_url(url) == lfs


# -- SharingHub: refusals -----------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    users = {
        "owner-token": AccessLevel.MAINTAINER,
        "guest-token": AccessLevel.GUEST,
        "narrow-token": User(level=AccessLevel.MAINTAINER, scopes=frozenset({"read_user"})),
    }
    project = Project("group/lakes", {"a.csv": b"a"}, private=True)
    with SharingHubServer([project], tokens=users) as server:
        yield server


@pytest.mark.parametrize(
    ("token", "path", "error", "says"),
    [
        (None, "/api/stac/collections/dataset/items", AuthenticationError, "No token was sent"),
        ("wrong", "/api/stac/collections/dataset/items", AuthenticationError, "has not expired"),
        ("narrow-token", "/api/stac/collections/dataset/items", AuthenticationError, "read_api"),
        (
            "owner-token",
            "/api/stac/collections/dataset/items/no/such",
            NotFoundError,
            "may not see",
        ),
        (
            "owner-token",
            "/api/stac/collections/ai-model/items/group/lakes",
            HTTPStatusError,
            "another collection",
        ),
        (
            "guest-token",
            "/api/download/group/lakes/repository/a.csv?ref=main",
            PermissionDeniedError,
            "Reporter",
        ),
    ],
)
def test_sharinghubs_refusals_are_explained(
    token: str | None,
    path: str,
    error: type[HTTPStatusError],
    says: str,
    hub: SharingHubServer,
    policy: RetryPolicy,
) -> None:
    with GitLabStacIO(token, retry=policy) as stac_io, pytest.raises(error, match=says) as caught:
        stac_io.read_json(f"{hub.url}{path}")
    assert token is None or token not in str(caught.value)
    assert len(hub.requests) == 1


def test_a_rate_limited_gitlab_behind_the_hub_is_waited_for_without_a_hint(
    hub: SharingHubServer, policy: RetryPolicy, clock: Clock
) -> None:
    hub.upstream(429, times=2)
    with GitLabStacIO("owner-token", retry=policy) as stac_io:
        assert stac_io.read_json(hub.item_url("group/lakes"))["id"] == "group/lakes"
    assert len(clock.slept) == 2
    assert all(0.2 < seconds < 1.1 for seconds in clock.slept)


def test_a_socket_that_the_hub_closed_after_a_500_is_replaced(
    hub: SharingHubServer, policy: RetryPolicy
) -> None:
    hub.upstream(None, times=1)
    with GitLabStacIO("owner-token", retry=policy) as stac_io:
        stac_io.read_json(hub.stac_url)
        assert stac_io.read_json(hub.item_url("group/lakes"))["id"] == "group/lakes"


def test_the_request_after_a_500_gets_a_connection_of_its_own(hub: SharingHubServer) -> None:
    once = RetryPolicy(max_attempts=1)
    with GitLabStacIO("owner-token", base_url=hub.url, retry=once) as stac_io:
        for _ in range(20):
            hub.upstream(None, times=1)
            with pytest.raises(ServerError):
                stac_io.read_json(hub.item_url("group/lakes"))
            assert stac_io.read_json(hub.item_url("group/lakes"))["id"] == "group/lakes"


def test_an_lfs_file_on_another_host_is_fetched_without_the_token(policy: RetryPolicy) -> None:
    with LoopbackServer() as storage:
        storage.route("/objects/1", b"the content")
        project = Project("group/lakes", {"data/big.bin": b"the content"}, lfs=["data/big.bin"])
        place = f"{storage.url}/objects/1?X-Amz-Signature=s"
        with GitLabServer([project], lfs_redirect=lambda _project, _path: place) as gitlab:
            with GitLabStacIO(gitlab.token, retry=policy) as stac_io:
                stac_io.credentials.bind(gitlab.url)
                url = gitlab.web_url("group/lakes", "data/big.bin")
                with stac_io.session.open(url) as response:
                    assert response.raw.read() == b"the content"
            assert gitlab.requests[0].headers["PRIVATE-TOKEN"] == gitlab.token
        [request] = storage.requests
        assert gitlab.token not in str(dict(request.headers))
        assert urlsplit(request.target).query == "X-Amz-Signature=s"


def cached_item(base: str) -> dict[str, Any]:
    """Return an item as the cache of a hub has it that calls itself by another name."""
    links = [
        {"rel": rel, "href": f"{base}/api/stac{path}"}
        for rel, path in (
            ("self", "/collections/ai-model/items/group/lakes"),
            ("parent", "/collections/ai-model"),
            ("collection", "/collections/ai-model"),
            ("root", "/"),
        )
    ]
    links.append({"rel": "derived_from", "href": f"{base}/api/stac/collections/x/items/a/b"})
    route = f"{base}/api/download/group/lakes/repository"
    assets = {
        "data/a#b.csv": {"href": f"{route}/data/a?ref=main#b.csv"},
        "preview.png": {"href": f"{route}/images/fig one.png?ref=main&cache=300"},
        "elsewhere": {"href": "https://mlflow.example.org/x?y#z"},
    }
    return {
        "type": "Feature",
        "id": "group/lakes",
        "collection": "ai-model",
        "properties": {"sharinghub:id": 7},
        "links": links,
        "assets": assets,
    }


def test_the_collection_and_the_server_that_were_asked_win_over_what_the_cache_names() -> None:
    item = cached_item("https://internal.example.org")
    asked = "https://hub.example.org/api/stac/collections/dataset/items"
    SharingHub().correct({"type": "FeatureCollection", "features": [item]}, f"{asked}?limit=9")
    hrefs = {link["rel"]: link["href"] for link in item["links"]}
    assert item["collection"] == "dataset"
    assert hrefs == {
        "self": f"{asked}/group/lakes",
        "parent": "https://hub.example.org/api/stac/collections/dataset",
        "collection": "https://hub.example.org/api/stac/collections/dataset",
        "root": "https://hub.example.org/api/stac/",
        "derived_from": "https://internal.example.org/api/stac/collections/x/items/a/b",
    }


def test_the_hrefs_of_assets_can_be_asked_for_as_they_are() -> None:
    item = cached_item("https://internal.example.org")
    url = "https://hub.example.org/api/stac/collections/ai-model/items/group/lakes"
    for _ in range(2):
        # Doing it twice changes nothing: a saved item may be read again.
        SharingHub().correct(item, url)
        route = "https://hub.example.org/api/download/group/lakes/repository"
        assert {key: asset["href"] for key, asset in item["assets"].items()} == {
            "data/a#b.csv": f"{route}/data/a%23b.csv?ref=main",
            "preview.png": f"{route}/images/fig%20one.png?ref=main&cache=300",
            "elsewhere": "https://mlflow.example.org/x?y#z",
        }


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("https://hub.example.org", "https://hub.example.org/api/stac"),
        ("https://hub.example.org/api/stac/", "https://hub.example.org/api/stac"),
        ("hub.example.org/lab", "https://hub.example.org/lab/api/stac"),
        ("localhost:8000", "http://localhost:8000/api/stac"),
    ],
)
def test_the_address_of_a_hub_may_be_short(address: str, url: str) -> None:
    assert api_url(address) == url


@pytest.mark.parametrize("address", ["ftp://hub.example.org", "", "https://", "no host"])
def test_what_is_no_address_of_a_hub_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="not"):
        api_url(address)
