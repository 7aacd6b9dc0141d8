"""What a later run downloads, skips and resumes, and how runs share a folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fault_server as faulty
import pystac
import pytest
from fault_server import ServedFile
from sample_items import (
    BODY,
    SHA256,
    TOKEN,
    Conditional,
    files_in,
    item_of,
    leftovers_in,
    multihash_of,
    served,
)

from stac_gitlab import RetryPolicy, STACDownloader
from stac_gitlab.download.content_version import FILE_NAME
from stac_gitlab.download.git_blobs import tree_pages
from stac_gitlab.errors import ChecksumMismatchError, DownloadError
from stac_gitlab.http.deadline import Cancelled, Deadline, enforcing
from stac_gitlab.testing import Fault, GitLabServer, LoopbackServer, Project, SharingHubServer

DAY_ONE = "Wed, 01 Jan 2020 00:00:00 GMT"
DAY_TWO = "Thu, 02 Jan 2020 00:00:00 GMT"
OTHER = BODY[::-1]


def one_file(server: LoopbackServer, route: Any = None, **fields: Any) -> pystac.Item:
    """An item with one asset, `a`. Its content is `BODY` if there is no route."""
    server.route("/a", BODY if route is None else route)
    return item_of({"a": {"href": f"{server.url}/a", **fields}}, at=f"{server.url}/items/lakes")


# -- unchanged files -------------------------------------------------------------------------------

PROOFS: dict[str, tuple[Callable[[bytes], Any], Callable[[bytes], dict[str, Any]], list[int]]] = {
    "checksum": (
        lambda content: content,
        lambda content: {"file:size": len(content), "file:checksum": multihash_of(content)},
        [],
    ),
    "etag": (lambda content: Conditional(content, etag='"one"'), lambda _: {}, [304] * 50),
    "weak etag": (lambda content: Conditional(content, etag='W/"one"'), lambda _: {}, [304] * 50),
    "date": (lambda content: Conditional(content, modified=DAY_ONE), lambda _: {}, [304] * 50),
}


@pytest.mark.parametrize("proof", PROOFS.values(), ids=PROOFS)
def test_a_second_run_over_unchanged_files_transfers_no_body(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, proof: Any
) -> None:
    route, fields, statuses = proof
    contents = {f"data/{n}.bin": BODY[n : n + 1000] for n in range(50)}
    for key, content in contents.items():
        server.route(f"/{key}", route(content))
    item = item_of({k: {"href": f"{server.url}/{k}", **fields(c)} for k, c in contents.items()})
    assert len(downloader.download_assets(item, tmp_path).downloaded) == 50
    server.clear_requests()
    report = downloader.download_assets(item, tmp_path)
    assert len(report.skipped) == 50
    assert all(result.verified for result in report.values())
    assert report.bytes == 0
    assert [request.status for request in server.requests] == statuses
    assert files_in(tmp_path) == dict(sorted(contents.items()))


def requests_of_second_run(
    hub: SharingHubServer, folder: Path, item: pystac.Item, loader: STACDownloader
) -> list[str]:
    loader.download_assets(item, folder)
    hub.clear_requests()
    assert loader.download_assets(item, folder).downloaded == []
    return [request.path for request in hub.requests]


def test_one_listing_of_a_project_proves_that_its_files_are_unchanged(tmp_path: Path) -> None:
    files = {f"data/{n}.csv": b"%d" % n for n in range(120)}
    project = Project("group/lakes", {**files, "big.tif": BODY}, lfs=("*.tif",))
    with SharingHubServer([project], token=TOKEN) as hub, STACDownloader(TOKEN, hub.url) as loader:
        item = loader.load_item("dataset", "group", "lakes")
        assert (
            requests_of_second_run(hub, tmp_path, item, loader)
            == [f"/api/proxy/projects/{item.properties['sharinghub:id']}/repository/tree"] * 2
        )
        hub.clear_requests()
        (tmp_path / "data" / "7.csv").write_bytes(b"x")
        report = loader.download_assets(item, tmp_path)
        assert [result.key for result in report.downloaded] == ["data/7.csv"]
        assert len(hub.requests) == 3


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let every file in `tmp_path` be somebody else's who lets nobody read it."""
    real = Path.open

    def refusing(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if mode == "rb" and tmp_path in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, mode, *more, **named)

    monkeypatch.setattr(Path, "open", refusing)


@pytest.mark.usefixtures("unreadable")
def test_a_file_that_cannot_be_read_is_replaced(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(BODY)
    report = downloader.download_assets(one_file(server, **{"file:checksum": SHA256}), tmp_path)
    assert [result.status for result in report.values()] == ["downloaded"]


@pytest.mark.usefixtures("unreadable")
def test_a_file_of_a_project_that_cannot_be_read_is_replaced(tmp_path: Path) -> None:
    project = Project("group/lakes", {"a": BODY})
    (tmp_path / "a").write_bytes(BODY)
    with SharingHubServer([project], token=TOKEN) as hub, STACDownloader(TOKEN, hub.url) as loader:
        report = loader.download_assets(loader.load_item("dataset", "group", "lakes"), tmp_path)
    assert [result.status for result in report.values()] == ["downloaded"]


def test_a_file_in_gitlab_is_compared_with_the_listing_of_its_project(tmp_path: Path) -> None:
    with GitLabServer([Project("group/lakes", {"a b.csv": b"a"})], token=TOKEN) as gitlab:
        item = item_of({"a": gitlab.raw_url("group/lakes", "a b.csv")})
        with STACDownloader(TOKEN, gitlab.url) as loader:
            loader.download_assets(item, tmp_path)
            gitlab.clear_requests()
            assert loader.download_assets(item, tmp_path)["a"].status == "skipped"
        assert [r.path for r in gitlab.requests] == ["/api/v4/projects/group/lakes/repository/tree"]


def test_a_local_lfs_pointer_is_replaced_by_the_file(tmp_path: Path) -> None:
    project = Project("group/lakes", {"big.tif": BODY}, lfs=("*.tif",))
    with SharingHubServer([project], token=TOKEN) as hub, STACDownloader(TOKEN, hub.url) as loader:
        item = loader.load_item("dataset", "group", "lakes")
        pointer = f"oid sha256:{hashlib.sha256(BODY).hexdigest()}\nsize {len(BODY)}\n"
        (tmp_path / "big.tif").write_text(f"version https://git-lfs.github.com/spec/v1\n{pointer}")
        assert loader.download_assets(item, tmp_path)["big.tif"].status == "downloaded"
    assert files_in(tmp_path) == {"big.tif": BODY}


def test_a_listing_ends_with_the_last_file_that_is_needed(tmp_path: Path) -> None:
    project = Project("group/lakes", {f"{n:04}.csv": b"%d" % n for n in range(350)})
    with SharingHubServer([project], token=TOKEN) as hub, STACDownloader(TOKEN, hub.url) as loader:
        item = loader.load_item("dataset", "group", "lakes")
        item.assets = {"0150.csv": item.assets["0150.csv"]}
        assert len(requests_of_second_run(hub, tmp_path, item, loader)) == 2


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_file_that_changed_under_the_same_date_is_downloaded_again(
    tmp_path: Path, is_listed: bool
) -> None:
    project = Project("group/lakes", {"a.csv": b"old", "b.csv": b"b"})
    with SharingHubServer([project], token=TOKEN) as hub, STACDownloader(TOKEN, hub.url) as loader:
        if not is_listed:
            hub.inject(Fault(path="/tree", status=403, times=None))
        item = loader.load_item("dataset", "group", "lakes")
        loader.download_assets(item, tmp_path)
        project.files["a.csv"] = b"new"  # type: ignore[index]  # a dictionary
        statuses = [r.status for r in loader.download_assets(item, tmp_path).values()]
    assert statuses == ["downloaded", "skipped"]
    assert files_in(tmp_path) == {"a.csv": b"new", "b.csv": b"b"}


def test_the_pages_of_a_long_listing_are_each_requested_once(tmp_path: Path) -> None:
    project = Project("group/lakes", {f"{n:04}.csv": b"%d" % n for n in range(1250)})
    with SharingHubServer([project], token=TOKEN) as hub, STACDownloader(TOKEN, hub.url) as loader:
        url = f"{hub.url}/api/proxy/projects/101/repository/tree?recursive=true&per_page=100"
        pages = list(tree_pages(loader.stac_io.session, url))
    assert [path for page in pages for path in page] == sorted(project.files)
    asked = [int(request.query["page"]) for request in hub.requests]
    assert sorted(asked) == list(range(1, 14))


def test_a_listing_that_is_cancelled_ends_although_the_server_is_slow() -> None:
    project = Project("group/lakes", {f"{n:04}.csv": b"%d" % n for n in range(450)})
    stop = threading.Event()
    with SharingHubServer([project], token=TOKEN) as hub, STACDownloader(TOKEN, hub.url) as loader:
        url = f"{hub.url}/api/proxy/projects/101/repository/tree?recursive=true&per_page=100"
        with enforcing(Deadline(stop=stop)):
            pages = tree_pages(loader.stac_io.session, url)
            next(pages)
            hub.inject(Fault(path="/tree", delay=5, times=None))
            threading.Timer(0.1, stop.set).start()
            with pytest.raises(Cancelled):
                list(pages)


@pytest.mark.parametrize("page", [b"{}", b"[1]", b"[", b'[{"type": "blob"}]', b"null"])
def test_an_invalid_listing_is_ignored(tmp_path: Path, page: bytes) -> None:
    project = Project("group/lakes", {"a.csv": b"a"})
    with SharingHubServer([project], token=TOKEN) as hub, STACDownloader(TOKEN, hub.url) as loader:
        item = loader.load_item("dataset", "group", "lakes")
        loader.download_assets(item, tmp_path)
        hub.inject(Fault(path="/tree", body=page))
        hub.clear_requests()
        assert loader.download_assets(item, tmp_path)["a.csv"].status == "skipped"
        assert hub.requests[-1].path.endswith("/repository/a.csv")
        project.files["a.csv"] = b"b"  # type: ignore[index]  # a dictionary
        assert loader.download_assets(item, tmp_path)["a.csv"].status == "downloaded"


@pytest.mark.parametrize("has_record", [True, False])
def test_the_body_of_a_file_is_not_read_if_the_headers_state_its_checksum(
    tmp_path: Path, has_record: bool
) -> None:
    project = Project("group/lakes", {"a.tif": bytes(30_000_000)})
    with SharingHubServer([project], token=TOKEN) as hub, STACDownloader(TOKEN, hub.url) as loader:
        hub.inject(Fault(path="/tree", status=403, times=None))
        item = loader.load_item("dataset", "group", "lakes")
        loader.download_assets(item, tmp_path)
        if not has_record:
            (tmp_path / FILE_NAME).unlink()
        result = loader.download_assets(item, tmp_path)["a.tif"]
        assert (result.status, result.verified) == ("skipped", True)
        (tmp_path / "a.tif").write_bytes(bytes(29_999_999) + b"x")
        assert loader.download_assets(item, tmp_path)["a.tif"].status == "downloaded"
        last = [r for r in hub.requests if r.path.endswith("a.tif")]
    assert [r.abandoned for r in last] == [False, True, False]
    assert (tmp_path / "a.tif").read_bytes() == bytes(30_000_000)


def test_a_changed_etag_downloads_again(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    route = Conditional(BODY, etag='"one"')
    item = one_file(server, route)
    downloader.download_assets(item, tmp_path)
    route.content, route.etag = OTHER, '"two"'
    assert downloader.download_assets(item, tmp_path)["a"].status == "downloaded"
    assert files_in(tmp_path) == {"a": OTHER}
    assert downloader.download_assets(item, tmp_path)["a"].status == "skipped"


def test_a_changed_date_downloads_again(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    route = Conditional(BODY, modified=DAY_ONE)
    item = one_file(server, route)
    downloader.download_assets(item, tmp_path)
    route.content, route.modified = OTHER, DAY_TWO
    downloader.download_assets(item, tmp_path)
    assert files_in(tmp_path) == {"a": OTHER}


@pytest.mark.parametrize("field", ["file:checksum", "file:size"])
def test_changed_metadata_download_again(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, field: str
) -> None:
    longer = OTHER + b"!"
    old = {"file:size": len(BODY), "file:checksum": SHA256}
    new = {"file:size": len(longer), "file:checksum": multihash_of(longer)}
    downloader.download_assets(one_file(server, **{field: old[field]}), tmp_path)
    downloader.download_assets(one_file(server, longer, **{field: new[field]}), tmp_path)
    assert files_in(tmp_path) == {"a": longer}


def test_a_file_of_another_size_than_file_size_is_an_error(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = one_file(server, Conditional(BODY, etag='"one"'))
    downloader.download_assets(item, tmp_path)
    item.assets["a"].extra_fields["file:size"] = 7
    with pytest.raises(DownloadError, match="file:size is 7"):
        downloader.download_assets(item, tmp_path)


def test_another_href_downloads_again(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    downloader.download_assets(one_file(server, Conditional(BODY, etag='"one"')), tmp_path)
    server.route("/elsewhere", Conditional(OTHER, etag='"one"'))
    downloader.download_assets(item_of({"a": f"{server.url}/elsewhere"}), tmp_path)
    assert files_in(tmp_path) == {"a": OTHER}


def test_a_file_without_proof_is_downloaded_again(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = one_file(server, **{"file:size": len(BODY)})
    downloader.download_assets(item, tmp_path)
    assert downloader.download_assets(item, tmp_path)["a"].status == "downloaded"


# -- local changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"file:checksum": SHA256}], ids=["etag", "checksum"])
@pytest.mark.parametrize("changed", [b"short", OTHER, None], ids=["size", "content", "gone"])
def test_a_file_that_was_changed_locally_is_downloaded_again(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    fields: dict[str, Any],
    changed: bytes | None,
) -> None:
    item = one_file(server, Conditional(BODY, etag='"one"'), **fields)
    downloader.download_assets(item, tmp_path)
    (tmp_path / "a").unlink()
    if changed is not None:
        (tmp_path / "a").write_bytes(changed)
        os.utime(tmp_path / "a", ns=(1, 1))
    assert downloader.download_assets(item, tmp_path)["a"].status == "downloaded"
    assert files_in(tmp_path) == {"a": BODY}


def test_a_touched_file_is_compared_with_its_checksum(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = one_file(server, **{"file:checksum": SHA256})
    downloader.download_assets(item, tmp_path)
    server.clear_requests()
    os.utime(tmp_path / "a", ns=(1, 1))
    assert downloader.download_assets(item, tmp_path)["a"].status == "skipped"
    assert server.requests == []


def test_a_file_with_its_recorded_size_and_time_counts_as_unchanged(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = one_file(server, **{"file:checksum": SHA256})
    downloader.download_assets(item, tmp_path)
    before = (tmp_path / "a").stat().st_mtime_ns
    (tmp_path / "a").write_bytes(OTHER)
    os.utime(tmp_path / "a", ns=(before, before))
    assert downloader.download_assets(item, tmp_path)["a"].status == "skipped"
    downloader.download_assets(item, tmp_path, overwrite="always")
    assert files_in(tmp_path) == {"a": BODY}


@pytest.mark.parametrize(
    "rubbish",
    [
        None,
        b"",
        b"\x00\xff" * 100,
        b'{"path": "a", "size": "40000", "mtime_ns": 1, "source": "x"}\n',
        b'{"path": "a", "size": 40000, "mtime_ns": [], "source": null, "validator": 5}\n',
        b"[" * 100_000 + b"\n",
        b'["a"]\n"a"\n7\nnull\n',
    ],
    ids=["deleted", "empty", "binary", "texts", "types", "deep", "no objects"],
)
def test_unreadable_records_cost_a_download_only(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, rubbish: bytes | None
) -> None:
    item = one_file(server, Conditional(BODY, etag='"one"'))
    downloader.download_assets(item, tmp_path)
    (tmp_path / FILE_NAME).unlink()
    if rubbish is not None:
        (tmp_path / FILE_NAME).write_bytes(rubbish)
    assert downloader.download_assets(item, tmp_path)["a"].status == "downloaded"
    again = downloader.download_assets(item, tmp_path)["a"].status
    # What a line cut off in the middle runs into is lost with it.
    assert again == "skipped" or rubbish == b"\x00\xff" * 100


def test_invalid_lines_among_the_records_are_ignored(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = one_file(server, Conditional(BODY, etag='"one"'))
    downloader.download_assets(item, tmp_path)
    records = tmp_path / FILE_NAME
    records.write_bytes(b'{"path": "a"}\nnonsense\n' + records.read_bytes() + b'{"of": "others"}')
    assert downloader.download_assets(item, tmp_path)["a"].status == "skipped"


@pytest.mark.parametrize("where", ["folder", "link"])
def test_a_file_is_downloaded_although_it_cannot_be_recorded(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, where: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    if where == "folder":
        (folder / FILE_NAME).mkdir()
    else:
        (folder / FILE_NAME).symlink_to(tmp_path / "mine")
    item = one_file(server, Conditional(BODY, etag='"one"'))
    for _ in range(2):
        assert downloader.download_assets(item, folder)["a"].status == "downloaded"
    assert (folder / "a").read_bytes() == BODY
    assert not (tmp_path / "mine").exists()


# -- overwrite -------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", ["always", "never", "error"])
def test_overwrite_decides_what_happens_to_an_existing_file(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, overwrite: Any
) -> None:
    item = one_file(server, Conditional(BODY, etag='"one"'), **{"file:checksum": SHA256})
    (tmp_path / "a").write_bytes(b"old")
    if overwrite == "error":
        with pytest.raises(DownloadError, match=r"'a'.*exists already"):
            downloader.download_assets(item, tmp_path, overwrite=overwrite)
    else:
        result = downloader.download_assets(item, tmp_path, overwrite=overwrite)["a"]
        assert (result.status, result.verified) == (
            ("downloaded", True) if overwrite == "always" else ("skipped", False)
        )
    assert files_in(tmp_path) == {"a": BODY if overwrite == "always" else b"old"}
    assert len(server.requests) == (overwrite == "always")


@pytest.mark.parametrize("overwrite", ["if-changed", "always", "never", "error"])
def test_a_missing_file_is_downloaded_with_any_overwrite(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, overwrite: Any
) -> None:
    downloader.download_assets(one_file(server), tmp_path, overwrite=overwrite)
    assert files_in(tmp_path) == {"a": BODY}


def test_always_replaces_an_unchanged_file(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = one_file(server, Conditional(BODY, etag='"one"'))
    for _ in range(2):
        report = downloader.download_assets(item, tmp_path, overwrite="always")
        assert report["a"].status == "downloaded"
    assert [request.status for request in server.requests] == [200, 200]


# -- dry run ---------------------------------------------------------------------------------------


def test_a_dry_run_sends_no_request_writes_nothing_and_reports_bytes(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "unknown.csv", big=BODY)
    item.assets["big"].extra_fields["file:size"] = len(BODY)
    report = downloader.download_assets(item, tmp_path / "out", dry_run=True)
    assert [result.status for result in report.values()] == ["planned", "planned"]
    assert report.bytes == len(BODY)
    assert str(report).endswith("2 planned (40.0 kB and more)")
    assert server.requests == []
    assert not (tmp_path / "out").exists()


def test_a_dry_run_reports_unchanged_files_as_skipped(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = one_file(server, **{"file:checksum": SHA256, "file:size": len(BODY)})
    downloader.download_assets(item, tmp_path)
    before = sorted(tmp_path.iterdir())
    report = downloader.download_assets(item, tmp_path, dry_run=True)
    assert (report["a"].status, report.bytes) == ("skipped", 0)
    with pytest.raises(DownloadError, match="exists already"):
        downloader.download_assets(item, tmp_path, dry_run=True, overwrite="error")
    assert sorted(tmp_path.iterdir()) == before


# -- resuming in a later run -----------------------------------------------------------------------

BIG = random.Random(2).randbytes(3_000_000)
HALF = 1_500_000


def cut_run(server: LoopbackServer, item: pystac.Item, folder: Path) -> None:
    """A run that fails in the middle of the file."""
    server.inject(faulty.cut(HALF))
    server.inject(Fault(drop=True, times=None))
    once = RetryPolicy(max_attempts=1, backoff_base=0)
    with (
        STACDownloader(TOKEN, server.url, retry=once) as downloader,
        pytest.raises(DownloadError),
    ):
        downloader.download_assets(item, folder)
    server.clear_faults()
    server.clear_requests()


PROVABLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "etag": ({"etag": '"one"'}, {}),
    "date": ({"etag": None, "modified": DAY_ONE}, {}),
    "checksum": ({"etag": None}, {"file:checksum": multihash_of(BIG)}),
}


@pytest.mark.parametrize(("manners", "fields"), PROVABLE.values(), ids=PROVABLE)
def test_a_later_run_resumes_the_same_content(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    manners: dict[str, Any],
    fields: dict[str, Any],
) -> None:
    item = one_file(server, ServedFile(BIG, **manners), **fields)
    cut_run(server, item, tmp_path)
    assert not (tmp_path / "a").exists()
    assert leftovers_in(tmp_path)
    report = downloader.download_assets(item, tmp_path)
    assert report["a"].status == "resumed"
    assert files_in(tmp_path) == {"a": BIG}
    assert [request.status for request in server.requests] == [206]
    assert server.requests[0].headers["Range"] == f"bytes={HALF}-"
    assert leftovers_in(tmp_path) == []


UNPROVABLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({"etag": None}, {}),
    "weak etag": ({"etag": 'W/"one"'}, {}),
    "no ranges": ({"keeps_ranges": False}, {}),
    "another part": ({"span": lambda asked: range(len(asked))}, {}),
}


@pytest.mark.parametrize(("manners", "fields"), UNPROVABLE.values(), ids=UNPROVABLE)
def test_a_later_run_starts_over_without_proof_of_the_same_content(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    manners: dict[str, Any],
    fields: dict[str, Any],
) -> None:
    item = one_file(server, ServedFile(BIG, **manners), **fields)
    cut_run(server, item, tmp_path)
    report = downloader.download_assets(item, tmp_path)
    assert report["a"].status == "downloaded"
    assert files_in(tmp_path) == {"a": BIG}
    assert leftovers_in(tmp_path) == []


@pytest.mark.parametrize("keeps_if_range", [True, False])
def test_a_later_run_does_not_mix_two_contents(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, keeps_if_range: bool
) -> None:
    item = one_file(server, ServedFile(BIG))
    cut_run(server, item, tmp_path)
    new = ServedFile(BIG[::-1], etag='"two"', keeps_if_range=keeps_if_range)
    server.route("/a", new)
    downloader.download_assets(item, tmp_path)
    assert files_in(tmp_path) == {"a": BIG[::-1]}
    assert leftovers_in(tmp_path) == []


def test_a_leftover_of_another_url_is_not_resumed_although_the_etags_are_equal(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    cut_run(server, one_file(server, ServedFile(BIG)), tmp_path)
    server.route("/b", ServedFile(BIG[::-1]))
    item = item_of({"a": {"href": f"{server.url}/b"}}, at=f"{server.url}/items/lakes")
    assert downloader.download_assets(item, tmp_path)["a"].status == "downloaded"
    assert "Range" not in server.requests[0].headers
    assert files_in(tmp_path) == {"a": BIG[::-1]}
    assert leftovers_in(tmp_path) == []


@pytest.mark.parametrize("size", [None, "3000000", 3e6, True])
def test_a_leftover_whose_size_is_no_number_is_not_resumed(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, size: Any
) -> None:
    item = one_file(server, ServedFile(BIG))
    cut_run(server, item, tmp_path)
    [notes] = tmp_path.glob("*.json")
    notes.write_text(json.dumps({**json.loads(notes.read_text()), "size": size}))
    assert downloader.download_assets(item, tmp_path)["a"].status == "downloaded"
    assert "Range" not in server.requests[0].headers
    assert files_in(tmp_path) == {"a": BIG}


def test_without_verification_a_leftover_is_resumed_whatever_the_checksum(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = one_file(server, ServedFile(BIG), **{"file:checksum": multihash_of(OTHER)})
    cut_run(server, item, tmp_path)
    result = downloader.download_assets(item, tmp_path, verify=False)["a"]
    assert (result.status, result.checksum) == ("resumed", None)
    assert files_in(tmp_path) == {"a": BIG}


@pytest.mark.parametrize(("size", "is_kept"), [(2**20, True), (2**20 - 1, False)])
def test_a_part_of_a_file_of_at_least_one_mebibyte_is_kept(
    server: LoopbackServer, tmp_path: Path, size: int, is_kept: bool
) -> None:
    server.inject(faulty.cut(1000))
    server.inject(Fault(status=404))
    with (
        STACDownloader(TOKEN, server.url, retry=RetryPolicy(backoff_base=0)) as downloader,
        pytest.raises(DownloadError),
    ):
        downloader.download_assets(one_file(server, ServedFile(BIG[:size])), tmp_path)
    assert bool(leftovers_in(tmp_path)) is is_kept


def test_a_leftover_of_another_content_is_removed(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = one_file(server, ServedFile(BIG, etag=None), **{"file:checksum": multihash_of(BIG)})
    cut_run(server, item, tmp_path)
    assert leftovers_in(tmp_path)
    item = one_file(server, OTHER, **{"file:checksum": multihash_of(OTHER)})
    assert downloader.download_assets(item, tmp_path)["a"].status == "downloaded"
    assert [request.headers.get("Range") for request in server.requests] == [None]
    assert files_in(tmp_path) == {"a": OTHER}


def test_a_damaged_leftover_is_detected_by_the_checksum(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = one_file(server, ServedFile(BIG), **{"file:checksum": multihash_of(BIG)})
    cut_run(server, item, tmp_path)
    [part] = [name for name in leftovers_in(tmp_path) if name.endswith(".part")]
    (tmp_path / part).write_bytes(bytes(HALF))
    downloader.download_assets(item, tmp_path)
    assert files_in(tmp_path) == {"a": BIG}
    assert leftovers_in(tmp_path) == []


def test_a_leftover_is_compared_with_a_checksum_that_is_new(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    cut_run(server, one_file(server, ServedFile(BIG)), tmp_path)
    [part] = [name for name in leftovers_in(tmp_path) if name.endswith(".part")]
    (tmp_path / part).write_bytes(bytes(HALF))
    item = one_file(server, ServedFile(BIG), **{"file:checksum": multihash_of(BIG)})
    downloader.download_assets(item, tmp_path)
    assert files_in(tmp_path) == {"a": BIG}


@pytest.mark.parametrize("validator", ['"one"\r\nX-Evil: 1', '"\u20ac"', '"\0"'])
def test_a_leftover_with_an_invalid_validator_is_not_resumed(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, validator: str
) -> None:
    item = one_file(server, ServedFile(BIG))
    cut_run(server, item, tmp_path)
    [notes] = tmp_path.glob("*.json")
    notes.write_text(json.dumps({**json.loads(notes.read_text()), "etag": validator}))
    assert downloader.download_assets(item, tmp_path)["a"].status == "downloaded"
    assert files_in(tmp_path) == {"a": BIG}
    assert leftovers_in(tmp_path) == []


@pytest.mark.parametrize("validator", ['"one"\r\nX-Evil: 1', 5])
def test_an_invalid_validator_is_not_sent(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, validator: Any
) -> None:
    item = one_file(server, ServedFile(BIG), **{"file:checksum": multihash_of(BIG)})
    cut_run(server, item, tmp_path)
    [notes] = tmp_path.glob("*.json")
    notes.write_text(json.dumps({**json.loads(notes.read_text()), "etag": validator}))
    assert downloader.download_assets(item, tmp_path)["a"].status == "resumed"
    assert "If-Range" not in server.requests[0].headers
    assert files_in(tmp_path) == {"a": BIG}


def test_leftovers_that_cannot_be_removed_fail_no_download(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    item = one_file(server, ServedFile(BIG, etag=None), **{"file:checksum": multihash_of(BIG)})
    cut_run(server, item, tmp_path)

    def refuse(_leftover: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("stac_gitlab.files.partial_file.Leftover.remove", refuse)
    assert downloader.download_assets(item, tmp_path).ok


def test_a_body_with_a_wrong_checksum_leaves_no_partial_file(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = one_file(server, ServedFile(BIG), **{"file:checksum": SHA256})
    with pytest.raises(DownloadError) as caught:
        downloader.download_assets(item, tmp_path)
    assert isinstance(caught.value.errors["a"], ChecksumMismatchError)
    assert leftovers_in(tmp_path) == []


# -- concurrent runs -------------------------------------------------------------------------------

AT_THE_SAME_TIME = textwrap.dedent("""
    import json, sys
    import pystac
    from stac_gitlab import RetryPolicy, STACDownloader

    url, document = sys.argv[1:]
    item = pystac.Item.from_dict(json.loads(document))
    print("ready", flush=True)
    for folder in iter(sys.stdin.readline, ""):
        retry = RetryPolicy(max_attempts=9, backoff_base=0.001)
        with STACDownloader(base_url=url, retry=retry) as downloader:
            report = downloader.download_assets(item, folder.strip())
        print(len(report.paths), flush=True)
""")


def test_two_processes_share_a_folder_without_harm(server: LoopbackServer, tmp_path: Path) -> None:
    contents = {f"{n}.bin": BIG[n : n + 1_200_000] for n in range(4)}
    contents.update({f"{n}.csv": BIG[n : n + 900] for n in range(20)})
    for key, content in contents.items():
        server.route(f"/{key}", ServedFile(content, etag=f'"{key}"'))
    hrefs = {key: f"{server.url}/{key}" for key in contents}
    arguments = [server.url, json.dumps(item_of(hrefs).to_dict())]
    command = [sys.executable, "-c", AT_THE_SAME_TIME, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    children = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    chance = random.Random(3)
    try:
        assert [child.stdout.readline() for child in children] == ["ready\n"] * 2  # type: ignore[union-attr]
        for number in range(6):
            for _ in range(8):
                server.inject(faulty.cut(chance.randrange(1_200_000), path="bin"))
            folder = tmp_path / str(number)
            for child in children:
                child.stdin.write(f"{folder}\n")  # type: ignore[union-attr]
                child.stdin.flush()  # type: ignore[union-attr]
            ended = [child.stdout.readline() for child in children]  # type: ignore[union-attr]
            assert ended == [f"{len(contents)}\n"] * 2
            assert files_in(folder) == dict(sorted(contents.items()))
            assert leftovers_in(folder) == []
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_two_threads_share_a_folder_and_a_downloader_without_harm(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = one_file(server, ServedFile(BIG))
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(downloader.download_assets, item, tmp_path) for _ in range(4)]
    assert all(future.result().ok for future in futures)
    assert files_in(tmp_path) == {"a": BIG}


# -- secrets ---------------------------------------------------------------------------------------


def test_records_contain_neither_token_nor_url(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    server.route("/a", ServedFile(BODY))
    href = f"{server.url}/a?signature=s3cr3t-signature&gitlab_token={TOKEN}"
    downloader.download_assets(item_of({"a": href}), tmp_path)
    noted = (tmp_path / FILE_NAME).read_text("utf-8")
    assert '"path": "a"' in noted
    for secret in (TOKEN, "s3cr3t", "http", "127.0.0.1"):
        assert secret not in noted
