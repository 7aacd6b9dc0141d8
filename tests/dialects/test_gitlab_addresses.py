"""Web addresses of downloads, and a GitLab below a path of its host."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pystac
import pytest

from stac_gitlab import (
    AuthenticationError,
    DownloadError,
    GitLabStacIO,
    NotFoundError,
    RetryPolicy,
    STACDownloader,
)
from stac_gitlab.dialects.gitlab import GitLab
from stac_gitlab.testing import Answer, GitLabServer, LoopbackServer, Project, RecordedRequest
from tests.fault_server import SIGN_IN_PAGE

LAB = "https://gitlab.example.org"
TOKEN = "glpat-addresses-1"
HOME = "/api/v4/projects/g%2Fs%2Fp"
ONCE = RetryPolicy(max_attempts=1)

CATALOG = {
    "type": "Catalog",
    "stac_version": "1.0.0",
    "id": "root",
    "description": "Below a path",
    "links": [{"rel": "item", "href": "./one.json"}],
}
ITEM = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "id": "one",
    "geometry": None,
    "properties": {"datetime": "2024-01-01T00:00:00Z"},
    "assets": {"table": {"href": "./one.csv", "roles": ["data"]}},
    "links": [],
}
PROJECT = Project(
    "gitlab/lakes",
    {
        "catalog.json": json.dumps(CATALOG).encode(),
        "one.json": json.dumps(ITEM).encode(),
        "one.csv": b"id\n1\n",
    },
    private=True,
    members=["owner"],
)


class GitLabBelowAPath(GitLabServer):
    """A GitLab that is at `/gitlab`, with another program at the root of the host."""

    def answer(self, request: RecordedRequest) -> Answer:
        prefix, separator, target = request.target.partition("/gitlab/")
        if prefix or not separator:
            return Answer(404, (("content-type", "text/html"),), b"<html>no such page</html>")
        path = request.path.removeprefix("/gitlab")
        return super().answer(replace(request, target=f"/{target}", path=path))


@pytest.fixture
def below() -> Iterator[GitLabServer]:
    with GitLabBelowAPath([PROJECT], token=TOKEN) as running:
        yield running


# -- below a path -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/gitlab", "/gitlab/", "/gitlab/api/v4", "/gitlab/api/v4/", "/gitlab?x=1"]
)
def test_the_path_of_base_url_counts(below: GitLabServer, path: str, tmp_path: Path) -> None:
    with GitLabStacIO(TOKEN, base_url=f"{below.url}{path}", retry=ONCE) as reader:
        web = f"{below.url}/gitlab/{PROJECT.path}/-/raw/main/catalog.json"
        (item,) = pystac.Catalog.from_file(web, stac_io=reader).get_items()
        assert item.get_self_href() == f"{below.url}/gitlab/{PROJECT.path}/-/raw/main/one.json"
        report = STACDownloader(stac_io=reader).download_assets(item, tmp_path)
    assert report.paths["table"].read_bytes() == b"id\n1\n"
    assert {r.raw_path.partition("/files/")[0] for r in below.requests} == {
        "/gitlab/api/v4/projects/gitlab%2Flakes/repository"
    }
    assert {r.headers["PRIVATE-TOKEN"] for r in below.requests} == {TOKEN}


def test_the_path_counts_in_the_environment_in_hosts_and_in_pickles(
    below: GitLabServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = f"{below.url}/gitlab/{PROJECT.path}/-/raw/main/catalog.json"
    address = f"{below.url}/gitlab"
    host = address.partition("://")[2]
    monkeypatch.setenv("GITLAB_TOKEN", TOKEN)
    readers = [
        GitLabStacIO(hosts=[address], retry=ONCE),
        GitLabStacIO(hosts=iter([address]), retry=ONCE),
        GitLabStacIO(hosts=address, retry=ONCE),
        GitLabStacIO(hosts=[host], retry=ONCE),
        GitLabStacIO(hosts={address: TOKEN}, retry=ONCE),
        pickle.loads(pickle.dumps(GitLabStacIO(base_url=address, retry=ONCE))),
    ]
    monkeypatch.setenv("STAC_GITLAB_URL", address)
    readers.append(GitLabStacIO(retry=ONCE))
    monkeypatch.delenv("STAC_GITLAB_URL")
    monkeypatch.setenv("CI_JOB_TOKEN", TOKEN)
    monkeypatch.setenv("CI_SERVER_URL", address)
    monkeypatch.delenv("GITLAB_TOKEN")
    readers.append(GitLabStacIO(retry=ONCE))
    for reader in readers:
        with reader:
            assert reader.read_json(web)["id"] == "root"


def test_a_server_address_in_ci_that_is_none_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_SERVER_URL", "not an address/gitlab")
    assert GitLabStacIO(TOKEN, base_url=LAB).credentials.paths == {}


def test_a_host_named_by_the_address_of_a_file_is_at_its_root() -> None:
    web = f"{LAB}/g/p/-/raw/main/catalog.json"
    with GitLabStacIO(TOKEN, base_url=web) as reader:
        url = next(iter(reader.session.dialect_of(web).request_urls(web)))
    assert url.startswith(f"{LAB}/api/v4/projects/g%2Fp/")


def test_a_path_of_another_server_on_the_host_changes_nothing() -> None:
    web = f"{LAB}/hubble/p/-/raw/main/catalog.json"
    with GitLabStacIO(TOKEN, base_url=f"{LAB}/hub") as reader:
        url = next(iter(reader.session.dialect_of(web).request_urls(web)))
    assert url.startswith(f"{LAB}/api/v4/projects/hubble%2Fp/")


# -- archives, artifacts and releases -----------------------------------------------------------


@pytest.mark.parametrize(
    ("web", "api"),
    [
        ("archive/main/p-main.zip", "repository/archive.zip?sha=main"),
        ("archive/a/b/p-a-b.tar.gz", "repository/archive.tar.gz?sha=a%2Fb"),
        ("archive/v1.0/p-v1.0.tar.bz2", "repository/archive.tar.bz2?sha=v1.0"),
        ("archive/main/p.zip?path=a%2Fb&x=1", "repository/archive.zip?sha=main&path=a%2Fb"),
        ("jobs/7/artifacts/download", "jobs/7/artifacts"),
        ("jobs/7/artifacts/download?file_type=archive", "jobs/7/artifacts"),
        ("jobs/7/artifacts/raw/out/a%20b.csv", "jobs/7/artifacts/out/a%20b.csv"),
        ("jobs/7/artifacts/file/out/c.csv", "jobs/7/artifacts/out/c.csv"),
        (
            "jobs/artifacts/a/b/download?job=build%20it",
            "jobs/artifacts/a%2Fb/download?job=build+it",
        ),
        ("jobs/artifacts/main/raw/o/c.csv?job=t", "jobs/artifacts/main/raw/o/c.csv?job=t"),
        ("jobs/artifacts/main/file/o/c.csv?job=t", "jobs/artifacts/main/raw/o/c.csv?job=t"),
        ("releases/v1/downloads/bin/a.tif", "releases/v1/downloads/bin/a.tif"),
        ("releases/a%2Fb/downloads/a.tif", "releases/a%2Fb/downloads/a.tif"),
        (
            "releases/permalink/latest/downloads/a.tif",
            "releases/permalink/latest/downloads/a.tif",
        ),
    ],
)
def test_a_download_of_the_web_site_is_asked_for_at_the_api(web: str, api: str) -> None:
    url = f"{LAB}/g/s/p/-/{web}"
    assert list(GitLab().request_urls(url)) == [f"{LAB}{HOME}/{api}"]
    assert GitLab().base_href(url, f"{LAB}{HOME}/{api}") == url


def test_a_report_of_a_job_is_not_taken_for_its_archive() -> None:
    url = f"{LAB}/g/s/p/-/jobs/7/artifacts/download?file_type=junit"
    assert list(GitLab().request_urls(url)) == [url]


def test_an_asset_with_the_web_address_of_an_archive_is_downloaded(
    below: GitLabServer, tmp_path: Path
) -> None:
    item = pystac.Item.from_dict(ITEM)
    href = f"{below.url}/gitlab/{PROJECT.path}/-/archive/main/lakes-main.zip"
    item.assets = {"all.zip": pystac.Asset(href, roles=["data"])}
    with STACDownloader(TOKEN, f"{below.url}/gitlab", retry=ONCE) as downloader:
        report = downloader.download_assets(item, tmp_path)
    assert report.paths["all.zip"].read_bytes().startswith(b"PK")


# -- pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("web", "api"),
    [
        ("package_files/9/download", "packages/generic/{name}/{version}/{file}"),
        ("packages/12", "packages/generic/{name}/{version}/{file}"),
        ("releases", "releases"),
        ("releases/v1", "releases"),
        ("jobs/7", "jobs/{job}/artifacts"),
        ("jobs/7/artifacts/browse", "jobs/{job}/artifacts"),
        ("pipelines/3", "jobs/{job}/artifacts"),
        ("tree/main/data", "repository/tree"),
    ],
)
def test_the_error_for_a_page_names_the_address_of_the_api(
    web: str, api: str, server: LoopbackServer, tmp_path: Path
) -> None:
    path = f"/g/s/p/-/{web}"
    location = [("location", f"{server.url}/users/sign_in")]
    server.route(path, lambda _: Answer(302, tuple(location)))
    server.route("/users/sign_in", SIGN_IN_PAGE, media_type="text/html")
    item = pystac.Item.from_dict(ITEM)
    item.assets = {"a": pystac.Asset(f"{server.url}{path}", roles=["data"])}
    with GitLabStacIO(TOKEN, base_url=server.url, retry=ONCE) as reader:
        with pytest.raises(AuthenticationError) as caught:
            reader.read_json(f"{server.url}{path}")
        with pytest.raises(DownloadError) as failed:
            STACDownloader(stac_io=reader).download_assets(item, tmp_path)
    for message in (str(caught.value), str(failed.value)):
        assert f"Use the API instead: {server.url}{HOME}/{api}" in message


def test_a_page_that_is_not_found_is_explained_alike(server: LoopbackServer) -> None:
    with (
        GitLabStacIO(TOKEN, base_url=server.url, retry=ONCE) as reader,
        pytest.raises(NotFoundError, match=f"Use the API instead: {server.url}{HOME}/releases"),
    ):
        reader.read_json(f"{server.url}/g/s/p/-/releases/v1")
