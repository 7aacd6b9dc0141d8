"""Items and options made tasks: sources, targets and disk space."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import fault_server as faulty
import pystac
import pytest
from fault_server import ServedFile
from sample_items import BODY, SHA256, TOKEN, files_in, item_of, multihash_of, served

from stac_gitlab import RetryPolicy, STACDownloader
from stac_gitlab.errors import ConfigurationError, DownloadError
from stac_gitlab.testing import Fault, LoopbackServer


class Usage(NamedTuple):
    """What `shutil.disk_usage` returns."""

    total: int
    used: int
    free: int


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with space for less than two files."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(70_000, 0, 70_000))


def sized(server: LoopbackServer, *keys: str) -> pystac.Item:
    """An item whose assets contain `BODY`, with their sizes."""
    item = served(server, **dict.fromkeys(keys, BODY))
    for asset in item.assets.values():
        asset.extra_fields.update({"file:size": len(BODY), "file:checksum": SHA256})
    return item


# -- disk space ------------------------------------------------------------------------------------


def test_files_that_do_not_fit_on_the_disk_are_not_started(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, small_disk: None
) -> None:
    with pytest.raises(DownloadError, match=r"80\.0 kB are needed, but .* has only 70\.0 kB free"):
        downloader.download_assets(sized(server, "a", "b"), tmp_path)
    assert server.requests == []
    assert files_in(tmp_path) == {}


def test_an_existing_file_needs_no_space(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, small_disk: None
) -> None:
    item = sized(server, "a", "b")
    downloader.download_assets(item, tmp_path, include="a")
    downloader.download_assets(item, tmp_path)
    assert set(files_in(tmp_path)) == {"a", "b"}
    (tmp_path / "a").write_bytes(b"other")
    downloader.download_assets(item, tmp_path, overwrite="never")


def test_a_replaced_file_needs_space_beside_the_old_one(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, small_disk: None
) -> None:
    item = sized(server, "a", "b")
    for key in item.assets:
        (tmp_path / key).write_bytes(b"old")
    with pytest.raises(DownloadError, match=r"80\.0 kB are needed"):
        downloader.download_assets(item, tmp_path)
    for key in item.assets:
        (tmp_path / key).write_bytes(BODY)
    assert downloader.download_assets(item, tmp_path).skipped
    with pytest.raises(DownloadError, match=r"80\.0 kB are needed"):
        downloader.download_assets(item, tmp_path, overwrite="always")


def test_a_partial_file_takes_part_of_the_space_already(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = BODY * 30
    server.route("/a", ServedFile(content))
    fields = {"file:size": len(content), "file:checksum": multihash_of(content)}
    item = item_of({"a": {"href": f"{server.url}/a", **fields}})
    server.inject(faulty.cut(1_150_000))
    server.inject(Fault(drop=True))
    policy = RetryPolicy(max_attempts=1, backoff_base=0)
    with (
        STACDownloader(TOKEN, server.url, retry=policy) as hasty,
        pytest.raises(DownloadError),
    ):
        hasty.download_assets(item, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(60_000, 0, 60_000))
    assert downloader.download_assets(item, tmp_path)["a"].status == "resumed"
    assert files_in(tmp_path) == {"a": content}


def test_files_of_unknown_size_are_downloaded(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, small_disk: None
) -> None:
    assert downloader.download_assets(served(server, "a", "b"), tmp_path).ok


def test_a_disk_that_does_not_report_its_space_is_used(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_path: object) -> Usage:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(shutil, "disk_usage", refuse)
    assert downloader.download_assets(sized(server, "a"), tmp_path).ok


# -- sources ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "came"),
    [
        ((), b"own"),
        (["s3", "https"], b"https"),
        (["mirror", "https"], b"mirror"),
        ("https", b"https"),
        (["relative"], b"relative"),
        (["missing", "broken", "empty"], b"own"),
    ],
)
def test_the_first_existing_alternate_is_downloaded(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, wanted: Any, came: bytes
) -> None:
    for name in ("own", "https", "mirror", "relative"):
        server.route(f"/items/{name}", name.encode())
    alternate = {
        "https": {"href": f"{server.url}/items/https"},
        "mirror": {"href": f"{server.url}/items/mirror"},
        "relative": {"href": "./relative"},
        "broken": "https://no.object/",
        "empty": {"href": ""},
    }
    asset = {"href": f"{server.url}/items/own", "alternate": alternate}
    item = item_of({"a": asset}, at=f"{server.url}/items/lakes")
    downloader.download_assets(item, tmp_path, alternates=wanted)
    assert files_in(tmp_path) == {"a": came}


@pytest.mark.parametrize("alternate", [None, [], "x", {"https": None}, {"https": {"href": 5}}])
def test_invalid_alternates_are_ignored(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, alternate: Any
) -> None:
    server.route("/own", b"own")
    item = item_of({"a": {"href": f"{server.url}/own", "alternate": alternate}})
    downloader.download_assets(item, tmp_path, alternates=["https"])
    assert files_in(tmp_path) == {"a": b"own"}


def test_a_preferred_alternate_of_another_scheme_names_a_tool(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    asset = {"href": f"{server.url}/own", "alternate": {"s3": {"href": "s3://bucket/a"}}}
    with pytest.raises(DownloadError, match="aws s3 cp"):
        downloader.download_assets(item_of({"a": asset}), tmp_path, alternates=["s3"])


def test_a_relative_href_of_an_asset_without_owner_is_resolved(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    server.route("/items/a.csv", b"a")
    item = item_of({}, at=f"{server.url}/items/lakes")
    item.assets["a"] = pystac.Asset("./a.csv", roles=["data"])
    downloader.download_assets(item, tmp_path)
    assert files_in(tmp_path) == {"a": b"a"}


# -- targets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["", "sometimes", None, True])
def test_overwrite_accepts_one_of_four_values(
    downloader: STACDownloader, tmp_path: Path, wrong: Any
) -> None:
    with pytest.raises(ConfigurationError, match="'if-changed', 'always', 'never' or 'error'"):
        downloader.download_assets(item_of({"a": "x"}), tmp_path / "out", overwrite=wrong)
    assert not (tmp_path / "out").exists()


def test_every_asset_of_an_item_with_colliding_names_has_an_error(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "data", "data/a.csv", "other.csv", "../evil")
    with pytest.raises(DownloadError, match="4 of 4 assets failed") as caught:
        downloader.download_assets(item, tmp_path)
    why = {key: str(error) for key, error in caught.value.errors.items()}
    assert "would be the same file" in why["data"]
    assert "would be the same file" in why["data/a.csv"]
    assert "not started, because other names of the same item collide" in why["other.csv"]
    assert "leads out of the folder" in why["../evil"]
    assert server.requests == []


def test_neither_a_header_nor_a_field_nor_an_href_sets_the_path(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    hostile = {"content-disposition": 'attachment; filename="../../evil.csv"'}
    server.route("/x/..%2f..%2fevil.csv", b"a")
    server.route("/x/../../evil.csv", b"a", headers=hostile)
    asset = {
        "href": f"{server.url}/x/..%2f..%2fevil.csv",
        "file:local_path": "../evil.csv",
        "title": "../evil.csv",
    }
    downloader.download_assets(item_of({"a.csv": asset}), tmp_path / "out")
    assert files_in(tmp_path) == {"out/a.csv": b"a"}
