"""What the caller wishes for, made jobs: where from, where to, and whether there is room."""

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
    """A disk with room for less than two files."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, 70_000))


def sized(server: LoopbackServer, *keys: str) -> pystac.Item:
    """An item whose assets hold `BODY`, and say how large they are."""
    item = served(server, **dict.fromkeys(keys, BODY))
    for asset in item.assets.values():
        asset.extra_fields.update({"file:size": len(BODY), "file:checksum": SHA256})
    return item


# -- room -----------------------------------------------------------------------------------------


def test_what_has_no_room_is_not_begun(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, small_disk: None
) -> None:
    with pytest.raises(DownloadError, match=r"80\.0 kB are needed, but .* has only 70\.0 kB free"):
        downloader.download_assets(sized(server, "a", "b"), tmp_path)
    assert server.requests == []
    assert files_in(tmp_path) == {}


def test_what_is_there_already_needs_no_room(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, small_disk: None
) -> None:
    item = sized(server, "a", "b")
    downloader.download_assets(item, tmp_path, include="a")
    downloader.download_assets(item, tmp_path)
    assert set(files_in(tmp_path)) == {"a", "b"}
    (tmp_path / "a").write_bytes(b"other")
    downloader.download_assets(item, tmp_path, overwrite="never")


def test_what_is_replaced_needs_room_beside_the_old(
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


def test_what_an_earlier_run_left_has_its_room_already(
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
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, 60_000))
    assert downloader.download_assets(item, tmp_path)["a"].status == "resumed"
    assert files_in(tmp_path) == {"a": content}


def test_what_is_of_unknown_size_is_tried(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, small_disk: None
) -> None:
    assert downloader.download_assets(served(server, "a", "b"), tmp_path).ok


def test_a_disk_that_does_not_tell_its_room_is_tried(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_path: object) -> Usage:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(shutil, "disk_usage", refuse)
    assert downloader.download_assets(sized(server, "a"), tmp_path).ok


# -- where from -----------------------------------------------------------------------------------


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
def test_the_first_alternate_that_there_is_comes_home(
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
def test_alternates_that_are_none_are_passed_over(
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


def test_a_relative_href_is_resolved_for_an_asset_that_knows_no_owner(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    server.route("/items/a.csv", b"a")
    item = item_of({}, at=f"{server.url}/items/lakes")
    item.assets["a"] = pystac.Asset("./a.csv", roles=["data"])
    downloader.download_assets(item, tmp_path)
    assert files_in(tmp_path) == {"a": b"a"}


# -- where to -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["", "sometimes", None, True])
def test_overwrite_takes_one_of_four(
    downloader: STACDownloader, tmp_path: Path, wrong: Any
) -> None:
    with pytest.raises(ConfigurationError, match="'if-changed', 'always', 'never', 'error'"):
        downloader.download_assets(item_of({"a": "x"}), tmp_path / "out", overwrite=wrong)
    assert not (tmp_path / "out").exists()


def test_where_names_collide_every_asset_says_why_it_did_not_come(
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


def test_neither_a_header_nor_a_field_nor_an_href_chooses_a_path(
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
