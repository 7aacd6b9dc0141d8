"""VCR.py records and plays what is read and downloaded."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pystac
import pytest
import requests
import vcr
from vcr.cassette import Cassette
from vcr.errors import CannotOverwriteExistingCassetteException

from stac_gitlab import GitLabStacIO, NotFoundError, RetryPolicy, STACDownloader
from stac_gitlab.testing import Answer, LoopbackServer, Project, SharingHubServer

TOKEN = "glpat-recorded-0001"
CONTENT = bytes(range(256)) * 2000

Maker = Callable[[], GitLabStacIO]
MAKERS: dict[str, Maker] = {
    "a reader": lambda: GitLabStacIO(TOKEN, page_size=2),
    "a reader with session=": lambda: GitLabStacIO(TOKEN, page_size=2, session=requests.Session()),
}


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    projects = [Project(f"group/lake-{n}", {"data/lake.bin": CONTENT}) for n in range(5)]
    with SharingHubServer(projects, token=TOKEN) as running:
        yield running


@pytest.fixture(params=MAKERS.values(), ids=MAKERS)
def make(request: pytest.FixtureRequest) -> Maker:
    made: Maker = request.param
    return made


def recording(folder: Path) -> Cassette:
    return vcr.use_cassette(str(folder / "cassette.yaml"), record_mode="once")


def playing(folder: Path) -> Cassette:
    return vcr.use_cassette(str(folder / "cassette.yaml"), record_mode="none")


def use(stac_io: GitLabStacIO, url: str, folder: Path) -> tuple[list[str], bytes, bytes]:
    """List a collection page by page, and bring one asset home in both ways."""
    collection = pystac.Collection.from_file(f"{url}/collections/dataset", stac_io=stac_io)
    items = {item.id: item for item in collection.get_items()}
    with STACDownloader(stac_io=stac_io) as downloader:
        item = items["group/lake-3"]
        report = downloader.download_assets(item, folder, overwrite="always")
        with downloader.open(item.assets["data/lake.bin"]) as file:
            opened = file.read()
    with pytest.raises(NotFoundError):
        stac_io.read_json(f"{url}/collections/dataset/items/group/none")
    return sorted(items), report.paths["data/lake.bin"].read_bytes(), opened


def test_what_is_recorded_plays_without_the_server(
    hub: SharingHubServer, make: Maker, tmp_path: Path
) -> None:
    url = hub.stac_url
    with recording(tmp_path) as cassette:
        recorded = use(make(), url, tmp_path)
    assert recorded == ([f"group/lake-{n}" for n in range(5)], CONTENT, CONTENT)
    assert len(cassette) == len(hub.requests) > 5
    hub.close()
    with playing(tmp_path) as cassette:
        assert use(make(), url, tmp_path) == recorded
    assert cassette.all_played


def test_a_recorded_body_that_was_compressed_plays(
    server: LoopbackServer, make: Maker, tmp_path: Path
) -> None:
    body = gzip.compress(b'{"a": 1}')
    server.route("/a.json", Answer(200, (("Content-Encoding", "gzip"),), body))
    url = server.url + "/a.json"
    with recording(tmp_path):
        assert make().read_json(url) == {"a": 1}
    with playing(tmp_path):
        assert make().read_json(url) == {"a": 1}


def test_one_reader_goes_in_and_out_of_cassettes(
    server: LoopbackServer, make: Maker, tmp_path: Path
) -> None:
    server.route("/a.json", {"a": 1})
    url = server.url + "/a.json"
    stac_io = make()
    for _ in range(2):
        assert stac_io.read_json(url) == {"a": 1}
        with recording(tmp_path) as cassette:
            assert stac_io.read_json(url) == {"a": 1}
        assert len(cassette) == 1
    assert len(server.requests) == 3


def test_a_token_is_recorded_where_it_was_sent_only(
    server: LoopbackServer, other_server: LoopbackServer, make: Maker, tmp_path: Path
) -> None:
    server.route("/a.json", Answer(302, (("Location", f"{other_server.url}/b.json"),)))
    other_server.route("/b.json", {"b": 1})
    with recording(tmp_path) as cassette:
        make().read_json(f"{server.url}/a.json")
    assert [request.headers.get("X-Gitlab-Token") for request in cassette.requests] == [TOKEN, None]
    assert "X-Gitlab-Token" not in other_server.requests[0].headers


def test_a_request_that_was_not_recorded_is_refused_at_once(tmp_path: Path, make: Maker) -> None:
    with playing(tmp_path), pytest.raises(CannotOverwriteExistingCassetteException):
        make().read_json("https://hub.example.org/a.json")


def test_a_failure_that_was_recorded_is_retried(server: LoopbackServer, tmp_path: Path) -> None:
    answers = iter([Answer(503), {"a": 1}])
    server.route("/a.json", lambda _: next(answers))
    url = server.url + "/a.json"
    stac_io = GitLabStacIO(retry=RetryPolicy(backoff_base=0))
    with recording(tmp_path):
        assert stac_io.read_json(url) == {"a": 1}
    with playing(tmp_path) as cassette:
        assert stac_io.read_json(url) == {"a": 1}
    assert cassette.play_count == 2


def test_the_package_may_be_imported_first_while_a_cassette_is_in_use(
    server: LoopbackServer, tmp_path: Path
) -> None:
    server.route("/a.json", {"a": 1})
    script = """
import sys, vcr
with vcr.use_cassette(sys.argv[2], record_mode="once") as cassette:
    from stac_gitlab import GitLabStacIO
    stac_io = GitLabStacIO()
    stac_io.read_json(sys.argv[1])
stac_io.read_json(sys.argv[1])
sys.exit(len(cassette) != 1)
"""
    arguments = [server.url + "/a.json", str(tmp_path / "cassette.yaml")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, timeout=60)
    assert len(server.requests) == 2
