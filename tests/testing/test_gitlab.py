"""The GitLab stand-in serves raw files for tokens, and a sign-in page for browsers."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping

import pytest
import requests
from stand_in import RecordedGitLab

from stac_gitlab.testing import (
    AccessLevel,
    GitLabServer,
    LoopbackServer,
    Project,
    Release,
    TokenHolder,
    User,
)

WEIGHTS = bytes(range(200)) * 100
FILES = {"data/été a#b?.csv": b"id\n1\n", "weights/w.bin": WEIGHTS, "README.md": b"# Lakes"}
PROJECT = Project(
    "group/sub/lakes",
    FILES,
    lfs=("weights/*",),
    branches={"feature/new+x": {"data/x.csv": b"new"}},
    releases=(Release("v1"),),
    private=True,
    guests=("carol",),
)


@pytest.fixture
def gitlab() -> Iterator[RecordedGitLab]:
    tokens: dict[str, TokenHolder] = {
        "glpat-owner": AccessLevel.MAINTAINER,
        "glpat-carol": "carol",
        "glpat-dave": "dave",
        "glpat-small": User(level=AccessLevel.MAINTAINER, scopes=frozenset({"read_user"})),
    }
    with RecordedGitLab([PROJECT], tokens=tokens) as running:
        yield running


def get(
    url: str, token: str | None = "glpat-owner", headers: Mapping[str, str] | None = None
) -> requests.Response:
    sent = {"Accept-Encoding": "identity", **({"PRIVATE-TOKEN": token} if token else {})}
    return requests.get(url, headers={**sent, **(headers or {})}, timeout=5, allow_redirects=False)


def test_a_raw_file_comes_with_gitlabs_headers(gitlab: GitLabServer) -> None:
    response = get(gitlab.raw_url(PROJECT.path, "data/été a#b?.csv"))
    assert (response.status_code, response.content) == (200, b"id\n1\n")
    assert response.headers["X-Gitlab-Content-Sha256"] == hashlib.sha256(b"id\n1\n").hexdigest()
    assert response.headers["X-Gitlab-Size"] == "5"
    assert response.headers["X-Gitlab-Ref"] == "main"


@pytest.mark.parametrize(
    "headers",
    [
        {"PRIVATE-TOKEN": "glpat-owner"},
        {"Authorization": "Bearer glpat-owner"},
        {"JOB-TOKEN": "glpat-owner"},
    ],
)
def test_each_token_header_is_accepted(gitlab: GitLabServer, headers: dict[str, str]) -> None:
    assert get(gitlab.raw_url(PROJECT.path, "README.md"), None, headers).status_code == 200


def test_the_project_may_be_a_number(gitlab: GitLabServer) -> None:
    project = get(f"{gitlab.url}/api/v4/projects/group%2Fsub%2Flakes").json()
    raw = f"{gitlab.url}/api/v4/projects/{project['id']}/repository/files/README.md/raw"
    assert get(raw).content == b"# Lakes"
    assert project["path_with_namespace"] == PROJECT.path


@pytest.mark.parametrize(
    ("token", "status", "document"),
    [
        (None, 404, {"message": "404 Project Not Found"}),
        ("glpat-unknown", 401, {"message": "401 Unauthorized"}),
        ("glpat-carol", 403, {"message": "403 Forbidden"}),
        ("glpat-dave", 404, {"message": "404 Project Not Found"}),
    ],
)
def test_refusals_are_those_of_gitlab(
    gitlab: GitLabServer, token: str | None, status: int, document: dict[str, str]
) -> None:
    response = get(gitlab.raw_url(PROJECT.path, "README.md"), token)
    assert (response.status_code, response.json()) == (status, document)


def test_a_token_without_a_reading_scope_is_refused(gitlab: GitLabServer) -> None:
    response = get(gitlab.raw_url(PROJECT.path, "README.md"), "glpat-small")
    assert response.status_code == 403
    assert response.json()["error"] == "insufficient_scope"


@pytest.mark.parametrize(
    ("project", "path", "ref", "message"),
    [
        ("no/such", "README.md", "main", "404 Project Not Found"),
        (PROJECT.path, "nope.csv", "main", "404 File Not Found"),
        (PROJECT.path, "README.md", "nope", "404 Commit Not Found"),
    ],
)
def test_a_404_names_what_is_missing(
    gitlab: GitLabServer, project: str, path: str, ref: str, message: str
) -> None:
    response = get(gitlab.raw_url(project, path, ref))
    assert (response.status_code, response.json()) == (404, {"message": message})


def test_an_unquoted_slash_is_another_route(gitlab: GitLabServer) -> None:
    base = f"{gitlab.url}/api/v4/projects/group%2Fsub%2Flakes/repository/files"
    assert get(f"{base}/weights%2Fw.bin/raw?ref=main").status_code == 200
    response = get(f"{base}/weights/w.bin/raw?ref=main")
    assert (response.status_code, response.json()) == (404, {"error": "404 Not Found"})


def test_a_plus_in_a_ref_must_be_quoted(gitlab: GitLabServer) -> None:
    url = gitlab.raw_url(PROJECT.path, "data/x.csv", "feature/new+x")
    assert get(url).content == b"new"
    assert get(url.replace("%2Bx", "+x")).json() == {"message": "404 Commit Not Found"}


def test_a_file_in_lfs_is_a_pointer_without_lfs_true(gitlab: GitLabServer) -> None:
    pointer = get(gitlab.raw_url(PROJECT.path, "weights/w.bin", lfs=False))
    oid = hashlib.sha256(WEIGHTS).hexdigest()
    assert pointer.text == (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(WEIGHTS)}\n"
    )
    assert pointer.headers["X-Gitlab-Size"] == str(len(pointer.content))
    content = get(gitlab.raw_url(PROJECT.path, "weights/w.bin"))
    assert content.content == WEIGHTS
    assert "X-Gitlab-Size" not in content.headers


def test_lfs_objects_support_ranges_and_blobs_do_not(gitlab: GitLabServer) -> None:
    wanted = {"Range": "bytes=10-19"}
    part = get(gitlab.raw_url(PROJECT.path, "weights/w.bin"), headers=wanted)
    assert (part.status_code, part.content) == (206, WEIGHTS[10:20])
    whole = get(gitlab.raw_url(PROJECT.path, "README.md"), headers=wanted)
    assert (whole.status_code, whole.content) == (200, b"# Lakes")
    beyond = get(gitlab.raw_url(PROJECT.path, "weights/w.bin"), headers={"Range": "bytes=999999-"})
    assert (beyond.status_code, beyond.text) == (416, "invalid range: failed to overlap\n")


def test_lfs_redirects_to_object_storage(gitlab: GitLabServer) -> None:
    with LoopbackServer({"/objects/group/sub/lakes/weights/w.bin": WEIGHTS}) as objects:
        gitlab.api.lfs_redirect = lambda project, path: (
            f"{objects.url}/objects/{project}/{path}?X-Amz-Signature=0"
        )
        response = get(gitlab.raw_url(PROJECT.path, "weights/w.bin"))
        assert response.status_code == 302
        assert get(response.headers["location"], None).content == WEIGHTS
        assert objects.requests[0].query == {"X-Amz-Signature": "0"}
        assert get(gitlab.raw_url(PROJECT.path, "README.md")).status_code == 200
        pointer = get(gitlab.raw_url(PROJECT.path, "weights/w.bin", lfs=False))
        assert pointer.text.startswith("version https://git-lfs")


@pytest.mark.parametrize("view", ["raw", "blob"])
def test_web_routes_redirect_to_the_sign_in_page(gitlab: GitLabServer, view: str) -> None:
    response = get(gitlab.web_url(PROJECT.path, "README.md", view=view))
    assert (response.status_code, response.headers["location"]) == (
        302,
        f"{gitlab.url}/users/sign_in",
    )
    page = get(response.headers["location"])
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "GitLab" in page.text
    assert "<form" in page.text


def test_a_job_token_opens_the_allowed_projects_only(gitlab: RecordedGitLab) -> None:
    task = {"JOB-TOKEN": "glpat-owner"}
    gitlab.job_token_projects = ["another/project"]
    assert get(gitlab.raw_url(PROJECT.path, "README.md"), None, task).status_code == 404
    assert get(gitlab.raw_url(PROJECT.path, "README.md")).status_code == 200
    gitlab.job_token_projects = [PROJECT.path]
    assert get(gitlab.raw_url(PROJECT.path, "README.md"), None, task).status_code == 200


def test_rate_limit_headers_are_sent_if_there_is_a_limit(gitlab: RecordedGitLab) -> None:
    url = gitlab.raw_url(PROJECT.path, "README.md")
    assert "RateLimit-Limit" not in get(url).headers
    gitlab.rate_limit = 100
    headers = get(url).headers
    assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("100", "99")
    assert int(headers["RateLimit-Reset"]) > 10**9


def test_an_archive_contains_the_repository(gitlab: GitLabServer) -> None:
    response = get(
        f"{gitlab.url}/api/v4/projects/group%2Fsub%2Flakes/repository/archive.zip?sha=v1"
    )
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        names = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert names == FILES


def test_a_public_project_needs_no_token() -> None:
    with GitLabServer([Project("open/lakes", {"x": b"1"}), PROJECT], public=True) as gitlab:
        assert get(gitlab.raw_url("open/lakes", "x"), None).content == b"1"
        assert get(gitlab.raw_url(PROJECT.path, "README.md"), None).status_code == 404


def test_only_reading_is_allowed(gitlab: GitLabServer) -> None:
    response = requests.put(gitlab.raw_url(PROJECT.path, "README.md"), data=b"x", timeout=5)
    assert response.status_code == 405


def test_a_listing_of_the_repository_has_blob_ids_and_pages(gitlab: GitLabServer) -> None:
    url = f"{gitlab.url}/api/v4/projects/group%2Fsub%2Flakes/repository/tree?per_page=2"
    first, second = get(url), get(f"{url}&page=2")
    entries = [*first.json(), *second.json()]
    assert [entry["path"] for entry in entries] == sorted(FILES)
    assert (first.headers["x-next-page"], second.headers["x-next-page"]) == ("2", "")
    for entry in entries:
        content = get(gitlab.raw_url(PROJECT.path, entry["path"], lfs=False)).content
        blob = b"blob %d\0" % len(content) + content
        assert entry["id"] == hashlib.sha1(blob).hexdigest()
