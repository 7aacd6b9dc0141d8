"""describe_assets adds what the bytes and the names of files say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pytest

from stac_gitlab import (
    ConfigurationError,
    DownloadError,
    GitLabStacIO,
    LFSPointerError,
    NotFoundError,
    RetryPolicy,
    STACDownloader,
    describe_assets,
)
from stac_gitlab.testing import Fault, LoopbackServer, SharingHubServer, sample_projects

CSV = b"id,area\n1,540\n" * 200
TOKEN = "glpat-describe-000001"
EXTENSION = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9\n"


def multihash(content: bytes) -> str:
    return "1220" + hashlib.sha256(content).hexdigest()


def item_with(**hrefs: str) -> pystac.Item:
    item = pystac.Item("lakes", None, None, datetime(2024, 1, 5, tzinfo=UTC), {})
    for key, href in hrefs.items():
        item.add_asset(key, pystac.Asset(href))
    return item


def facts_of(item: pystac.Item | pystac.Collection, key: str) -> tuple[Any, Any]:
    fields = item.assets[key].extra_fields
    return fields.get("file:size"), fields.get("file:checksum")


@pytest.fixture
def reader(server: LoopbackServer) -> Iterator[GitLabStacIO]:
    with GitLabStacIO(TOKEN, base_url=server.url, retry=RetryPolicy(max_attempts=2)) as stac_io:
        yield stac_io


def test_a_local_file_is_measured_and_hashed(tmp_path: Path) -> None:
    (tmp_path / "lakes.csv").write_bytes(CSV)
    item = item_with(table=str(tmp_path / "lakes.csv"))
    describe_assets(item)
    assert item.assets["table"].to_dict() == {
        "href": str(tmp_path / "lakes.csv"),
        "type": "text/csv",
        "roles": ["data"],
        "file:size": len(CSV),
        "file:checksum": multihash(CSV),
    }
    assert item.stac_extensions == [EXTENSION]


def test_a_saved_item_is_described_and_still_valid(tmp_path: Path) -> None:
    (tmp_path / "lakes.csv").write_bytes(CSV)
    item = item_with(table="./lakes.csv")
    item.set_self_href(str(tmp_path / "lakes.json"))
    describe_assets(item)
    assert facts_of(item, "table") == (len(CSV), multihash(CSV))


def test_the_assets_of_a_collection_are_described(tmp_path: Path) -> None:
    (tmp_path / "lakes.csv").write_bytes(CSV)
    extent = pystac.Extent(pystac.SpatialExtent([[0, 0, 1, 1]]), pystac.TemporalExtent([[None]]))
    collection = pystac.Collection("lakes", "Lakes", extent)
    collection.add_asset("table", pystac.Asset(str(tmp_path / "lakes.csv")))
    describe_assets(collection)
    assert facts_of(collection, "table") == (len(CSV), multihash(CSV))


def test_a_changed_file_is_described_anew_but_what_its_author_chose_stays(tmp_path: Path) -> None:
    path = tmp_path / "lakes.csv"
    path.write_bytes(b"old")
    item = item_with(table=str(path))
    item.assets["table"].media_type, item.assets["table"].roles = "text/x-lakes", ["source"]
    describe_assets(item)
    path.write_bytes(CSV)
    describe_assets(item)
    assert facts_of(item, "table") == (len(CSV), multihash(CSV))
    assert item.assets["table"].media_type == "text/x-lakes"
    assert item.assets["table"].roles == ["source"]


@pytest.mark.parametrize(
    ("href", "media_type", "roles"),
    [
        ("a/Extent.TIF", "image/tiff; application=geotiff", ["data"]),
        ("lakes.tar.gz", "application/gzip", ["data"]),
        ("lakes.geojson?version=2", "application/geo+json", ["data"]),
        ("lakes.parquet", "application/vnd.apache.parquet", ["data"]),
        ("images/preview.png", "image/png", ["overview"]),
        ("Thumbnail.jpg", "image/jpeg", ["thumbnail"]),
        ("README.md", "text/markdown", ["metadata"]),
        ("manifest.xml", "application/xml", ["metadata"]),
        ("lakes", None, ["data"]),
        ("lakes.strange", None, ["data"]),
    ],
)
def test_media_type_and_roles_follow_from_the_name(
    href: str, media_type: str | None, roles: list[str]
) -> None:
    item = item_with(asset=f"https://data.example.org/{href}")
    describe_assets(item)
    assert item.assets["asset"].media_type == media_type
    assert item.assets["asset"].roles == roles
    assert item.stac_extensions == []


def test_rules_for_roles_can_be_given() -> None:
    item = item_with(a="https://data.example.org/mask_1.tif", b="https://data.example.org/b.tif")
    describe_assets(item, roles={"MASK*": ["data", "cloud-mask"]})
    assert item.assets["a"].roles == ["data", "cloud-mask"]
    assert item.assets["b"].roles is None


def test_a_remote_file_is_not_requested_unless_asked(
    server: LoopbackServer, reader: GitLabStacIO
) -> None:
    server.route("/lakes.csv", CSV)
    item = item_with(table=server.url + "/lakes.csv")
    describe_assets(item, stac_io=reader)
    assert facts_of(item, "table") == (None, None)
    assert server.requests == []


@pytest.mark.parametrize("ranges", [True, False])
def test_the_headers_of_a_remote_file_say_its_size(
    server: LoopbackServer, reader: GitLabStacIO, *, ranges: bool
) -> None:
    server.route("/lakes", CSV, media_type="text/csv; charset=utf-8", ranges=ranges)
    item = item_with(table=server.url + "/lakes")
    describe_assets(item, remote="headers", stac_io=reader)
    assert facts_of(item, "table") == (len(CSV), None)
    assert item.assets["table"].media_type == "text/csv; charset=utf-8"
    assert [r.method for r in server.requests] == ["GET"]


def test_another_size_invalidates_the_checksum(
    server: LoopbackServer, reader: GitLabStacIO
) -> None:
    server.route("/lakes.csv", CSV, ranges=True)
    item = item_with(table=server.url + "/lakes.csv")
    old = {"file:size": 3, "file:checksum": multihash(b"old")}
    item.assets["table"].extra_fields.update(old)
    describe_assets(item, remote="headers", stac_io=reader)
    assert facts_of(item, "table") == (len(CSV), None)


def test_without_a_length_the_headers_say_nothing(
    server: LoopbackServer, reader: GitLabStacIO
) -> None:
    server.route("/lakes.csv", CSV)
    server.inject(Fault(chunked=True, times=None))
    item = item_with(table=server.url + "/lakes.csv")
    describe_assets(item, remote="headers", stac_io=reader)
    assert facts_of(item, "table") == (None, None)


@pytest.mark.parametrize("remote", ["headers", "download"])
def test_a_pointer_is_not_described_as_the_file(
    server: LoopbackServer, reader: GitLabStacIO, remote: Any
) -> None:
    server.route("/lakes.tif", POINTER, ranges=True)
    item = item_with(table=server.url + "/lakes.tif")
    before = item.to_dict()
    with pytest.raises(DownloadError) as caught:
        describe_assets(item, remote=remote, stac_io=reader)
    assert isinstance(caught.value.errors["table"], LFSPointerError)
    assert item.to_dict() == before


def test_an_empty_file_has_a_size(server: LoopbackServer, reader: GitLabStacIO) -> None:
    server.route("/empty.csv", b"", ranges=True)
    item = item_with(table=server.url + "/empty.csv")
    describe_assets(item, remote="headers", stac_io=reader)
    assert facts_of(item, "table") == (0, multihash(b""))


def test_a_remote_file_is_downloaded_for_its_checksum_and_not_kept(
    server: LoopbackServer, reader: GitLabStacIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server.route("/lakes.csv", CSV)
    server.inject(Fault(status=429, headers={"X-RateLimit-Reset": "1"}))
    item = item_with(table=server.url + "/lakes.csv", other="s3://bucket/other.csv")
    describe_assets(item, remote="download", stac_io=reader)
    assert facts_of(item, "table") == (len(CSV), multihash(CSV))
    assert facts_of(item, "other") == (None, None)
    assert item.assets["table"].href == server.url + "/lakes.csv"
    assert list(tmp_path.iterdir()) == []


def test_a_local_copy_describes_a_remote_asset(
    server: LoopbackServer, reader: GitLabStacIO, tmp_path: Path
) -> None:
    server.route("/lakes.csv", CSV)
    item = item_with(data=server.url + "/lakes.csv")
    report = STACDownloader(stac_io=reader).download_assets(item, tmp_path, roles=None)
    server.clear_requests()
    describe_assets(item, files=report.paths)
    assert facts_of(item, "data") == (len(CSV), multihash(CSV))
    assert server.requests == []


def test_what_contradicts_its_metadata_is_an_error(
    server: LoopbackServer, reader: GitLabStacIO
) -> None:
    server.route("/lakes.csv", CSV)
    item = item_with(table=server.url + "/lakes.csv")
    item.assets["table"].extra_fields["file:size"] = 3
    with pytest.raises(DownloadError, match="announces 2800 bytes, but file:size is 3"):
        describe_assets(item, remote="download", stac_io=reader)


def test_a_missing_remote_file_is_an_error(server: LoopbackServer, reader: GitLabStacIO) -> None:
    with pytest.raises(NotFoundError):
        describe_assets(item_with(table=server.url + "/none.csv"), remote="headers", stac_io=reader)


def test_a_server_cannot_have_local_files_described(
    server: LoopbackServer, reader: GitLabStacIO, tmp_path: Path
) -> None:
    path = tmp_path / "secret.csv"
    path.write_bytes(CSV)
    server.route("/item.json", json.dumps(item_with(table=path.as_uri()).to_dict()))
    item = pystac.Item.from_file(server.url + "/item.json", stac_io=reader)
    with pytest.raises(DownloadError, match="refers to a local file"):
        describe_assets(item, stac_io=reader)
    item.assets["table"].href = str(path)
    describe_assets(item, stac_io=reader)
    assert facts_of(item, "table") == (None, None)


def test_the_assets_of_a_hub_are_asked_for_with_the_token() -> None:
    with SharingHubServer(sample_projects(), token=TOKEN) as hub:
        stac_io = GitLabStacIO(TOKEN, base_url=hub.url)
        url = hub.item_url("alpine/lakes/lake-temperature")
        item = pystac.Item.from_file(url, stac_io=stac_io)
        for asset in item.assets.values():
            asset.extra_fields.pop("file:size", None)
        describe_assets(item, remote="headers", stac_io=stac_io)
        assert facts_of(item, "data/temperature.csv")[0] > 10_000
        assert TOKEN not in json.dumps(item.to_dict())


@pytest.mark.parametrize(
    "options",
    [
        {"remote": "head"},
        {"roles": ["data"]},
        {"roles": {"*": 3}},
        {"roles": {"*": [3]}},
        {"files": {"none": "a"}},
        {"files": {"table": 3}},
        {"files": {"table": "missing.csv"}},
    ],
    ids=str,
)
def test_arguments_that_make_no_sense_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        describe_assets(item_with(table="https://data.example.org/a.csv"), **options)


def test_only_items_and_collections_are_described() -> None:
    with pytest.raises(ConfigurationError, match="an item or a collection"):
        describe_assets(pystac.Catalog("a", "a"))  # type: ignore[arg-type]
