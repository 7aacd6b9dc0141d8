"""A catalog of downloaded items, which stock pystac reads without the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pystac
import pytest
from pystac.stac_io import DefaultStacIO
from sample_items import TOKEN, files_in, item_of, leftovers_in, served

from stac_gitlab import STACDownloader
from stac_gitlab.download.report import BatchReport
from stac_gitlab.errors import ConfigurationError, DownloadError, IncompleteListingWarning
from stac_gitlab.testing import Fault, LoopbackServer, Project, SharingHubServer

FILES = {"a.csv": b"a", "data/b.csv": b"b"}


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    projects = [Project(f"group/sub/{name}", FILES) for name in ("lakes", "rivers")]
    with SharingHubServer(projects, token=TOKEN) as hub:
        yield hub


@pytest.fixture
def loader(hub: SharingHubServer) -> Iterator[STACDownloader]:
    with STACDownloader(TOKEN, hub.url) as loader:
        yield loader


def dataset(loader: STACDownloader, hub: SharingHubServer) -> pystac.Collection:
    return pystac.Collection.from_file(
        f"{hub.stac_url}/collections/dataset", stac_io=loader.stac_io
    )


def opened(folder: Path) -> pystac.Catalog:
    """Return the catalog of a folder, as stock pystac reads it."""
    return pystac.Catalog.from_file(str(folder / "catalog.json"), stac_io=DefaultStacIO())


def test_a_downloaded_collection_is_a_valid_catalog_that_needs_no_server(
    hub: SharingHubServer, loader: STACDownloader, tmp_path: Path
) -> None:
    report = loader.download_collection(dataset(loader, hub), tmp_path / "out", save_json=True)
    assert report.catalog_path == tmp_path / "out" / "catalog.json"
    hub.close()
    (tmp_path / "out").rename(tmp_path / "moved")
    catalog = opened(tmp_path / "moved")
    catalog.validate()
    [collection] = catalog.get_children()
    assert isinstance(collection, pystac.Collection)
    assert collection.id == "dataset"
    collection.validate()
    items = list(catalog.get_items(recursive=True))
    assert [item.id for item in items] == ["group/sub/lakes", "group/sub/rivers"]
    for item in items:
        item.properties["description"] = "An empty one, as hubs write it, is not valid."
        item.validate()
        assert item.get_collection() is collection
        assert item.get_root() is catalog
        for key, content in FILES.items():
            assert Path(item.assets[key].get_absolute_href() or "").read_bytes() == content
    written = b"".join(files_in(tmp_path / "moved").values())
    assert TOKEN.encode() not in written


def test_each_report_names_the_file_of_its_item(
    hub: SharingHubServer, loader: STACDownloader, tmp_path: Path
) -> None:
    items = list(dataset(loader, hub).get_items())
    report = loader.download_items(pystac.ItemCollection(items), tmp_path, save_json=True)
    for item_id, one in report.items():
        assert one.item_path == tmp_path / "dataset" / f"{item_id}.json"
        assert pystac.Item.from_file(str(one.item_path)).id == item_id


def test_the_collection_of_an_item_without_a_reader_is_read_with_the_token(
    hub: SharingHubServer, loader: STACDownloader, tmp_path: Path
) -> None:
    [item, *_] = dataset(loader, hub).get_items()
    found = pystac.ItemCollection([item.to_dict(transform_hrefs=False)])
    loader.download_items(found, tmp_path, save_json=True)
    [collection] = opened(tmp_path).get_children()
    assert (collection.id, [one.id for one in collection.get_items()]) == ("dataset", [item.id])


def test_a_remote_item_does_not_name_a_local_collection(
    hub: SharingHubServer, loader: STACDownloader, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.json"
    collection = dataset(loader, hub)
    secret.write_text(json.dumps(collection.to_dict(transform_hrefs=False)))
    [item, *_] = collection.get_items()
    item.remove_links("collection")
    item.add_link(pystac.Link("collection", secret.as_uri()))
    loader.download_items([item], tmp_path / "out", save_json=True)
    assert not list(opened(tmp_path / "out").get_children())


def test_nothing_but_assets_is_written_by_default(
    hub: SharingHubServer, loader: STACDownloader, tmp_path: Path
) -> None:
    report = loader.download_collection(dataset(loader, hub), tmp_path)
    assert report.catalog_path is None
    assert not list(tmp_path.rglob("*.json"))


def test_a_dry_run_writes_no_catalog(
    hub: SharingHubServer, loader: STACDownloader, tmp_path: Path
) -> None:
    loader.download_collection(dataset(loader, hub), tmp_path / "o", save_json=True, dry_run=True)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("on_error", ["keep", "remove"])
def test_a_failed_asset_costs_neither_its_siblings_nor_its_item(
    hub: SharingHubServer, loader: STACDownloader, tmp_path: Path, on_error: Any
) -> None:
    collection = dataset(loader, hub)
    hub.inject(Fault(path="lakes/repository/a.csv", status=404, times=None))
    with pytest.raises(DownloadError, match=r"a\.csv") as caught:
        loader.download_collection(collection, tmp_path, save_json=True, on_error=on_error)
    report = caught.value.report
    assert isinstance(report, BatchReport)
    assert report.catalog_path == tmp_path / "catalog.json"
    items = {item.id: item for item in opened(tmp_path).get_items(recursive=True)}
    assert set(items) == {"group/sub/lakes", "group/sub/rivers"}
    lakes = items["group/sub/lakes"].assets
    assert Path(lakes["data/b.csv"].get_absolute_href() or "").read_bytes() == b"b"
    if on_error == "keep":
        assert lakes["a.csv"].href.startswith(f"{hub.url}/api/download/")
    else:
        assert "a.csv" not in lakes


def test_a_second_run_writes_nothing_new(
    hub: SharingHubServer, loader: STACDownloader, tmp_path: Path
) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}

    loader.download_collection(dataset(loader, hub), tmp_path, save_json=True)
    before = times()
    assert len(before) == 4
    loader.download_collection(dataset(loader, hub), tmp_path, save_json=True)
    assert times() == before
    assert leftovers_in(tmp_path) == []


def test_what_an_earlier_run_listed_stays_listed_while_it_exists(
    hub: SharingHubServer, loader: STACDownloader, tmp_path: Path
) -> None:
    lakes, rivers = dataset(loader, hub).get_items()
    loader.download_items([lakes], tmp_path, save_json=True)
    loader.download_items([rivers], tmp_path, save_json=True)
    ids = {item.id for item in opened(tmp_path).get_items(recursive=True)}
    assert ids == {"group/sub/lakes", "group/sub/rivers"}
    (tmp_path / "dataset" / "group" / "sub" / "lakes.json").unlink()
    loader.download_items([rivers], tmp_path, save_json=True)
    assert [item.id for item in opened(tmp_path).get_items(recursive=True)] == ["group/sub/rivers"]


def test_the_template_places_the_assets_only(
    hub: SharingHubServer, loader: STACDownloader, tmp_path: Path
) -> None:
    collection = dataset(loader, hub)
    loader.download_collection(collection, tmp_path, save_json=True, template="{id}-{filename}")
    for item in opened(tmp_path).get_items(recursive=True):
        for key, content in FILES.items():
            assert Path(item.assets[key].get_absolute_href() or "").read_bytes() == content


def test_items_without_a_collection_are_listed_in_the_catalog(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    # pystac cuts links at # and ?.
    items = [served(server, "a.csv", item_id=name) for name in ("one", "two#2", "x" * 255)]
    downloader.download_items(items, tmp_path, save_json=True)
    assert [item.id for item in opened(tmp_path).get_items()] == [item.id for item in items]


def test_a_collection_that_cannot_be_read_costs_only_its_own_file(
    hub: SharingHubServer, loader: STACDownloader, tmp_path: Path
) -> None:
    items = list(dataset(loader, hub).get_items())
    for item in items:
        item.set_collection(None)
        item.collection_id = "dataset"
        item.add_link(pystac.Link("collection", f"{hub.stac_url}/collections/gone"))
    with pytest.warns(IncompleteListingWarning, match="'dataset' cannot be read"):
        loader.download_items(items, tmp_path, save_json=True)
    listed = list(opened(tmp_path).get_items())
    assert [item.id for item in listed] == [item.id for item in items]
    [link] = listed[0].get_links("collection")
    assert link.target == f"{hub.stac_url}/collections/gone"


def test_an_item_whose_file_cannot_be_named_fails_without_its_assets(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    items = [served(server, "a.csv", item_id=name) for name in ("one", "two")]
    items[1].id = "one"
    with pytest.raises(DownloadError, match="the same file") as caught:
        downloader.download_items(
            items, tmp_path, save_json=True, template="{key}", include="none", roles=None
        )
    assert caught.value.errors == {}
    assert [item.id for item in opened(tmp_path).get_items()] == ["one"]


def test_an_asset_with_the_path_of_the_catalog_is_an_error(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "catalog.json")
    with pytest.raises(DownloadError, match=r"'the catalog' and 'group/lakes: catalog\.json'"):
        downloader.download_items([item], tmp_path, save_json=True, template="{key}")
    assert server.requests == []


def test_a_file_that_is_no_catalog_is_not_replaced(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    (tmp_path / "catalog.json").write_text('["mine"]')
    with pytest.raises(DownloadError, match="is not a STAC catalog"):
        downloader.download_items([served(server, "a.csv")], tmp_path, save_json=True)
    assert files_in(tmp_path) == {"catalog.json": b'["mine"]'}
    assert server.requests == []


@pytest.mark.parametrize("overwrite", ["never", "error"])
def test_overwrite_applies_to_the_files_of_items(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, overwrite: Any
) -> None:
    item = served(server, "a.csv", item_id="lakes")
    place = tmp_path / "no-collection" / "lakes.json"
    place.parent.mkdir()
    place.write_text("old")
    options: Any = {"save_json": True, "overwrite": overwrite}
    if overwrite == "error":
        with pytest.raises(DownloadError, match=r"lakes\.json.*exists already"):
            downloader.download_items([item], tmp_path, **options)
    else:
        downloader.download_items([item], tmp_path, **options)
    assert place.read_text() == "old"
    assert (tmp_path / "no-collection" / "lakes" / "a.csv").exists()


def test_items_are_written_as_they_are_complete(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    hrefs = {"a.csv": f"{server.url}/files/a.csv"}
    served(server, "a.csv")
    seen: list[int] = []

    def items() -> Iterator[pystac.Item]:
        for number in range(200):
            seen.append(len(list(tmp_path.rglob("*.json"))))
            yield item_of(hrefs, item_id=str(number))

    downloader.download_items(items(), tmp_path, save_json=True)
    assert seen[-1] > 50
    assert len(json.loads((tmp_path / "catalog.json").read_text())["links"]) == 201


def test_on_error_is_checked(downloader: STACDownloader, tmp_path: Path) -> None:
    bad: Any = "drop"
    with pytest.raises(ConfigurationError, match=r"on_error='drop': choose 'keep' or 'remove'\."):
        downloader.download_items([], tmp_path, on_error=bad)
    with pytest.raises(ConfigurationError, match="on_error"):
        downloader.download_item(item_of({}), tmp_path, on_error=bad)
