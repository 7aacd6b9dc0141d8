"""Mirrors of a SharingHub and of static catalogs, which stock pystac reads without a server."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pystac
import pytest
from hypothesis import given
from pystac.stac_io import DefaultStacIO
from pystac.validation import validate_all_dict
from stac_documents import a

from stac_gitlab import (
    ConfigurationError,
    DownloadError,
    GitLabStacIO,
    IncompleteListingWarning,
    MirrorReport,
    NothingToDownloadWarning,
    PartialItemWarning,
    RetryPolicy,
    ServerError,
    STACDownloader,
    UnreadableItemWarning,
    mirror,
)
from stac_gitlab.catalogs import mirror as mirror_module
from stac_gitlab.catalogs import mirror_writer
from stac_gitlab.catalogs.mirror_index import FILE_NAME
from stac_gitlab.catalogs.mirror_layout import id_of, name_of
from stac_gitlab.testing import Fault, LoopbackServer, Project, SharingHubServer

TOKEN = "glpat-do-not-show-this"
LAKES = Project("alpine/lakes", {"lakes.csv": b"lakes", "sub/more.csv": b"more"}, title="Lakes")
RIVERS = Project("alpine/rivers", {"rivers.csv": b"rivers"}, categories=("dataset", "ai-model"))
ITEMS = "collections/dataset/items"


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    with SharingHubServer([LAKES, RIVERS], token=TOKEN) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mirror"


def reader(server: LoopbackServer, **options: Any) -> GitLabStacIO:
    retry = RetryPolicy(max_attempts=2, backoff_base=0)
    return GitLabStacIO(TOKEN, base_url=server.url, retry=retry, **options)


def mirrored(hub: SharingHubServer, folder: Path, **options: Any) -> MirrorReport:
    with reader(hub, page_size=options.pop("page_size", 100)) as stac_io:
        return mirror(hub.stac_url, folder, stac_io=stac_io, **options)


def replaced(hub: SharingHubServer, *projects: Project) -> None:
    """Let a hub have other projects, at the same address."""
    port = hub.port
    hub.close()
    hub.__init__(projects, token=TOKEN)  # type: ignore[misc]  # another hub in its place
    hub.start(port)


def opened(folder: Path) -> pystac.Catalog:
    return pystac.Catalog.from_file(str(folder / "catalog.json"), stac_io=DefaultStacIO())


def items_in(folder: Path) -> dict[str, pystac.Item]:
    """Return the items, as stock pystac reads them, by the ids of collection and item."""
    items = opened(folder).get_items(recursive=True)
    return {f"{item.collection_id}/{item.id}": item for item in items}


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


# -- an API -------------------------------------------------------------------------------------


def test_a_mirror_is_a_valid_catalog_with_its_files_that_needs_no_server(
    hub: SharingHubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = mirrored(hub, folder)
    assert report.catalog_path == folder / "catalog.json"
    assert (report.new, report.changed, report.unchanged, report.gone) == (3, 0, 0, 0)
    assert report.is_complete
    hub.close()
    moved = folder.rename(folder.parent / "elsewhere")

    def no_network(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    catalog = opened(moved)
    assert catalog.validate_all() == 3
    # Here, pystac reads the files as they are, with their own STAC version.
    validate_all_dict(catalog.to_dict(), str(moved / "catalog.json"), DefaultStacIO())
    items = items_in(moved)
    assert sorted(items) == [
        "ai-model/alpine/rivers",
        "dataset/alpine/lakes",
        "dataset/alpine/rivers",
    ]
    lakes = items["dataset/alpine/lakes"]
    collection, parent = lakes.get_collection(), lakes.get_parent()
    assert collection is not None
    assert parent is not None
    assert collection.get_self_href() == parent.get_self_href()
    for key, content in LAKES.files.items():
        href = lakes.assets[key].get_absolute_href()
        assert href is not None
        assert Path(href).read_bytes() == content


def test_a_mirror_names_the_originals(hub: SharingHubServer, folder: Path) -> None:
    mirrored(hub, folder)
    item = items_in(folder)["dataset/alpine/lakes"]
    [origin] = item.get_links("derived_from")
    assert origin.href == hub.item_url("alpine/lakes")
    asset = item.assets["lakes.csv"]
    assert asset.href == "./alpine~2Flakes/lakes.csv"
    original = asset.extra_fields["alternate"]["origin"]["href"]
    assert original.startswith(hub.url)
    with STACDownloader(TOKEN, hub.url) as downloader:
        report = downloader.download_assets(item, folder.parent / "again", alternates=["origin"])
    assert report.paths["lakes.csv"].read_bytes() == b"lakes"
    assert opened(folder).get_links("derived_from")[0].href.rstrip("/") == hub.stac_url


def test_without_assets_hrefs_lead_to_the_server(hub: SharingHubServer, folder: Path) -> None:
    mirrored(hub, folder, assets=False)
    item = items_in(folder)["dataset/alpine/lakes"]
    assert item.assets["lakes.csv"].href.startswith(hub.url)
    assert "alternate" not in item.assets["lakes.csv"].extra_fields
    assert [name for name in files_in(folder) if name.endswith(".csv")] == []


def test_include_and_roles_select_assets(hub: SharingHubServer, folder: Path) -> None:
    mirrored(hub, folder, include="sub/*")
    assert [n for n in files_in(folder) if n.endswith(".csv")] == [
        "dataset/alpine~2Flakes/sub/more.csv"
    ]
    with pytest.warns(NothingToDownloadWarning):
        mirrored(hub, folder, roles="thumbnail")


def test_max_items_limits_all_collections_together(hub: SharingHubServer, folder: Path) -> None:
    report = mirrored(hub, folder, max_items=1, assets=False)
    assert report.new == 1
    assert not report.is_complete
    assert len(items_in(folder)) == 1
    assert mirrored(hub, folder, max_items=0, assets=False, prune=True).gone == 0
    assert len(items_in(folder)) == 1


def test_a_collection_can_be_the_root(hub: SharingHubServer, folder: Path) -> None:
    with reader(hub) as stac_io:
        collection = pystac.Collection.from_file(
            f"{hub.stac_url}/collections/dataset", stac_io=stac_io
        )
        report = mirror(collection, folder)
    assert report.catalog_path == folder / "collection.json"
    local = pystac.Collection.from_file(str(report.catalog_path), stac_io=DefaultStacIO())
    assert local.get_root() is local
    assert sorted(item.id for item in local.get_items()) == ["alpine/lakes", "alpine/rivers"]


# -- further runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("assets", [True, False])
def test_a_second_run_writes_and_downloads_nothing(
    hub: SharingHubServer, folder: Path, assets: bool
) -> None:
    mirrored(hub, folder, assets=assets)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*~*.json")}
    asked = len(hub.requests)
    report = mirrored(hub, folder, assets=assets)
    assert (report.new, report.changed, report.unchanged) == (0, 0, 3)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*~*.json")}
    downloads = [r for r in hub.requests[asked:] if "/download/" in r.path]
    assert {request.status for request in downloads} <= {304}


def test_new_changed_and_gone_items_are_found(hub: SharingHubServer, folder: Path) -> None:
    mirrored(hub, folder)
    peaks = Project("alpine/peaks", {"peaks.csv": b"peaks"})
    lakes = Project("alpine/lakes", {"lakes.csv": b"changed"}, title="Lakes of the Alps")
    replaced(hub, lakes, peaks)
    report = mirrored(hub, folder)
    assert report.ids == {
        "new": ("alpine/peaks",),
        "changed": ("alpine/lakes",),
        "gone": ("alpine/rivers", "alpine/rivers"),
    }
    items = items_in(folder)
    assert items["dataset/alpine/lakes"].properties["title"] == "Lakes of the Alps"
    # What is gone stays.
    assert "dataset/alpine/rivers" in items
    assert (folder / "dataset/alpine~2Frivers/rivers.csv").exists()

    report = mirrored(hub, folder, prune=True)
    assert (report.unchanged, report.gone) == (2, 2)
    assert set(items_in(folder)) == {"dataset/alpine/lakes", "dataset/alpine/peaks"}
    assert {name for name in files_in(folder) if not name.endswith("n.json")} == {
        "catalog.json",
        "dataset/alpine~2Flakes.json",
        "dataset/alpine~2Flakes/lakes.csv",
        "dataset/alpine~2Fpeaks.json",
        "dataset/alpine~2Fpeaks/peaks.csv",
    }
    assert mirrored(hub, folder, prune=True).gone == 0


def test_a_changed_file_is_downloaded_again_though_the_item_is_the_same(
    hub: SharingHubServer, folder: Path
) -> None:
    when = "2024-01-01T00:00:00Z"
    replaced(hub, Project("alpine/lakes", {"a.csv": b"old"}, created=when, updated=when))
    mirrored(hub, folder)
    replaced(hub, Project("alpine/lakes", {"a.csv": b"new"}, created=when, updated=when))
    report = mirrored(hub, folder)
    assert (report.changed, report.unchanged) == (1, 0)
    assert (folder / "dataset/alpine~2Flakes/a.csv").read_bytes() == b"new"


def test_a_removed_file_comes_back(hub: SharingHubServer, folder: Path) -> None:
    mirrored(hub, folder, assets=False)
    (folder / "dataset/alpine~2Flakes.json").unlink()
    mirrored(hub, folder, assets=False)
    assert "dataset/alpine/lakes" in items_in(folder)


def test_a_collection_that_is_gone_is_pruned_with_all_its_items(
    hub: SharingHubServer, folder: Path
) -> None:
    mirrored(hub, folder)
    del hub.categories["ai-model"]
    assert mirrored(hub, folder).ids["gone"] == ("alpine/rivers",)
    assert (folder / "ai-model").exists()
    mirrored(hub, folder, prune=True)
    assert not (folder / "ai-model").exists()
    assert [child.id for child in opened(folder).get_children()] == ["dataset"]


# -- what is incomplete -------------------------------------------------------------------------


def test_an_item_that_cannot_be_read_stays_while_others_are_pruned(
    hub: SharingHubServer, folder: Path
) -> None:
    mirrored(hub, folder, assets=False)
    bad = a("item", id="alpine/lakes", links=[5])
    page = {"type": "FeatureCollection", "features": [bad], "links": []}
    hub.inject(Fault(path=f"{ITEMS}$", status=200, body=page, times=None))
    with pytest.warns(UnreadableItemWarning, match="Left out item 'alpine/lakes'"):
        report = mirrored(hub, folder, assets=False, prune=True)
    assert (report.ids["gone"], report.is_complete) == (("alpine/rivers",), False)
    assert set(items_in(folder)) == {"dataset/alpine/lakes", "ai-model/alpine/rivers"}


def test_an_item_without_an_id_may_be_any_so_nothing_is_pruned(
    hub: SharingHubServer, folder: Path
) -> None:
    mirrored(hub, folder, assets=False)
    bad = {name: value for name, value in a("item").items() if name != "id"}
    page = {"type": "FeatureCollection", "features": [bad], "links": []}
    hub.inject(Fault(path=f"{ITEMS}$", status=200, body=page, times=None))
    with pytest.warns(UnreadableItemWarning, match="Left out an item without an id"):
        report = mirrored(hub, folder, assets=False, prune=True)
    assert (report.gone, report.is_complete) == (0, False)
    assert len(items_in(folder)) == 3


def test_a_short_form_of_an_item_does_not_replace_the_whole(
    hub: SharingHubServer, folder: Path
) -> None:
    peaks = Project("alpine/peaks", {"peaks.csv": b"peaks"})
    mirrored(hub, folder)
    before = (folder / "dataset/alpine~2Flakes.json").read_bytes()
    lakes, new = (Project(p.path, p.files, broken=True) for p in (LAKES, peaks))
    replaced(hub, lakes, RIVERS, new)
    for expected in ((1, 3), (0, 4)):
        with pytest.warns(PartialItemWarning) as caught:
            report = mirrored(hub, folder)
        assert len(caught) == 2
        assert (report.new, report.unchanged, report.changed) == (*expected, 0)
        assert (folder / "dataset/alpine~2Flakes.json").read_bytes() == before
        assert items_in(folder)["dataset/alpine/peaks"].properties["stac_gitlab:partial"] is True
    replaced(hub, LAKES, RIVERS, peaks)
    assert mirrored(hub, folder).changed == 1
    assert items_in(folder)["dataset/alpine/peaks"].assets["peaks.csv"].href.startswith("./")


def test_a_listing_that_ends_early_prunes_nothing(hub: SharingHubServer, folder: Path) -> None:
    mirrored(hub, folder, assets=False)
    page = {"type": "FeatureCollection", "features": [], "links": [], "numberMatched": 2}
    hub.inject(Fault(path=f"{ITEMS}$", status=200, body=page, times=None))
    with reader(hub) as stac_io:
        for _ in range(2):
            # The same reader warns once.
            with pytest.warns(IncompleteListingWarning) if _ == 0 else _nothing():
                report = mirror(hub.stac_url, folder, assets=False, prune=True, stac_io=stac_io)
            assert (report.gone, report.is_complete) == (0, False)
    assert "dataset/alpine/lakes" in items_in(folder)


class _nothing:  # noqa: N801  # reads like pytest.warns
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_what_was_read_before_an_error_is_in_the_mirror(
    hub: SharingHubServer, folder: Path
) -> None:
    fault = hub.inject(Fault(path=f"{ITEMS}$", status=502, after=1, times=None))
    with pytest.raises(ServerError):
        mirrored(hub, folder, page_size=1)
    assert len(items_in(folder)) >= 1
    fault.disarm()
    report = mirrored(hub, folder, page_size=1)
    assert report.new + report.unchanged == 3
    assert len(items_in(folder)) == 3


def test_a_failed_asset_keeps_its_remote_href_and_is_tried_again(
    hub: SharingHubServer, folder: Path
) -> None:
    hub.inject(Fault(path="/download/.*more", status=404, times=None))
    with pytest.raises(
        DownloadError, match=r"1 items .* incomplete[^\n]*\n  alpine/lakes: sub/more"
    ) as info:
        mirrored(hub, folder)
    assert list(info.value.errors) == ["alpine/lakes: sub/more.csv"]
    assert info.value.report.failed == 1
    assert info.value.report.new == 3
    assets = items_in(folder)["dataset/alpine/lakes"].assets
    assert assets["sub/more.csv"].href.startswith(hub.url)
    assert assets["lakes.csv"].href == "./alpine~2Flakes/lakes.csv"
    hub.faults.clear()
    report = mirrored(hub, folder)
    assert (report.changed, report.unchanged, report.failed) == (1, 2, 0)
    assert (folder / "dataset/alpine~2Flakes/sub/more.csv").read_bytes() == b"more"


CHILD = """
import sys
from stac_gitlab import GitLabStacIO, mirror
url, folder, token = sys.argv[1:]
print("ready", flush=True)
stac_io = GitLabStacIO(token, base_url=url, page_size=10)
print(mirror(f"{url}/api/stac", folder, stac_io=stac_io), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a matter of POSIX systems")
def test_a_run_that_is_killed_is_continued_by_the_next(folder: Path) -> None:
    projects = [Project(f"many/p{n:03}", {"x.csv": f"content {n}".encode()}) for n in range(60)]
    with SharingHubServer(projects, token=TOKEN) as hub:
        hub.inject(Fault(path="/download/", delay=0.02, times=None))
        for kills in range(3):
            command = [sys.executable, "-c", CHILD, hub.url, str(folder), TOKEN]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            wanted = 15 * (kills + 1)
            until = time.monotonic() + 60
            while len(list(folder.rglob("x.csv"))) < wanted and time.monotonic() < until:
                time.sleep(0.005)
            child.send_signal(signal.SIGKILL)
            child.communicate()
            for path in folder.rglob("*.json"):
                if not path.name.startswith("."):
                    json.loads(path.read_bytes())
            for path in folder.rglob("x.csv"):
                assert path.read_bytes() == f"content {int(path.parent.name[-3:])}".encode()
        arrived = {path.parent.name for path in folder.rglob("x.csv")}
        assert len(arrived) >= 45
        hub.faults.clear()
        asked = len(hub.requests)
        report = mirrored(hub, folder)
        again = [r for r in hub.requests[asked:] if "/download/" in r.path and r.status == 200]
        # Those that were moved into place while the process was killed may have no record yet.
        assert len(again) <= 60 - len(arrived) + 3 * 64
        assert report.new + report.changed + report.unchanged == 60
    assert len(items_in(folder)) == 60
    assert len(list(folder.rglob("x.csv"))) == 60
    leftovers = [p.name for p in folder.rglob(".stac-gitlab*.part")]
    assert leftovers == []


def test_a_slow_disk_is_written_to_by_several_threads(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_writer, "_LONG_WAIT", -1.0)
    writers = set()
    write_document = mirror_writer.write_document

    def noted(*arguments: Any, **options: Any) -> int:
        writers.add(threading.current_thread().name)
        return write_document(*arguments, **options)

    monkeypatch.setattr(mirror_writer, "write_document", noted)
    projects = [Project(f"many/p{n:03}", {}) for n in range(100)]
    with SharingHubServer(projects, token=TOKEN) as hub:
        mirrored(hub, folder, assets=False)
    assert len(items_in(folder)) == 100
    assert any(name.startswith("stac-gitlab-mirror") for name in writers)


def test_a_file_that_cannot_be_written_is_named_and_the_others_are_there(
    hub: SharingHubServer, folder: Path
) -> None:
    (folder / "dataset/alpine~2Flakes.json").mkdir(parents=True)
    with pytest.raises(DownloadError, match="1 items of the mirror") as failure:
        mirrored(hub, folder, assets=False)
    assert list(failure.value.errors) == ["alpine/lakes"]
    assert isinstance(failure.value.report, MirrorReport)
    assert failure.value.report.ids["failed"] == ("alpine/lakes",)
    assert set(items_in(folder)) == {"ai-model/alpine/rivers", "dataset/alpine/rivers"}
    (folder / "dataset/alpine~2Flakes.json").rmdir()
    assert mirrored(hub, folder, assets=False).new == 1


def test_a_folder_belongs_to_one_catalog_and_one_run(
    hub: SharingHubServer, folder: Path, tmp_path: Path
) -> None:
    mirrored(hub, folder, assets=False)
    with reader(hub) as stac_io:
        dataset = f"{hub.stac_url}/collections/dataset"
        with pytest.raises(ConfigurationError, match=r"is the mirror of .* and not of .*dataset"):
            mirror(dataset, folder, stac_io=stac_io)
    index = mirror_module.MirrorIndex(folder, hub.stac_url)
    with index, pytest.raises(ConfigurationError, match="is in use"):
        mirrored(hub, folder)
    pystac.Catalog("mine", "d").normalize_and_save(str(tmp_path / "own"), "SELF_CONTAINED")
    with pytest.raises(ConfigurationError, match="another catalog already"):
        mirrored(hub, tmp_path / "own")
    assert opened(tmp_path / "own").id == "mine"


def test_a_lost_index_is_made_anew_and_a_damaged_one_is_an_error(
    hub: SharingHubServer, folder: Path
) -> None:
    mirrored(hub, folder)
    (folder / FILE_NAME).write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(DownloadError, match=r"cannot be used: .* remove it"):
        mirrored(hub, folder)
    (folder / FILE_NAME).unlink()
    asked = len(hub.requests)
    assert mirrored(hub, folder).new == 3
    assert {r.status for r in hub.requests[asked:] if "/download/" in r.path} <= {304}


def test_wrong_arguments_are_named(hub: SharingHubServer, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_items=-1"):
        mirrored(hub, folder, max_items=-1)
    with pytest.raises(ConfigurationError, match="has no self link"):
        mirror(pystac.Catalog("local", "d"), folder)
    with pytest.raises(ConfigurationError, match="catalog has to be a catalog"):
        mirror(5, folder)  # type: ignore[arg-type]  # a mistake


def test_no_file_of_a_mirror_contains_a_secret(folder: Path) -> None:
    readme = f"[x](https://a.example.org/x?gitlab_token={TOKEN}) {TOKEN}"
    project = Project("alpine/lakes", {"lakes.csv": b"lakes"}, readme=readme)
    with SharingHubServer([project], token=TOKEN) as hub, reader(hub) as stac_io:
        mirror(f"{hub.stac_url}?gitlab_token={TOKEN}", folder, stac_io=stac_io)
    for path in folder.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes(), path


# -- static catalogs ----------------------------------------------------------------------------


IDS = [
    *("a/b", "a~2Fb", "a%2Fb", "a b", "Case", "case", "x", "x.json", "catalog", "collection"),
    *("..", ".", ".hidden", "end.", "con", "NUL.txt", "é", "e\u0301", "湖", "a#b?c", "~", "a\\b"),
    *("x" * 300, "x" * 299 + "y"),
]


def served_catalog(server: LoopbackServer, ids: list[str]) -> str:
    """Serve a static catalog with items, an asset each, and a child with the name of an item."""
    links: list[dict[str, str]] = [{"rel": "child", "href": "./child.json"}]
    for number, item_id in enumerate(ids):
        links.append({"rel": "item", "href": f"./items/{number}.json"})
        asset = {"href": f"../files/{number}.csv", "roles": ["data"]}
        server.route(f"/c/items/{number}.json", a("item", id=item_id, assets={"d.csv": asset}))
        content = f"content {number}".encode()
        server.route(f"/c/files/{number}.csv", content, ranges=True, headers={"ETag": '"1"'})
    server.route("/c/child.json", a("catalog", id="x"))
    server.route("/c/catalog.json", a("catalog", links=links))
    return f"{server.url}/c/catalog.json"


def test_ids_that_collide_or_are_no_file_names_are_all_there(
    server: LoopbackServer, folder: Path
) -> None:
    url = served_catalog(server, IDS)
    for _ in range(2):
        with GitLabStacIO() as stac_io:
            report = mirror(url, folder, stac_io=stac_io)
        assert report.new + report.unchanged == len(IDS)
        catalog = opened(folder)
        items = list(catalog.get_items())
        assert [item.id for item in items] == IDS
        for number, item in enumerate(items):
            href = item.assets["d.csv"].get_absolute_href()
            assert href is not None
            assert Path(href).read_bytes() == f"content {number}".encode()
            assert folder.resolve() in Path(href).resolve().parents
        assert [child.id for child in catalog.get_children()] == ["x"]
    names = [path.name for path in folder.iterdir()]
    assert len({name.casefold() for name in names}) == len(names)


@given(st.text(max_size=15))
def test_a_name_tells_the_id(object_id: str) -> None:
    name = name_of(object_id)
    assert id_of(name) == object_id
    assert name.isascii()
    assert not set(name) & set('/\\?#%:*"<>| ')
    assert not name.startswith(".")


def test_a_static_item_that_is_missing_is_left_out_and_stays_in_the_mirror(
    server: LoopbackServer, folder: Path
) -> None:
    url = served_catalog(server, ["one", "two"])
    with GitLabStacIO() as stac_io:
        mirror(url, folder, stac_io=stac_io)
        server.route("/c/items/0.json", a("item", id="one", properties={"datetime": None}))
        server.inject(Fault(path="items/1.json", status=404))
        with pytest.warns(UnreadableItemWarning) as caught:
            report = mirror(url, folder, stac_io=stac_io, prune=True)
    assert len(caught) == 2
    assert (report.unchanged, report.gone, report.is_complete) == (0, 0, False)
    assert [item.id for item in opened(folder).get_items()] == ["one", "two"]


def test_a_listing_with_a_bad_item_raises_if_the_reader_does(
    server: LoopbackServer, folder: Path
) -> None:
    url = served_catalog(server, ["one"])
    server.inject(Fault(path="items/0.json", status=404))
    with GitLabStacIO(on_bad_item="raise") as stac_io, pytest.raises(Exception, match="404"):
        mirror(url, folder, stac_io=stac_io)


def test_a_local_catalog_is_mirrored_with_its_files(tmp_path: Path, folder: Path) -> None:
    source = tmp_path / "source"
    catalog = pystac.Catalog("local", "d")
    item = pystac.Item.from_dict(a("item", id="one"))
    catalog.add_item(item)
    item.add_asset("d.csv", pystac.Asset("./d.csv", roles=["data"]))
    catalog.normalize_and_save(str(source), "SELF_CONTAINED")
    (source / "one/d.csv").write_bytes(b"data")
    mirror(catalog, folder)
    assert (folder / "one/d.csv").read_bytes() == b"data"
    assert [i.assets["d.csv"].href for i in opened(folder).get_items()] == ["./one/d.csv"]
    (source / "one/one.json").unlink()
    with pytest.warns(UnreadableItemWarning, match="cannot be read"):
        mirror(source / "catalog.json", folder)


def test_an_old_and_odd_item_is_saved_as_pystac_saves_it(
    server: LoopbackServer, folder: Path
) -> None:
    odd = a("item", id="odd", stac_version="0.9.0")
    odd["properties"]["datetime"] = "2020-01-01 00:00:00Z"
    server.route("/c/items/0.json", odd)
    server.route("/c/catalog.json", a("catalog", links=[{"rel": "item", "href": "items/0.json"}]))
    with GitLabStacIO() as stac_io:
        mirror(f"{server.url}/c/catalog.json", folder, stac_io=stac_io, assets=False)
    [item] = opened(folder).get_items()
    item.validate()
    assert json.loads((folder / "odd.json").read_text())["stac_version"] == "1.1.0"


def test_times_that_stac_does_not_allow_are_written_as_it_wants_them(
    server: LoopbackServer, folder: Path
) -> None:
    loose = a("item", id="loose")
    loose["properties"] |= {
        "start_datetime": "2020-01-01",
        "end_datetime": "2020-01-31T12:00:00.0",
        "created": "2020-02-01T12:00:00+02:00",
        "updated": None,
    }
    server.route("/c/items/0.json", loose)
    server.route("/c/catalog.json", a("catalog", links=[{"rel": "item", "href": "items/0.json"}]))
    with GitLabStacIO() as stac_io:
        mirror(f"{server.url}/c/catalog.json", folder, stac_io=stac_io, assets=False)
    [item] = opened(folder).get_items()
    item.validate()
    properties = json.loads((folder / "loose.json").read_text())["properties"]
    assert properties["start_datetime"] == "2020-01-01T00:00:00Z"
    assert properties["end_datetime"] == "2020-01-31T12:00:00Z"
    assert properties["created"] == "2020-02-01T10:00:00Z"
    assert "updated" not in properties
