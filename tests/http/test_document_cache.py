"""The document cache: what is asked again, what is kept, and what is read offline."""

from __future__ import annotations

import logging
import os
import pickle
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pystac
import pytest

from stac_gitlab import (
    ConfigurationError,
    DocumentCache,
    DownloadError,
    GitLabStacIO,
    InvalidResponseError,
    NotFoundError,
    OfflineError,
    OfflineWarning,
    RetryPolicy,
    ServerError,
    STACDownloader,
    UnreadableItemWarning,
)
from stac_gitlab.http import document_cache
from stac_gitlab.reading.paging import PageRequest
from stac_gitlab.testing import (
    Fault,
    LoopbackServer,
    Project,
    RecordedRequest,
    SharingHubServer,
    sample_projects,
)

TOKEN = "glpat-cached-000001"
OTHER = "glpat-cached-000002"
DATE = "Tue, 05 Nov 2024 10:00:00 GMT"
NO_RETRIES = RetryPolicy(max_attempts=1)

POSIX = pytest.mark.skipif(os.name == "nt", reason="about POSIX permissions")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def reader(folder: Path, server: LoopbackServer) -> Callable[..., GitLabStacIO]:
    """Make readers with a cache."""

    def made(token: str | None = TOKEN, *, max_age: float = 0, **options: Any) -> GitLabStacIO:
        cache = DocumentCache(folder, max_age=max_age)
        options = {"base_url": server.url, "retry": NO_RETRIES, **options}
        return GitLabStacIO(token, cache=cache, **options)

    return made


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the cache sees, in seconds since 1970."""
    seconds = [1_700_000_000.0]
    monkeypatch.setattr(document_cache, "time", SimpleNamespace(time=lambda: seconds[0]))
    return seconds


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    with SharingHubServer(sample_projects(), token=TOKEN) as server:
        yield server


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.document") if path.is_file()]


def versioned(server: LoopbackServer, path: str, document: dict[str, Any]) -> str:
    server.route(path, document, ranges=True)
    return server.url + path


# -- online --------------------------------------------------------------------------------------


def test_a_document_that_has_not_changed_is_not_sent_again(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    assert reader().read_json(url) == {"x": 1}
    bodies = server.inject(Fault(status=304, times=None))
    assert reader().read_json(url) == {"x": 1}
    assert bodies.hits == 1
    assert server.requests[0].headers.get("If-None-Match") is None
    assert server.requests[1].headers.get("If-None-Match")


def test_a_document_that_has_changed_is_read_anew_and_kept(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    reader().read_json(url)
    versioned(server, "/a.json", {"x": 2})
    assert reader().read_json(url) == {"x": 2}
    assert reader(offline=True).read_json(url) == {"x": 2}


def test_a_cleared_cache_holds_nothing_and_can_be_used(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer, folder: Path
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    stac_io = reader()
    stac_io.read_json(url)
    DocumentCache(folder).clear()
    with pytest.raises(OfflineError, match="not in the cache"):
        reader(offline=True).read_json(url)
    stac_io.read_json(url)
    assert server.requests[-1].headers.get("If-None-Match") is None
    assert reader(offline=True).read_json(url) == {"x": 1}
    DocumentCache(folder / "missing").clear()
    assert not (folder / "missing").exists()


def test_a_date_is_a_validator_as_well(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    server.route("/a.json", {"x": 1}, headers={"Last-Modified": DATE})
    reader().read_json(server.url + "/a.json")
    server.inject(Fault(status=304))
    assert reader().read_json(server.url + "/a.json") == {"x": 1}
    assert server.requests[1].headers.get("If-Modified-Since") == DATE


def test_without_a_validator_the_server_is_asked_each_time(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    server.route("/a.json", lambda _: {"x": len(server.requests)})
    stac_io = reader()
    assert [stac_io.read_json(server.url + "/a.json")["x"] for _ in range(3)] == [1, 2, 3]


def test_max_age_saves_the_question_and_the_log_says_so(
    reader: Callable[..., GitLabStacIO],
    server: LoopbackServer,
    now: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "stac_gitlab")
    server.route("/a.json", lambda _: {"x": len(server.requests)})
    url = server.url + "/a.json"
    stac_io = reader(max_age=60)
    assert stac_io.read_json(url)["x"] == 1
    now[0] += 59
    assert stac_io.read_json(url)["x"] == 1
    assert "/a.json: read from the cache, last confirmed by the server at 2023-11-14T" in (
        caplog.text
    )
    now[0] += 1
    assert stac_io.read_json(url)["x"] == 2


def test_a_confirmed_document_is_fresh_again(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer, now: list[float]
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    stac_io = reader(max_age=60)
    for _ in range(4):
        stac_io.read_json(url)
        now[0] += 45
    assert len(server.requests) == 2


def test_a_clock_that_was_set_back_does_not_make_a_document_fresh(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer, now: list[float]
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    stac_io = reader(max_age=60)
    stac_io.read_json(url)
    now[0] -= 10
    stac_io.read_json(url)
    assert len(server.requests) == 2


def test_a_server_that_wants_to_be_asked_is_asked_in_spite_of_max_age(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    server.route("/a.json", {"x": 1}, headers={"Cache-Control": "private, no-cache"})
    stac_io = reader(max_age=60)
    for _ in range(2):
        stac_io.read_json(server.url + "/a.json")
    assert len(server.requests) == 2


def test_what_the_reader_may_have_changed_is_asked_for(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer, now: list[float]
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    stac_io = reader(max_age=60)
    stac_io.read_json(url)
    stac_io.session.fetch(url, lambda _: None, max_bytes=100, method="PUT", json={"x": 2})
    versioned(server, "/a.json", {"x": 2})
    assert stac_io.read_json(url) == {"x": 2}


@pytest.mark.parametrize(
    "headers", [{"Cache-Control": "max-age=60, No-Store"}, {"Vary": "*"}], ids=str
)
def test_what_a_server_forbids_to_keep_is_not_kept(
    reader: Callable[..., GitLabStacIO],
    server: LoopbackServer,
    folder: Path,
    headers: dict[str, str],
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    reader().read_json(url)
    assert len(files_in(folder)) == 1
    server.route("/a.json", {"x": 2}, headers=headers)
    assert reader().read_json(url) == {"x": 2}
    assert files_in(folder) == []


def test_responses_to_post_are_not_kept(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer, folder: Path
) -> None:
    versioned(server, "/search", {"type": "FeatureCollection", "features": []})
    request = PageRequest(server.url + "/search", "POST", body={"limit": 1})
    reader().read_page(request)
    assert files_in(folder) == []
    with pytest.raises(OfflineError, match="Only responses to GET are cached"):
        reader(offline=True).read_page(request)


def test_what_is_not_valid_is_not_kept(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer, folder: Path
) -> None:
    server.route("/a.json", '{"x": ')
    with pytest.raises(InvalidResponseError):
        reader().read_json(server.url + "/a.json")
    assert files_in(folder) == []


@pytest.mark.parametrize(
    ("status", "error", "kept"), [(404, NotFoundError, 0), (503, ServerError, 1)]
)
def test_a_document_that_the_server_takes_back_is_removed(
    reader: Callable[..., GitLabStacIO],
    server: LoopbackServer,
    folder: Path,
    status: int,
    error: type[Exception],
    kept: int,
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    reader().read_json(url)
    server.inject(Fault(status=status))
    with pytest.raises(error):
        reader().read_json(url)
    assert len(files_in(folder)) == kept


def test_a_text_is_kept_like_a_document(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    server.route("/a.txt", "größer", ranges=True)
    assert reader().read_text(server.url + "/a.txt") == "größer"
    assert reader(offline=True).read_text(server.url + "/a.txt") == "größer"


def test_a_smaller_limit_applies_to_the_cache(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    url = versioned(server, "/a.json", {"x": "x" * 1000})
    reader().read_json(url)
    with pytest.raises(InvalidResponseError, match="larger than 100 bytes"):
        reader(max_document_bytes=100).read_json(url)


# -- secrets -------------------------------------------------------------------------------------


def test_nothing_in_the_folder_is_a_secret(hub: SharingHubServer, folder: Path) -> None:
    stac_io = GitLabStacIO(TOKEN, base_url=hub.url, cache=folder)
    list(pystac.Catalog.from_file(hub.stac_url, stac_io=stac_io).get_items(recursive=True))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert TOKEN.encode() not in path.read_bytes() + path.name.encode()
        assert b"gitlab_token" not in path.read_bytes()


@pytest.mark.parametrize(
    "body",
    [
        b'{"x": "http://a/b?ref=main\\u0026gitlab_token=abc"}',
        b'{"x": "\\u0067lpat-cached-000001"}',
        b'{"glpat-cached-000001": 1}',
        b"a text with glpat-cached-000001",
    ],
)
def test_escaped_secrets_are_removed_before_they_are_kept(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer, folder: Path, body: bytes
) -> None:
    server.route("/a", body, headers={"ETag": f'"{TOKEN}"', "Last-Modified": TOKEN})
    text = reader().read_text(server.url + "/a")
    [path] = files_in(folder)
    head, _, kept = path.read_bytes().partition(b"\n")
    for secret in (TOKEN.encode(), b"lpat-cached", b"gitlab_token"):
        assert secret not in head + kept
    if not body.startswith(b"{"):
        assert kept.decode() == text


def test_another_token_gets_nothing_from_the_cache(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    reader(max_age=60).read_json(url)
    reader(OTHER, max_age=60).read_json(url)
    reader(None, max_age=60).read_json(url)
    assert [r.headers.get("If-None-Match") for r in server.requests] == [None, None, None]


def test_another_header_gets_nothing_from_the_cache(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    for headers in ({"X-Tenant": "one"}, {"X-Tenant": "two"}, {"Accept-Language": "de"}):
        reader(max_age=60, headers=headers).read_json(url)
    assert len(server.requests) == 3


def test_the_names_of_two_caches_differ(server: LoopbackServer, tmp_path: Path) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    for name in ("one", "two"):
        GitLabStacIO(TOKEN, base_url=server.url, cache=tmp_path / name).read_json(url)
    [one], [two] = files_in(tmp_path / "one"), files_in(tmp_path / "two")
    assert one.name != two.name


def test_a_document_from_another_origin_with_a_token_of_its_own_is_not_kept(
    server: LoopbackServer, other_server: LoopbackServer, folder: Path
) -> None:
    versioned(other_server, "/a.json", {"x": 1})
    target = {"Location": other_server.url + "/a.json"}
    server.route("/a.json", "", status=302, headers=target)
    hosts = {other_server.url: OTHER}
    stac_io = GitLabStacIO(TOKEN, base_url=server.url, hosts=hosts, cache=folder)
    assert stac_io.read_json(server.url + "/a.json") == {"x": 1}
    assert files_in(folder) == []


def test_a_redirected_document_keeps_the_url_that_its_links_are_relative_to(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    versioned(server, "/there/a.json", {"x": 1})
    server.route("/a.json", "", status=302, headers={"Location": "/there/a.json"})
    reader().read_json(server.url + "/a.json")
    document = reader(offline=True).read_json(server.url + "/a.json")
    assert document.url == server.url + "/there/a.json"  # type: ignore[attr-defined]


@POSIX
def test_only_its_owner_can_enter_the_folder(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer, folder: Path
) -> None:
    folder.mkdir(mode=0o755)
    reader().read_json(versioned(server, "/a.json", {"x": 1}))
    [inner] = folder.iterdir()
    assert stat.S_IMODE(inner.stat().st_mode) == 0o700
    inner.chmod(0o750)
    with pytest.raises(ConfigurationError, match="other users can read or change"):
        reader()


@POSIX
def test_nothing_is_written_through_a_link_in_place_of_the_folder(
    reader: Callable[..., GitLabStacIO], folder: Path, tmp_path: Path
) -> None:
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (folder / "stac-gitlab-documents").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="other users can read or change"):
        reader()
    assert not any((tmp_path / "elsewhere").iterdir())


# -- offline -------------------------------------------------------------------------------------


def test_a_hub_is_walked_without_its_server(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def items(stac_io: GitLabStacIO) -> list[dict[str, Any]]:
        root = pystac.Catalog.from_file(url, stac_io=stac_io)
        return [item.to_dict() for item in root.get_items(recursive=True)]

    with SharingHubServer(sample_projects(), token=TOKEN) as hub:
        url, options = hub.stac_url, {"base_url": hub.url, "cache": folder, "page_size": 1}
        online = items(GitLabStacIO(TOKEN, **options))
    caplog.set_level(logging.INFO, "stac_gitlab")
    assert items(GitLabStacIO(TOKEN, offline=True, **options)) == online
    assert len(online) == 4
    assert caplog.text.count("read from the cache, last confirmed by the server at") >= 5


def test_a_page_that_was_refused_is_listed_offline_as_it_was_online(folder: Path) -> None:
    projects = [
        Project("a/one"),
        Project("a/bad", broken=True),
        Project("a/two"),
    ]

    def ids(stac_io: GitLabStacIO) -> list[str]:
        with pytest.warns(UnreadableItemWarning, match="a/bad"):
            return [i.id for i in pystac.Catalog.from_file(url, stac_io=stac_io).get_items()]

    with SharingHubServer(projects, token=TOKEN) as hub:
        url = hub.stac_url + "/collections/dataset"
        # The hub closes the connection after a 500, which a reader that sends at once may not see.
        retry = RetryPolicy(backoff_base=0)
        options = {"base_url": hub.url, "cache": folder, "retry": retry}
        online = ids(GitLabStacIO(TOKEN, **options))
    assert sorted(online) == ["a/bad", "a/one", "a/two"]
    assert ids(GitLabStacIO(TOKEN, offline=True, **options)) == online


def test_what_the_cache_lacks_is_an_error_that_names_it(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer, folder: Path
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    with pytest.raises(OfflineError, match=r"GET .*/a.json: not .* offline=True") as caught:
        reader(offline=True, retry=None).read_json(url)
    assert repr(str(folder)) in str(caught.value)
    assert server.requests == []
    assert not folder.exists()


def test_another_token_is_told_that_the_document_is_held(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    reader().read_json(url)
    with pytest.raises(OfflineError, match="for another token or other headers"):
        reader(OTHER, offline=True).read_json(url)


def test_a_walk_does_not_skip_what_the_cache_lacks(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    links = [{"rel": "child", "href": "./child.json"}]
    root = {"type": "Catalog", "id": "a", "stac_version": "1.0.0", "description": "a"}
    url = versioned(server, "/a.json", {**root, "links": links})
    reader().read_json(url)
    catalog = pystac.Catalog.from_file(url, stac_io=reader(offline=True))
    with pytest.raises(pystac.STACError) as caught:
        list(catalog.get_children())
    assert isinstance(caught.value.__cause__, OfflineError)


def test_offline_nothing_else_is_requested_either(
    hub: SharingHubServer, folder: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"base_url": hub.url, "cache": folder}
    url = hub.item_url("alpine/lakes/ice-cover")
    pystac.Item.from_file(url, stac_io=GitLabStacIO(TOKEN, **options))
    hub.clear_requests()
    offline = GitLabStacIO(TOKEN, offline=True, **options)
    item = pystac.Item.from_file(url, stac_io=offline)
    with pytest.raises(DownloadError) as caught:
        STACDownloader(stac_io=offline).download_assets(item, tmp_path / "data")
    assert all(isinstance(error, OfflineError) for error in caught.value.errors.values())
    with pytest.raises(OfflineError, match="Only documents are kept in a cache"):
        offline.session.get(url)
    assert hub.requests == []


def test_local_files_are_read_offline_without_a_cache(tmp_path: Path) -> None:
    catalog = pystac.Catalog("a", "a")
    catalog.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    stac_io = GitLabStacIO(offline=True)
    assert pystac.Catalog.from_file(str(tmp_path / "catalog.json"), stac_io=stac_io).id == "a"
    with pytest.raises(OfflineError, match="There is no cache="):
        stac_io.read_json("https://hub.example.org/a.json")


def test_the_environment_makes_readers_offline_with_a_warning(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    reader().read_json(url)
    monkeypatch.setenv("STAC_GITLAB_OFFLINE", "1")
    stac_io = reader()
    with pytest.warns(OfflineWarning, match="STAC_GITLAB_OFFLINE is set"):
        assert stac_io.read_json(url) == {"x": 1}
    stac_io.read_json(url)
    with pytest.raises(OfflineError, match="STAC_GITLAB_OFFLINE is set"):
        stac_io.read_json(server.url + "/b.json")
    assert reader(offline=False).read_json(url) == {"x": 1}
    assert len(server.requests) == 2


def test_an_unclear_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAC_GITLAB_OFFLINE", "maybe")
    with pytest.raises(ConfigurationError, match="STAC_GITLAB_OFFLINE='maybe': set it to 1 or 0"):
        GitLabStacIO()


def test_cache_and_offline_travel_in_a_pickle(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    reader(allow_pickle_token=True).read_json(url)
    stac_io = pickle.loads(pickle.dumps(reader(offline=True, allow_pickle_token=True)))
    assert stac_io.read_json(url) == {"x": 1}
    with pytest.raises(OfflineError):
        stac_io.read_json(server.url + "/b.json")


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"folder": 3}, {"folder": "a", "max_age": -1}, {"folder": "a", "max_bytes": 1.5}],
    ids=str,
)
def test_settings_that_make_no_sense_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        DocumentCache(**options)


def test_a_folder_that_is_a_file_is_an_error(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(ConfigurationError, match="this folder cannot be used"):
        GitLabStacIO(cache=folder)


@pytest.mark.parametrize(
    "damage", [b"", b"{}\n{}", b"\xff", "cut", "changed", "no time", "no etag"]
)
def test_a_damaged_file_is_read_anew(
    reader: Callable[..., GitLabStacIO],
    server: LoopbackServer,
    folder: Path,
    damage: bytes | str,
) -> None:
    url = versioned(server, "/a.json", {"x": 12345})
    reader().read_json(url)
    [path] = files_in(folder)
    whole = path.read_bytes()
    changed = {
        "cut": whole[:-1],
        "changed": whole.replace(b"12345", b"12346"),
        "no time": re.sub(rb'"confirmed": [\d.]+', b'"confirmed": "today"', whole),
        "no etag": re.sub(rb'"etag": "[^,]*"', b'"etag": []', whole),
    }
    path.write_bytes(changed[damage] if isinstance(damage, str) else damage)
    assert reader(max_age=60).read_json(url) == {"x": 12345}
    assert len(server.requests) == 2
    assert reader(offline=True).read_json(url) == {"x": 12345}


def test_a_folder_that_was_deleted_is_created_again(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer, folder: Path
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    stac_io = reader()
    stac_io.read_json(url)
    for path in [*folder.rglob("*")][::-1]:
        path.rmdir() if path.is_dir() else path.unlink()
    stac_io.read_json(url)
    assert reader(offline=True).read_json(url) == {"x": 1}


def test_a_full_disk_does_not_fail_a_read(
    reader: Callable[..., GitLabStacIO],
    server: LoopbackServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = versioned(server, "/a.json", {"x": 1})
    stac_io = reader()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(document_cache.PartialFile, "write", full)
    assert stac_io.read_json(url) == {"x": 1}
    assert "/a.json: not kept in the cache: [Errno 28] No space left" in caplog.text


def test_the_documents_that_were_used_last_stay(server: LoopbackServer, folder: Path) -> None:
    cache = DocumentCache(folder, max_bytes=100_000, max_age=60)
    stac_io = GitLabStacIO(TOKEN, base_url=server.url, cache=cache)
    urls = [versioned(server, f"/{n}.json", {"x": "x" * 9000, "n": n}) for n in range(30)]
    stac_io.read_json(urls[0])
    [first] = files_in(folder)
    for n, url in enumerate(urls[1:], start=1):
        stac_io.read_json(url)
        for path in files_in(folder):
            # Files that are written within one tick of the clock have the same time.
            if path != first and path.stat().st_mtime > 1e9 + 1000:
                os.utime(path, (1e9 + n, 1e9 + n))
        stac_io.read_json(urls[0])
    assert sum(path.stat().st_size for path in files_in(folder)) <= 110_000
    offline = GitLabStacIO(TOKEN, base_url=server.url, cache=cache, offline=True)
    assert offline.read_json(urls[0])["n"] == 0
    assert offline.read_json(urls[-1])["n"] == 29
    with pytest.raises(OfflineError):
        offline.read_json(urls[1])


def test_a_document_that_would_fill_the_cache_is_not_kept(
    server: LoopbackServer, folder: Path
) -> None:
    cache = DocumentCache(folder, max_bytes=1000)
    url = versioned(server, "/a.json", {"x": "x" * 500})
    GitLabStacIO(TOKEN, base_url=server.url, cache=cache).read_json(url)
    assert files_in(folder) == []


def test_threads_share_a_cache(reader: Callable[..., GitLabStacIO], server: LoopbackServer) -> None:
    urls = [versioned(server, f"/{n}.json", {"n": n, "x": "x" * 50_000}) for n in range(8)]
    stac_io = reader()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: stac_io.read_json(urls[n % 8])["n"], range(160)))
    assert found == [n % 8 for n in range(160)]
    offline = reader(offline=True)
    assert [offline.read_json(url)["n"] for url in urls] == list(range(8))


READ_FOR_EVER = """
import sys
from stac_gitlab import GitLabStacIO
url, token, folder = sys.argv[1:]
stac_io = GitLabStacIO(token, base_url=url, cache=folder)
while True:
    for n in range(8):
        assert stac_io.read_json(f"{url}/{n}.json")["n"] == n
"""


def test_processes_that_are_killed_leave_complete_documents(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer, folder: Path
) -> None:
    arrived = threading.Semaphore(0)
    command = [sys.executable, "-c", READ_FOR_EVER, server.url, TOKEN, str(folder)]

    def serve(n: int) -> Callable[[RecordedRequest], Any]:
        def content(_: RecordedRequest) -> dict[str, Any]:
            arrived.release()
            return {"n": n, "x": "x" * 200_000}

        return content

    for n in range(8):
        server.route(f"/{n}.json", serve(n))
    for killed_after in (1, 9, 40):
        processes = [subprocess.Popen(command) for _ in range(2)]
        try:
            for _ in range(killed_after):
                assert arrived.acquire(timeout=60)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    held = 0
    offline = reader(offline=True)
    for n in range(8):
        try:
            assert offline.read_json(f"{server.url}/{n}.json")["n"] == n
            held += 1
        except OfflineError:
            continue
    assert held >= 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_reads_and_writes_the_same_cache(
    reader: Callable[..., GitLabStacIO], server: LoopbackServer
) -> None:
    a, b = (versioned(server, f"/{name}.json", {"x": name}) for name in "ab")
    stac_io = reader()
    stac_io.read_json(a)
    program = """
import multiprocessing, sys
from stac_gitlab import GitLabStacIO
url, token, folder = sys.argv[1:]
stac_io = GitLabStacIO(token, base_url=url, cache=folder)
stac_io.read_json(url + "/a.json")
child = multiprocessing.get_context("fork").Process(
    target=lambda: stac_io.read_json(url + "/b.json")
)
child.start()
child.join()
sys.exit(child.exitcode)
"""
    cache = os.fspath(stac_io.cache.folder)  # type: ignore[union-attr]
    subprocess.run([sys.executable, "-c", program, server.url, TOKEN, cache], check=True)
    assert reader(offline=True).read_json(b) == {"x": "b"}


def test_a_reader_without_a_cache_writes_nothing(server: LoopbackServer, tmp_path: Path) -> None:
    GitLabStacIO(TOKEN, base_url=server.url).read_json(versioned(server, "/a.json", {"x": 1}))
    assert list(tmp_path.iterdir()) == []
