"""Many items in one run, and one item as a folder that can be read on its own."""

from __future__ import annotations

import datetime as dt
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pystac
import pytest
from fault_server import FAULTS_TO_FAIL_OF, FAULTS_TO_SURVIVE, Gate, ServedFile
from sample_items import (
    BODY,
    SHA256,
    TOKEN,
    Conditional,
    files_in,
    item_of,
    leftovers_in,
    served,
)

from stac_gitlab import GitLabStacIO, STACDownloader
from stac_gitlab.download.content_version import FILE_NAME
from stac_gitlab.download.report import BatchReport, DownloadReport
from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    DownloadError,
    NotFoundError,
    NothingToDownloadWarning,
    UnsafePathError,
)
from stac_gitlab.testing import Fault, LoopbackServer, Project, SharingHubServer

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


def items_of(server: LoopbackServer, count: int, *keys: str) -> list[pystac.Item]:
    """Items `0`, `1` and so on, each with these assets."""
    for key in keys:
        server.route(f"/files/{key}", ServedFile(f"content of {key}".encode()))
    hrefs = {key: f"{server.url}/files/{key}" for key in keys}
    return [item_of(hrefs, item_id=str(number)) for number in range(count)]


def collection_of(items: Iterable[pystac.Item]) -> pystac.Collection:
    extent = pystac.Extent(
        pystac.SpatialExtent([[0, 0, 1, 1]]), pystac.TemporalExtent([[None, None]])
    )
    collection = pystac.Collection("lakes", "Lakes", extent)
    collection.add_items(items)
    return collection


# -- faults ----------------------------------------------------------------------------------------


def as_item(downloader: STACDownloader, item: pystac.Item, folder: Path) -> dict[str, bytes]:
    downloader.download_item(item, folder)
    return {key: (folder / key).read_bytes() for key in item.assets}


def as_items(downloader: STACDownloader, item: pystac.Item, folder: Path) -> dict[str, bytes]:
    report = downloader.download_items(iter([item]), folder)
    return {key: path.read_bytes() for key, path in report[item.id].paths.items()}


def as_collection(downloader: STACDownloader, item: pystac.Item, folder: Path) -> dict[str, bytes]:
    report = downloader.download_collection(collection_of([item]), folder)
    return {key: path.read_bytes() for key, path in report[item.id].paths.items()}


def in_executor(downloader: STACDownloader, item: pystac.Item, folder: Path) -> dict[str, bytes]:
    with ThreadPoolExecutor(2) as executor:
        report = downloader.download_assets(item, folder, executor=executor)
    return {key: path.read_bytes() for key, path in report.paths.items()}


def opened(downloader: STACDownloader, item: pystac.Item, folder: Path) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for key, asset in item.assets.items():
        with downloader.open(asset) as file:
            contents[key] = file.read()
    return contents


KINDS = [as_item, as_items, as_collection, in_executor, opened]
Kind = Callable[[STACDownloader, pystac.Item, Path], dict[str, bytes]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS_TO_SURVIVE.values(), ids=FAULTS_TO_SURVIVE)
def test_every_kind_of_download_survives_a_fault_that_occurs_once(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, fault: Fault, kind: Kind
) -> None:
    item = served(server, "good.csv", big=BODY)
    item.assets["big"].extra_fields["file:checksum"] = SHA256
    server.inject(Fault(**{**vars(fault), "path": "/big"}))
    assert kind(downloader, item, tmp_path) == {"good.csv": b"content of good.csv", "big": BODY}
    assert leftovers_in(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAULTS_TO_FAIL_OF)
def test_no_kind_of_download_saves_wrong_bytes_under_a_lasting_fault(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, name: str, kind: Kind
) -> None:
    item = served(server, big=BODY)
    item.assets["big"].extra_fields.update({"file:size": 40_000, "file:checksum": SHA256})
    fault, expected = FAULTS_TO_FAIL_OF[name]
    server.inject(Fault(**{**vars(fault), "times": None}))
    with pytest.raises(expected if kind is opened else DownloadError) as caught:
        kind(downloader, item, tmp_path)
    assert TOKEN not in str(caught.value)
    if kind is not opened:
        assert isinstance(next(iter(caught.value.errors.values())), expected)
    assert set(files_in(tmp_path)) <= {"group/lakes.json"}


# -- many items ------------------------------------------------------------------------------------


def test_each_item_has_a_folder_of_its_own(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    items = items_of(server, 3, "a.csv", "data/b.csv")
    items[2].id = "group/sub/lakes"
    items[1].collection_id = "dataset"
    report = downloader.download_items(items, tmp_path)
    assert set(files_in(tmp_path)) == {
        "no-collection/0/a.csv",
        "no-collection/0/data/b.csv",
        "dataset/1/a.csv",
        "dataset/1/data/b.csv",
        "no-collection/group/sub/lakes/a.csv",
        "no-collection/group/sub/lakes/data/b.csv",
    }
    assert list(report) == ["0", "1", "group/sub/lakes"]
    assert list(report["0"]) == ["a.csv", "data/b.csv"]
    assert report["1"].paths["a.csv"] == tmp_path / "dataset" / "1" / "a.csv"
    assert report.ok
    assert report.bytes == 3 * len("content of a.csv" + "content of data/b.csv")
    assert pickle.loads(pickle.dumps(report)) == report


def test_a_second_run_over_many_items_transfers_no_body(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    server.route("/a", Conditional(BODY, etag='"one"'))
    items = [item_of({"a": f"{server.url}/a"}, item_id=str(n)) for n in range(10)]
    downloader.download_items(items, tmp_path)
    server.clear_requests()
    report = downloader.download_items(items, tmp_path)
    assert all(result["a"].status == "skipped" for result in report.values())
    assert {request.status for request in server.requests} == {304}


def test_a_collection_of_a_hub_is_downloaded(tmp_path: Path) -> None:
    projects = [
        Project(f"group/lake-{n}", {"data/a.csv": b"%d" % n, "README.md": b"# Lake"})
        for n in range(12)
    ]
    with (
        SharingHubServer(projects, token=TOKEN) as hub,
        GitLabStacIO(TOKEN, base_url=hub.url, page_size=5) as stac_io,
    ):
        url = f"{hub.url}/api/stac/collections/dataset"
        collection = pystac.Collection.from_file(url, stac_io=stac_io)
        report = STACDownloader(stac_io=stac_io).download_collection(
            collection, tmp_path, template="{id}/{key}", include="data/*"
        )
    assert len(report) == 12
    assert files_in(tmp_path) == {
        f"group/lake-{n}/data/a.csv": b"%d" % n for n in sorted(range(12), key=str)
    }


@pytest.mark.parametrize("workers", [1, 4, None])
def test_items_are_read_as_they_are_needed(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, workers: int | None
) -> None:
    taken = 0
    gap = 0
    ready = items_of(server, 200, "a.csv")

    def items() -> Iterator[pystac.Item]:
        nonlocal taken, gap
        for item in ready:
            taken += 1
            gap = max(gap, taken - len([r for r in server.requests if r.status]))
            yield item

    downloader = STACDownloader(stac_io=downloader.stac_io, max_workers=workers)
    assert len(downloader.download_items(items(), tmp_path)) == 200
    assert gap <= (workers or 64) + 5


def test_a_large_item_does_not_delay_small_ones(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    [large] = items_of(server, 1, *(f"{n}.bin" for n in range(50)))
    small = items_of(server, 3, "a.csv")
    for item in small:
        item.id = f"small {item.id}"
    one = STACDownloader(stac_io=downloader.stac_io, max_workers=1)
    one.download_items([large, *small], tmp_path)
    asked = [request.path for request in server.requests]
    assert max(i for i, path in enumerate(asked) if path.endswith("csv")) < 10


def test_names_may_come_from_an_iterator(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    items = items_of(server, 3, "a.csv", "b.txt")
    downloader.download_items(items, tmp_path, include=(glob for glob in ["*.csv"]))
    assert [Path(name).name for name in files_in(tmp_path)] == ["a.csv"] * 3


def test_a_bad_item_does_not_stop_the_others(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    items = items_of(server, 6, "a.csv")
    items[0].id = "../evil"
    items[1].assets["gone.csv"] = pystac.Asset(f"{server.url}/gone", roles=["data"])
    items[2].assets = {"b": pystac.Asset("s3://bucket/b", roles=["data"])}
    items[3].assets["../evil"] = pystac.Asset(f"{server.url}/files/a.csv", roles=["data"])
    items[4].datetime = None
    items[4].properties["start_datetime"] = "the day before yesterday"
    with pytest.raises(DownloadError, match="4 assets of 6 items failed") as caught:
        downloader.download_items(iter(items), tmp_path)
    errors = caught.value.errors
    assert {name: type(error) for name, error in errors.items()} == {
        "../evil: a.csv": UnsafePathError,
        "1: gone.csv": NotFoundError,
        "2: b": DownloadError,
        "3: ../evil": UnsafePathError,
    }
    assert all(repr(name) in str(caught.value) for name in errors)
    report = caught.value.report
    assert isinstance(report, BatchReport)
    assert [entry.ok for entry in report.values()] == [False] * 4 + [True] * 2
    assert set(files_in(tmp_path)) == {f"no-collection/{n}/a.csv" for n in (1, 3, 4, 5)}
    assert isinstance(pickle.loads(pickle.dumps(caught.value)).report, BatchReport)


@pytest.mark.parametrize("start", [5, [], {}, True, "9" * 30, "10000-01-01", "0000-01-01T00:00Z"])
def test_an_item_with_an_invalid_start_is_undated(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, start: Any
) -> None:
    (item,) = items_of(server, 1, "a.csv")
    item.datetime = None
    item.properties["start_datetime"] = start
    downloader.download_items([item], tmp_path, template="{year}/{key}")
    assert set(files_in(tmp_path)) == {"undated/a.csv"}


def test_an_item_is_not_written_through_a_link(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "lakes.json").symlink_to(precious)
    report = downloader.download_item(served(server, "a.csv", item_id="lakes"), tmp_path / "out")
    assert precious.read_text() == "precious"
    assert report.item_path is not None
    assert not report.item_path.is_symlink()
    assert json.loads(report.item_path.read_text())["id"] == "lakes"


def test_an_item_with_too_long_a_path_is_a_download_error(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a.csv", item_id="/".join(["group" * 30] * 25))
    folder = tmp_path / "/".join(["f" * 200] * 5)
    folder.mkdir(parents=True)
    with pytest.raises(DownloadError, match="cannot be written"):
        downloader.download_item(item, folder)


def test_an_id_may_be_a_number(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a.csv")
    item.id = 5  # type: ignore[assignment]  # as pystac reads it from JSON
    assert downloader.download_item(item, tmp_path).item_path == tmp_path / "5.json"


@pytest.mark.parametrize(
    "item_id",
    [
        "..",
        "../x",
        "/etc",
        "a/../../x",
        "a//b",
        "",
        "C:\\x",
        "..\\x",
        "a\nb",
        "a\x00",
        "x" * 300,
        ".stac-gitlab-records.jsonl",
        "a/.stac-gitlab-x",
        "\u202egpj",
        "\ud800",
    ],
)
def test_an_unsafe_id_fails_its_own_item_only(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, item_id: str
) -> None:
    bad, good = items_of(server, 2, "a.csv")
    bad.id = item_id
    with pytest.raises(DownloadError) as caught:
        downloader.download_items([bad, good], tmp_path / "out")
    [error] = caught.value.errors.values()
    assert isinstance(error, UnsafePathError)
    assert set(files_in(tmp_path)) == {"out/no-collection/1/a.csv"}
    assert str(caught.value).replace("\n", "").isprintable()
    assert str(caught.value.report).replace("\n", "").isprintable()
    with pytest.raises(DownloadError):
        downloader.download_item(bad, tmp_path / "own")
    assert not (tmp_path / "own").exists() or files_in(tmp_path / "own") == {}


def test_a_key_that_looks_like_a_url_is_a_path_in_a_template_and_in_the_item_file(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    server.route("/a", b"a")
    item = item_of({"python://a.py": f"{server.url}/a"}, item_id="lakes")
    [path] = downloader.download_items([item], tmp_path / "many")["lakes"].paths.values()
    assert path.read_bytes() == b"a"
    assert path.name == "python%3A%2F%2Fa.py"
    saved = pystac.Item.from_file(str(downloader.download_item(item, tmp_path / "one").item_path))
    local = saved.assets["python://a.py"].get_absolute_href()
    assert Path(local or "").read_bytes() == b"a"


@pytest.mark.parametrize(
    "item_id", ["{key}", "{0}", "%s", "$HOME", "~", "a b", "été", "ab:c", "-rf", "ひ/み"]
)
def test_an_unusual_id_is_a_valid_name(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, item_id: str
) -> None:
    [item] = items_of(server, 1, "a.csv")
    item.id = item_id
    downloader.download_items([item], tmp_path)
    assert set(files_in(tmp_path)) == {f"no-collection/{item_id}/a.csv"}


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{key}", "a.csv"),
        ("{id}-{key}", "0-a.csv"),
        ("{collection}/{year}/{month}/{day}/{id}/{key}", "lakes/2020/01/01/0/a.csv"),
        ("all/{key}", "all/a.csv"),
        ("{{x}}/{key}", "{x}/a.csv"),
    ],
)
def test_a_template_sets_the_paths(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, template: str, path: str
) -> None:
    [item] = items_of(server, 1, "a.csv")
    item.collection_id = "lakes"
    downloader.download_items([item], tmp_path, template=template)
    assert set(files_in(tmp_path)) == {path}


@pytest.mark.parametrize(
    ("asset", "name"),
    [
        ({"href": "/S2/TCI.tif?sig=a/b.c"}, "TCI.tif"),
        ({"href": "/S2/with%20space.tar.gz#x"}, "with space.tar.gz"),
        ({"href": "/S2/TCI", "type": "image/tiff; application=geotiff"}, "TCI.tif"),
        ({"href": "/S2/TCI", "type": "text/csv"}, "TCI.csv"),
        ({"href": "/S2/TCI", "type": "unknown/unknown"}, "TCI"),
        ({"href": "/S2/TCI.tif", "file:local_path": "a/B04.tif"}, "B04.tif"),
        ({"href": "/S2/TCI.tif", "file:local_path": 5}, "TCI.tif"),
        ({"href": "/S2/", "type": "image/jp2"}, "visual.jp2"),
    ],
)
@pytest.mark.parametrize("template", ["{filename}", "{stem}{ext}"])
def test_a_template_can_use_the_name_of_the_file(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    asset: dict[str, Any],
    name: str,
    template: str,
) -> None:
    item = item_of({"visual": {**asset, "href": f"{server.url}{asset['href']}"}})
    report = downloader.download_items([item], tmp_path, template=template, dry_run=True)
    assert report["group/lakes"]["visual"].path == tmp_path / name


@pytest.mark.parametrize("href", ["/..", "/%2e%2e", "/a/..%2f..", "/x%00", "/C:%5cx"])
def test_the_name_of_a_file_does_not_lead_out_of_the_folder(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, href: str
) -> None:
    item = item_of({"a": f"{server.url}{href}"})
    with pytest.raises(DownloadError) as caught:
        downloader.download_items([item], tmp_path / "out", template="{filename}")
    [error] = caught.value.errors.values()
    assert isinstance(error, UnsafePathError)
    assert server.requests == []


def test_a_date_in_a_template_is_that_of_the_item(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    items = items_of(server, 2, "a.csv")
    for item in items:
        item.datetime = None
    items[0].common_metadata.start_datetime = dt.datetime(2019, 12, 31, tzinfo=dt.UTC)
    downloader.download_items(items, tmp_path, template="{year}-{month}-{day}/{key}")
    assert set(files_in(tmp_path)) == {"2019-12-31/a.csv", "undated-undated-undated/a.csv"}


def test_a_template_can_use_properties(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    items = items_of(server, 4, "a.csv")
    values = [("Sentinel-2/A", 10), ("S1", 0.5), ("../S1", 1), (["S1"], 1)]
    for item, (platform, cover) in zip(items, values, strict=True):
        item.properties.update({"platform": platform, "eo:cloud_cover": cover})
    del items[3].properties["platform"]
    template = "{properties[platform]}/{properties[eo:cloud_cover]:>3}-{key}"
    with pytest.raises(DownloadError) as caught:
        downloader.download_items(items, tmp_path, template=template)
    assert set(files_in(tmp_path)) == {"Sentinel-2/A/ 10-a.csv", "S1/0.5-a.csv"}
    assert isinstance(caught.value.errors["2: a.csv"], UnsafePathError)
    assert "the property 'platform' is missing" in str(caught.value.errors["3: a.csv"])
    items[3].properties["platform"] = ["S1"]
    with pytest.raises(DownloadError, match="the property 'platform' is a list"):
        downloader.download_items(items[3:], tmp_path, template=template)


@pytest.mark.parametrize(
    "template",
    [
        "{id}",
        "",
        "{key",
        "{}/{key}",
        "{0}/{key}",
        "{title}/{key}",
        "{id.__class__}/{key}",
        "{id[0]}/{key}",
        "{id:d}/{key}",
        "{key!x}",
        "{key:{id}}{title}",
        "{properties}/{key}",
        "{properties.keys}/{key}",
        "{properties[a][0]}/{key}",
        "{properties[a].__class__}/{key}",
        "{properties[]}/{key}",
        "{properties[a]}",
    ],
)
def test_an_invalid_template_is_rejected_at_once(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, template: str
) -> None:
    def never() -> Iterator[pystac.Item]:
        raise AssertionError("no item is needed to see that")
        yield

    with pytest.raises(ConfigurationError, match="template="):
        downloader.download_items(never(), tmp_path / "out", template=template)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("template", ["../{key}", "/{key}", "./{key}", "a//{key}"])
def test_a_template_that_leads_out_of_the_folder_downloads_nothing(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, template: str
) -> None:
    with pytest.raises(DownloadError, match="cannot be a file name"):
        downloader.download_items(items_of(server, 1, "a.csv"), tmp_path / "out", template=template)
    assert files_in(tmp_path) == {}
    assert server.requests == []


def test_an_option_that_does_not_exist_is_an_error(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"overwite": "always"}
    item = served(server, "a.csv")
    for call in (
        lambda: downloader.download_assets(item, tmp_path, **options),
        lambda: downloader.download_item(item, tmp_path, **options),
        lambda: downloader.download_items([], tmp_path, **options),
        lambda: downloader.download_collection(collection_of([]), tmp_path, **options),
    ):
        with pytest.raises(TypeError, match="unexpected keyword argument 'overwite'"):
            call()
    with pytest.raises(ConfigurationError, match="choose 'if-changed', "):
        downloader.download_items([], tmp_path, overwrite="sometimes")  # type: ignore[arg-type]


def test_a_path_of_an_earlier_item_is_an_error_of_the_later_one(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    items = items_of(server, 4, "b/c.csv", "d.csv")
    items[1].id, items[2].id = "1/b", "1"
    items[1].assets = {"c.csv": items[1].assets["b/c.csv"]}
    with pytest.raises(DownloadError, match=r"the same file.*'1/b: c\.csv' and '1: b/c") as caught:
        downloader.download_items(items, tmp_path)
    assert set(caught.value.errors) == {"1: b/c.csv", "1: d.csv"}
    assert "not started, because other names" in str(caught.value.errors["1: d.csv"])
    assert len(server.requests) == 5
    assert set(files_in(tmp_path)) == {
        "no-collection/0/b/c.csv",
        "no-collection/0/d.csv",
        "no-collection/1/b/c.csv",
        "no-collection/3/b/c.csv",
        "no-collection/3/d.csv",
    }


def test_an_id_that_is_not_text_is_converted(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    items = items_of(server, 2, "a.csv")
    items[0].id = items[0].collection_id = 7  # type: ignore[assignment]
    downloader.download_items(items, tmp_path)
    assert set(files_in(tmp_path)) == {"7/7/a.csv", "no-collection/1/a.csv"}


def test_items_with_the_same_id_have_different_names(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    items = items_of(server, 4, "a.csv")
    for item, collection in zip(items, ["one", "two", "two", "two"], strict=True):
        item.id, item.collection_id = "x", collection
    with pytest.raises(DownloadError) as caught:
        downloader.download_items(items, tmp_path)
    assert list(caught.value.report or ()) == ["x", "two/x", "two/x (2)", "two/x (3)"]
    assert set(caught.value.errors) == {"two/x (2): a.csv", "two/x (3): a.csv"}
    assert set(files_in(tmp_path)) == {"one/x/a.csv", "two/x/a.csv"}


class OwnError(Exception):
    pass


@pytest.mark.parametrize(
    "error", [OwnError(f"no more {TOKEN}"), pystac.STACError("no more"), DownloadError("no more")]
)
def test_items_before_a_reading_error_are_downloaded(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, error: Exception
) -> None:
    def items() -> Iterator[pystac.Item]:
        yield from items_of(server, 3, "a.csv")
        raise error

    with pytest.raises(DownloadError, match=r"failed after 3 items .*no more") as caught:
        downloader.download_items(items(), tmp_path)
    assert caught.value.__cause__ is error
    assert TOKEN not in str(caught.value)
    assert len(files_in(tmp_path)) == 3
    assert isinstance(caught.value.report, BatchReport)
    assert caught.value.report.ok


def test_the_error_of_an_incomplete_listing_is_the_cause(tmp_path: Path) -> None:
    projects = [Project(f"group/lake-{n}", {"a.csv": b"a"}) for n in range(9)]
    with (
        SharingHubServer(projects, token=TOKEN) as hub,
        GitLabStacIO(TOKEN, base_url=hub.url, page_size=3) as stac_io,
    ):
        url = f"{hub.url}/api/stac/collections/dataset"
        collection = pystac.Collection.from_file(url, stac_io=stac_io)
        hub.inject(Fault(path="/items$", status=401, after=1, times=None))
        with pytest.raises(DownloadError, match="Reading the items failed after 3 items") as caught:
            STACDownloader(stac_io=stac_io).download_collection(collection, tmp_path)
    assert isinstance(caught.value.__cause__, AuthenticationError)
    assert len(files_in(tmp_path)) == 3


@pytest.mark.parametrize("wrong", [None, "item.json", 7, {"type": "Feature"}])
def test_an_element_that_is_not_an_item_is_an_error(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, wrong: Any
) -> None:
    items = items_of(server, 2, "a.csv")
    with pytest.raises(DownloadError, match="an element of items has to be an item"):
        downloader.download_items([items[0], wrong, items[1]], tmp_path)
    assert set(files_in(tmp_path)) == {"no-collection/0/a.csv"}


def test_an_empty_iterable_gives_an_empty_report(
    downloader: STACDownloader, tmp_path: Path
) -> None:
    report = downloader.download_items([], tmp_path)
    assert (len(report), report.ok, report.bytes, str(report)) == (0, True, 0, "empty")


def test_items_without_a_selected_asset_are_a_warning(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    items = items_of(server, 3, "a.csv")
    with pytest.warns(NothingToDownloadWarning, match="None of 3 items"):
        report = downloader.download_items(items, tmp_path, roles="weights")
    assert list(report) == ["0", "1", "2"]
    del items[0].assets["a.csv"].roles
    items[1].assets["a.csv"].roles = ["weights"]
    assert downloader.download_items(items[1:], tmp_path, roles="weights").ok


def test_fail_fast_reads_no_further_items(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    for broken in ("gone", "../evil"):
        ready = items_of(server, 100, "a.csv")
        ready[2].add_asset(broken, pystac.Asset(f"{server.url}/gone", roles=["data"]))
        waiting = iter(ready)
        one = STACDownloader(stac_io=downloader.stac_io, max_workers=1)
        with pytest.raises(DownloadError):
            one.download_items(waiting, tmp_path / broken.strip("./"), fail_fast=True)
        assert len(list(waiting)) > 80


def test_a_dry_run_over_many_items_sends_no_request_and_writes_nothing(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    items = items_of(server, 3, "a.csv")
    for item in items:
        item.assets["a.csv"].extra_fields["file:size"] = 1000
    report = downloader.download_items(items, tmp_path / "out", dry_run=True)
    assert report.bytes == 3000
    assert str(report).splitlines()[0] == "0: 1 planned (1.0 kB)"
    assert server.requests == []
    assert not (tmp_path / "out").exists()


def test_an_item_that_does_not_fit_on_the_disk_fails_alone(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
) -> None:
    items = items_of(server, 3, "a.csv")
    items[1].assets["a.csv"].extra_fields["file:size"] = 10**15
    items[2].assets["a.csv"].extra_fields["file:size"] = len("content of a.csv")
    with pytest.raises(DownloadError, match=r"1000\.0 TB are needed"):
        downloader.download_items(items, tmp_path)
    assert set(files_in(tmp_path)) == {f"no-collection/{n}/a.csv" for n in (0, 2)}


def test_many_items_in_an_executor(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(3) as executor:
        report = downloader.download_items(
            items_of(server, 30, "a.csv", "b.csv"), tmp_path, executor=executor
        )
    assert len(report) == 30
    assert len(files_in(tmp_path)) == 60


def test_progress_names_the_item_of_each_asset(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    class RecordingProgress:
        def __init__(self) -> None:
            self.files = 0
            self.received: dict[str, int] = {}
            self.ended: dict[str, int | None] = {}

        def expect(self, files: int, size: int | None) -> None:
            self.files += files

        def advance(self, key: str, received: int, total: int | None) -> None:
            self.received[key] = received

        def done(self, key: str, size: int | None) -> None:
            assert key not in self.ended
            self.ended[key] = size

    progress = RecordingProgress()
    downloader.progress = progress
    downloader.download_items(items_of(server, 3, "a.csv"), tmp_path)
    assert progress.files == 3
    assert progress.received == progress.ended == {f"{n}: a.csv": 16 for n in range(3)}


STOPPED_IN_A_BATCH = textwrap.dedent("""
    import datetime, itertools, json, sys, threading, time
    import pystac
    from stac_gitlab import STACDownloader

    url, folder = sys.argv[1:]

    def items():
        for number in itertools.count():
            item = pystac.Item(str(number), None, None, datetime.datetime(2020, 1, 1), {})
            item.add_asset("a", pystac.Asset(f"{url}/{'good' if number < 3 else 'slow'}"))
            yield item

    try:
        STACDownloader(base_url=url).download_items(items(), folder, roles=None)
    except KeyboardInterrupt:
        others = [t for t in threading.enumerate() if t is not threading.main_thread()]
        for thread in others:
            thread.join(1)  # one that was just being started when the signal came
        print(json.dumps([time.time(), [t.name for t in others if t.is_alive()]]))
""")


@posix_only
def test_an_interrupt_ends_a_batch_within_a_second(server: LoopbackServer, tmp_path: Path) -> None:
    gate = Gate(BODY)
    server.route("/good", b"good")
    server.route("/slow", gate)
    command = [sys.executable, "-c", STOPPED_IN_A_BATCH, server.url, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        gate.wait_for(8, timeout=30)
        sent = time.time()
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=20)
    finally:
        gate.open()
        child.kill()
        child.communicate()
    at, threads = json.loads(out)
    assert at - sent < 2.5
    assert threads == []
    assert files_in(tmp_path) == {f"no-collection/{n}/a": b"good" for n in range(3)}


def test_items_without_roles_are_a_warning_that_says_how_to_get_them(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    items = items_of(server, 3, "a.csv")
    for item in items[1:]:
        item.assets["a.csv"].roles = None
    with pytest.warns(NothingToDownloadWarning, match=r"2 of 3 items have no roles.*roles=None"):
        downloader.download_items(items, tmp_path)
    assert set(files_in(tmp_path)) == {"no-collection/0/a.csv"}
    downloader.download_items(items, tmp_path, roles=None)
    assert len(files_in(tmp_path)) == 3


# -- one item as a folder --------------------------------------------------------------------------


def test_pystac_reads_the_folder_of_an_item(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "data/a.csv", "b.csv")
    item.add_asset("thumb", pystac.Asset("../thumb.png", roles=["thumbnail"]))
    item.add_link(pystac.Link("license", "./LICENSE"))
    report = downloader.download_item(item, tmp_path / "out")
    assert isinstance(report, DownloadReport)
    assert report.item_path == tmp_path / "out" / "group" / "lakes.json"
    moved = tmp_path / "moved"
    (tmp_path / "out").rename(moved)
    local = pystac.Item.from_file(str(moved / "group" / "lakes.json"))
    assert local.id == "group/lakes"
    hrefs = {key: asset.href for key, asset in local.assets.items()}
    assert hrefs == {
        "data/a.csv": "../data/a.csv",
        "b.csv": "../b.csv",
        "thumb": f"{server.url}/thumb.png",
    }
    for key in report:
        path = Path(local.assets[key].get_absolute_href() or "")
        assert path.read_bytes() == f"content of {key}".encode()
    links = {link.rel: link.get_absolute_href() for link in local.links}
    assert links["derived_from"] == f"{server.url}/items/lakes"
    assert links["license"] == f"{server.url}/items/LICENSE"
    assert item.assets["b.csv"].href == f"{server.url}/files/b.csv"
    assert item.get_self_href() == f"{server.url}/items/lakes"


def test_the_folder_of_an_item_is_valid_and_needs_no_server(tmp_path: Path) -> None:
    project = Project("group/lakes", {"a.csv": b"a"})
    with SharingHubServer([project], token=TOKEN) as hub, STACDownloader(TOKEN, hub.url) as loader:
        item = loader.load_item("dataset", "group", "lakes")
        report = loader.download_item(item, tmp_path)
        hub.clear_requests()
        local = pystac.Item.from_file(str(report.item_path))
        local.properties["description"] = "An empty one, as hubs write it, is not valid."
        local.validate()
        assert local.get_root() is None
        assert local.get_parent() is None
        assert {link.rel for link in local.links} >= {"self", "collection", "derived_from"}
        assert hub.requests == []
    assert local.collection_id == "dataset"


def test_an_item_with_odd_file_names_can_be_downloaded_from_its_folder(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    keys = ["a#b.csv", "what?.csv", "100%.csv", "with space.csv", "ab:c.csv", "データ.csv"]
    contents = {key: key.encode() for key in keys}
    for number, key in enumerate(keys):
        server.route(f"/{number}", contents[key])
    hrefs = {key: f"{server.url}/{number}" for number, key in enumerate(keys)}
    report = downloader.download_item(item_of(hrefs, item_id="odd"), tmp_path / "out")
    local = pystac.Item.from_file(str(report.item_path))
    assert {asset.href for asset in local.assets.values()} == {f"./{key}" for key in keys}
    downloader.download_assets(local, tmp_path / "copy")
    assert files_in(tmp_path / "copy") == dict(sorted(contents.items()))


def test_the_default_folder_is_named_after_project_and_time(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    report = downloader.download_item(served(server, "a.csv"))
    [folder] = tmp_path.iterdir()
    assert re.fullmatch(r"lakes-\d{8}-\d{6}", folder.name)
    assert report.item_path == Path(folder.name, "group", "lakes.json")
    assert report.paths == {"a.csv": Path(folder.name, "a.csv")}


def test_no_secret_is_in_the_files_of_an_item(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "a.csv")
    leak = f"{server.url}/x?ref=main&gitlab_token={TOKEN}"
    item.assets["a.csv"].extra_fields["alternate"] = {"web": {"href": leak}}
    item.add_asset("other", pystac.Asset(leak, roles=["metadata"], description=f"see {leak}"))
    item.add_link(pystac.Link("related", leak))
    item.properties["note"] = f"the token is {TOKEN}"
    item.set_self_href(leak)
    downloader.stac_io.session.get(f"{server.url}/files/a.csv").close()
    downloader.download_item(item, tmp_path)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"derived_from" in written
    assert TOKEN.encode() not in written


def test_an_asset_with_the_path_of_the_item_file_is_an_error(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    for key in ("lakes.json", "lakes.json/part"):
        with pytest.raises(DownloadError, match="'the item itself'") as caught:
            downloader.download_item(served(server, key, item_id="lakes"), tmp_path / "out")
        assert set(caught.value.errors) == {key}
    with pytest.raises(DownloadError, match="'the item itself'"):
        downloader.download_item(served(server, "group", item_id="group/lakes"), tmp_path / "out")
    assert files_in(tmp_path) == {}
    assert server.requests == []


@pytest.mark.parametrize("on_error", ["keep", "remove"])
def test_an_item_is_written_although_an_asset_failed(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, on_error: Any
) -> None:
    item = served(server, "a.csv", "gone.csv", item_id="lakes")
    server.inject(Fault(path="gone", status=404))
    with pytest.raises(DownloadError, match=r"gone\.csv") as caught:
        downloader.download_item(item, tmp_path, on_error=on_error)
    report = caught.value.report
    assert isinstance(report, DownloadReport)
    assert report.item_path == tmp_path / "lakes.json"
    saved = json.loads((tmp_path / "lakes.json").read_text())
    hrefs = {key: asset["href"] for key, asset in saved["assets"].items()}
    kept = {"gone.csv": f"{server.url}/files/gone.csv"} if on_error == "keep" else {}
    assert hrefs == {"a.csv": "./a.csv", **kept}


@pytest.mark.parametrize("overwrite", ["if-changed", "always", "never", "error"])
def test_overwrite_applies_to_the_item_file(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, overwrite: Any
) -> None:
    (tmp_path / "lakes.json").write_bytes(b"old")
    item = served(server, "a.csv", item_id="lakes")
    if overwrite == "error":
        with pytest.raises(DownloadError, match=r"lakes\.json.*exists already"):
            downloader.download_item(item, tmp_path, overwrite=overwrite)
        assert server.requests == []
    else:
        downloader.download_item(item, tmp_path, overwrite=overwrite)
    kept = overwrite in ("never", "error")
    assert ((tmp_path / "lakes.json").read_bytes() == b"old") == kept


def test_a_dry_run_of_an_item_writes_nothing(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    report = downloader.download_item(served(server, "a.csv"), tmp_path / "out", dry_run=True)
    assert report["a.csv"].status == "planned"
    assert report.item_path is None
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [b"x", object()])
def test_an_item_that_is_not_valid_json_is_an_error(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, value: Any
) -> None:
    item = served(server, "a.csv")
    item.properties["odd"] = value
    with pytest.raises(DownloadError, match=r"cannot be written to .* as JSON") as caught:
        downloader.download_item(item, tmp_path)
    assert caught.value.report is not None
    assert set(files_in(tmp_path)) == {"a.csv"}


def test_the_error_for_an_item_that_cannot_be_written_names_its_path(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    (tmp_path / "lakes.json").mkdir()
    with pytest.raises(DownloadError, match=r"the item cannot be written to .*lakes\.json"):
        downloader.download_item(served(server, "a.csv", item_id="lakes"), tmp_path)
    assert (tmp_path / "a.csv").exists()


@posix_only
def test_an_item_is_not_written_through_a_link_that_leads_out(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "out" / "group").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafePathError, match="outside of it"):
        downloader.download_item(served(server, "a.csv"), tmp_path / "out")
    assert files_in(tmp_path / "outside") == {}
    assert server.requests == []


def test_a_second_run_of_an_item_transfers_no_body(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    server.route("/a", Conditional(BODY, etag='"one"'))
    item = item_of({"a": f"{server.url}/a"}, at=f"{server.url}/items/lakes")
    downloader.download_item(item, tmp_path)
    before = (tmp_path / "group" / "lakes.json").read_bytes()
    assert downloader.download_item(item, tmp_path)["a"].status == "skipped"
    assert (tmp_path / "group" / "lakes.json").read_bytes() == before
    assert [request.status for request in server.requests] == [200, 304]
    assert (tmp_path / FILE_NAME).exists()
