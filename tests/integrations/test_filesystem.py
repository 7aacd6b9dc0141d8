"""The fsspec file system: paths, bytes, requests, errors, and what travels in pickles."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pystac
import pytest
from fault_server import ServedFile
from sample_items import item_of

from stac_gitlab import GitLabStacIO, RetryPolicy, STACGitLabError
from stac_gitlab.errors import (
    AssetNotFoundError,
    AuthenticationError,
    ConfigurationError,
    DownloadError,
    NetworkError,
    NotFoundError,
    RemoteWriteError,
    UnsafePathError,
)
from stac_gitlab.integrations import shared_reader
from stac_gitlab.testing import Fault, LoopbackServer, Project, SharingHubServer

TOKEN = "glpat-canary-of-the-file-system"
LAKES = b"id,name\n1,Como\n2,Garda\n"
BIG = bytes(range(256)) * 8192  # 2 MiB


def zipped(**files: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for name, content in files.items():
            writer.writestr(name, content)
    return archive.getvalue()


FILES = {
    "data/lakes.csv": LAKES,
    "data/a#b?c [1].csv": b"strange",
    "data/deep/er/x.bin": BIG,
    "lakes.zip": zipped(inside=LAKES),
    "store.zarr/zarr.json": b"{}",
}
PROJECT = Project("group/sub/lakes", FILES, private=True)


@pytest.fixture(autouse=True)
def fresh_reader() -> Iterator[None]:
    shared_reader.reader_for.cache_clear()
    yield
    shared_reader.reader_for.cache_clear()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[SharingHubServer]:
    others = [Project("group/other", {"data/b.csv": b"other"}), Project("top", {"c.csv": b"top"})]
    with SharingHubServer([PROJECT, *others], token=TOKEN) as running:
        monkeypatch.setenv("STAC_GITLAB_TOKEN", TOKEN)
        monkeypatch.setenv("STAC_GITLAB_URL", running.url)
        yield running


def items_of(hub: SharingHubServer) -> str:
    return f"stacs://{hub.stac_url.removeprefix('http://')}/collections/dataset/items"


def assets_of(hub: SharingHubServer) -> str:
    return f"{items_of(hub)}/{PROJECT.path}/-/asset"


@pytest.fixture
def served(server: LoopbackServer) -> Any:
    """Serve an item with these assets; return the URL of its assets and a reader."""

    def serve(**assets: Any) -> tuple[str, GitLabStacIO]:
        documents = {}
        for key, route in assets.items():
            server.route(f"/files/{key}", route)
            documents[key] = f"{server.url}/files/{key}"
        item = item_of(documents, at=f"{server.url}/item.json")
        server.route("/item.json", json.dumps(item.to_dict()).encode())
        policy = RetryPolicy(max_attempts=2, backoff_base=0)
        reader = GitLabStacIO(TOKEN, base_url=server.url, retry=policy)
        return f"stacs://127.0.0.1:{server.port}/item.json/-/asset", reader

    return serve


def paths(server: LoopbackServer) -> list[str]:
    return [request.path for request in server.requests]


# -- without importing the package ----------------------------------------------------------------


def test_the_protocol_is_known_without_an_import(hub: SharingHubServer) -> None:
    script = "import fsspec, sys\nwith fsspec.open(sys.argv[1]) as f: print(f.read().decode())"
    command = [sys.executable, "-c", script, f"{assets_of(hub)}/data/lakes.csv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == LAKES.decode().strip(), done.stderr


# -- folders --------------------------------------------------------------------------------------


def test_assets_are_listed_as_files_in_folders(hub: SharingHubServer) -> None:
    fs, root = fsspec.url_to_fs(assets_of(hub))
    names = [info["name"].removeprefix(f"{root}/") for info in fs.ls(root)]
    assert sorted(names) == ["data", "lakes.zip", "store.zarr"]
    assert sorted(fs.find(root)) == sorted(f"{root}/{key}" for key in FILES)
    assert fs.glob(f"{root}/**/lakes.*") == [f"{root}/data/lakes.csv", f"{root}/lakes.zip"]
    assert fs.isdir(f"{root}/data/deep")
    assert fs.isfile(f"{root}/data/lakes.csv")
    assert len(hub.requests) == 1


def test_the_items_of_a_collection_are_folders(hub: SharingHubServer) -> None:
    fs, items = fsspec.url_to_fs(items_of(hub))
    assert fs.ls(items, detail=False) == [f"{items}/group", f"{items}/top"]
    found = fs.glob(f"{items}/**/*.csv")
    names = {path.partition("/-/asset/")[2] for path in found}
    assert names == {"data/lakes.csv", "data/a#b?c [1].csv", "data/b.csv", "c.csv"}
    assert fs.isdir(f"{items}/group/sub")
    assert not fs.exists(f"{items}/group/nothing")


def test_the_landing_page_leads_to_the_collections(hub: SharingHubServer) -> None:
    fs, root = fsspec.url_to_fs(f"stacs://{hub.stac_url.removeprefix('http://')}")
    assert fs.ls(root, detail=False) == [f"{root}/collections"]
    assert f"{root}/collections/dataset" in fs.ls(f"{root}/collections", detail=False)
    assert f"{root}/collections/dataset/items" in fs.ls(f"{root}/collections/dataset", detail=False)
    assert fs.ls(f"{items_of(hub)[8:]}/top", detail=False) == [f"{items_of(hub)[8:]}/top/-"]


def test_a_key_that_leads_elsewhere_is_in_no_listing_and_not_downloaded(
    served: Any, server: LoopbackServer, tmp_path: Path
) -> None:
    url, reader = served(a=b"good")
    item = item_of(
        {"../../evil": f"{server.url}/files/a", "a": f"{server.url}/files/a"},
        at=f"{server.url}/item.json",
    )
    server.route("/item.json", json.dumps(item.to_dict()).encode())
    fs, root = fsspec.url_to_fs(url, reader=reader)
    assert fs.find(root) == [f"{root}/a"]
    assert fs.cat(f"{root}/../../evil") == b"good"
    with pytest.raises(UnsafePathError):
        fs.get_file(f"{root}/../../evil", str(tmp_path / "x"))
    fs.get(root, str(tmp_path / "out"), recursive=True)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a"]


def test_the_size_comes_from_the_metadata_or_else_from_the_server(
    served: Any, server: LoopbackServer
) -> None:
    url, reader = served(a=ServedFile(BIG))
    fs, root = fsspec.url_to_fs(url, reader=reader)
    assert fs.ls(root)[0]["size"] is None
    assert fs.info(f"{root}/a")["size"] == len(BIG)
    item = item_of({"a": {"href": f"{server.url}/none", "file:size": 7}}, at=f"{server.url}/i")
    server.route("/i", json.dumps(item.to_dict()).encode())
    assert fs.info(f"127.0.0.1:{server.port}/i/-/asset/a")["size"] == 7


def test_a_zarr_asset_is_a_folder_of_its_server(served: Any, server: LoopbackServer) -> None:
    url, reader = served(z=b"")
    server.route("/files/z.zarr/a b/0.0", b"chunk")
    item = item_of({"z": f"{server.url}/files/z.zarr"}, at=f"{server.url}/item.json")
    server.route("/item.json", json.dumps(item.to_dict()).encode())
    fs, root = fsspec.url_to_fs(url, reader=reader)
    assert fs.cat(f"{root}/z/a b/0.0") == b"chunk"
    assert fs.isdir(f"{root}/z")
    with pytest.raises(FileNotFoundError, match="no listing"):
        fs.ls(f"{root}/z")
    with pytest.raises(FileNotFoundError):
        fs.cat(f"{root}/z/../secret")


# -- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", FILES)
def test_every_key_opens(hub: SharingHubServer, key: str) -> None:
    fs, root = fsspec.url_to_fs(assets_of(hub))
    assert fs.cat_file(f"{root}/{key}") == FILES[key]
    with fs.open(f"{root}/{key}") as file:
        assert file.read() == FILES[key]


def test_ranges_are_read_in_parallel(served: Any, server: LoopbackServer) -> None:
    meeting = threading.Barrier(4, timeout=20)
    file = ServedFile(BIG)

    def together(request: Any) -> Any:
        if not request.headers["Range"].startswith("bytes=0-"):
            meeting.wait()
        return file(request)

    url, reader = served(a=together)
    fs, root = fsspec.url_to_fs(url, reader=reader)
    starts = [1_100_000, 1_300_000, 1_500_000, 1_700_000]
    ends = [start + 10 for start in starts]
    parts = fs.cat_ranges([f"{root}/a"] * 4, starts, ends, on_error="raise")
    assert parts == [BIG[start:end] for start, end in zip(starts, ends, strict=True)]
    assert len(server.requests) == 6


def test_negative_positions_count_from_the_end(served: Any) -> None:
    url, reader = served(a=ServedFile(BIG))
    fs, root = fsspec.url_to_fs(url, reader=reader)
    assert fs.cat_file(f"{root}/a", start=-5) == BIG[-5:]
    assert fs.cat_file(f"{root}/a", start=2, end=-1) == BIG[2:-1]
    assert fs.cat_file(f"{root}/a", start=5, end=5) == b""


def test_a_server_without_ranges_is_asked_once(served: Any, server: LoopbackServer) -> None:
    url, reader = served(a=ServedFile(BIG, keeps_ranges=False))
    fs, root = fsspec.url_to_fs(url, reader=reader)
    assert fs.info(f"{root}/a")["size"] == len(BIG)
    with fs.open(f"{root}/a") as file:
        file.seek(-3, io.SEEK_END)
        assert file.read() == BIG[-3:]
        assert fs.cat_ranges([f"{root}/a"] * 5, 7, 9) == [BIG[7:9]] * 5
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda n: fs.cat_file(f"{root}/a", n, n + 9), range(50)))
    assert found == [BIG[n : n + 9] for n in range(50)]
    assert paths(server) == ["/item.json", "/files/a"]


def test_threads_that_open_one_file_at_once_ask_once(served: Any, server: LoopbackServer) -> None:
    url, reader = served(a=ServedFile(BIG, keeps_ranges=False))
    fs, root = fsspec.url_to_fs(url, reader=reader)
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: fs.cat_file(f"{root}/a", 0, 4), range(8))) == {BIG[:4]}
    assert paths(server) == ["/item.json", "/files/a"]


def test_caches_of_fsspec_can_be_chosen(served: Any, server: LoopbackServer) -> None:
    url, reader = served(a=ServedFile(BIG))
    fs, root = fsspec.url_to_fs(url, reader=reader)
    known = {(1_500_000, 1_600_000): BIG[1_500_000:1_600_000]}
    options = {"cache_type": "parts", "cache_options": {"data": known}}
    with fs.open(f"{root}/a", **options) as file:
        file.seek(1_500_000)
        assert file.read(100) == BIG[1_500_000:1_500_100]
    assert len(server.requests) == 2


def test_a_file_that_changed_is_an_error(served: Any) -> None:
    route = ServedFile(BIG)
    url, reader = served(a=route)
    fs, root = fsspec.url_to_fs(url, reader=reader)
    with fs.open(f"{root}/a") as file:
        route.etag = '"two"'
        file.seek(1_500_000)
        with pytest.raises(DownloadError, match="changed"):
            file.read(1)
    with fs.open(f"{root}/a") as file:
        file.seek(1_500_000)
        assert file.read(1) == BIG[1_500_000:1_500_001]


def test_chains_read_inside_of_archives_and_keep_copies(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    with fsspec.open(f"zip://inside::{assets_of(hub)}/lakes.zip") as file:
        assert file.read() == LAKES
    copies = {"cache_storage": str(tmp_path)}
    with fsspec.open(f"simplecache::{assets_of(hub)}/data/lakes.csv", simplecache=copies) as file:
        assert file.read() == LAKES
    count = len(hub.requests)
    with fsspec.open(f"simplecache::{assets_of(hub)}/data/lakes.csv", simplecache=copies) as file:
        assert file.read() == LAKES
    assert len(hub.requests) == count


def test_get_downloads_complete_files(hub: SharingHubServer, tmp_path: Path) -> None:
    fs, root = fsspec.url_to_fs(assets_of(hub))
    fs.get(f"{root}/data/", str(tmp_path / "out"), recursive=True)
    assert (tmp_path / "out" / "deep" / "er" / "x.bin").read_bytes() == BIG
    hub.inject(Fault(cut_after=10, times=None, path="/lakes.csv"))
    policy = RetryPolicy(max_attempts=1)
    reader = GitLabStacIO(TOKEN, base_url=hub.url, retry=policy)
    other = fsspec.filesystem("stacs", reader=reader)
    with pytest.raises((DownloadError, NetworkError)):
        other.get_file(f"{root}/data/lakes.csv", str(tmp_path / "cut.csv"))
    assert not (tmp_path / "cut.csv").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_reads_on(hub: SharingHubServer) -> None:
    fs, root = fsspec.url_to_fs(assets_of(hub))
    assert fs.cat([f"{root}/data/lakes.csv"])
    child = os.fork()
    if child == 0:
        done = False
        signal.alarm(60)
        try:
            done = fs.cat_ranges([f"{root}/data/lakes.csv"] * 2, 0, 2) == [b"id", b"id"]
        finally:
            os._exit(0 if done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- errors ---------------------------------------------------------------------------------------


def test_what_is_missing_is_a_file_not_found(hub: SharingHubServer) -> None:
    fs, root = fsspec.url_to_fs(assets_of(hub))
    missing = [
        (f"{root}/nothing.csv", AssetNotFoundError),
        (f"{items_of(hub)[8:]}/no/project/-/asset/a", NotFoundError),
        (items_of(hub)[8:].replace("dataset", "ai-model") + "/top/-/asset/c.csv", STACGitLabError),
    ]
    for path, kind in missing:
        for act in (fs.info, fs.cat_file, fs.open):
            with pytest.raises(FileNotFoundError) as caught:
                act(path)
            assert isinstance(caught.value, kind)
        assert not fs.exists(path)
    with pytest.raises(AssetNotFoundError, match="folder"):
        fs.open(f"{root}/data")


def test_a_refused_token_is_a_permission_error(
    hub: SharingHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAC_GITLAB_TOKEN", "glpat-wrong")
    fs, root = fsspec.url_to_fs(assets_of(hub))
    with pytest.raises(PermissionError) as caught:
        fs.cat_file(f"{root}/data/lakes.csv")
    assert isinstance(caught.value, AuthenticationError)
    with pytest.raises(PermissionError):
        fs.exists(f"{root}/data/lakes.csv")


def test_nothing_is_written(hub: SharingHubServer, tmp_path: Path) -> None:
    fs, root = fsspec.url_to_fs(assets_of(hub))
    (tmp_path / "a").write_bytes(b"a")
    for act in (
        lambda: fs.open(f"{root}/a", "wb"),
        lambda: fs.pipe_file(f"{root}/a", b""),
        lambda: fs.rm_file(f"{root}/a"),
        lambda: fs.put_file(str(tmp_path / "a"), f"{root}/a"),
        lambda: fs.cp_file(f"{root}/a", f"{root}/b"),
        lambda: fs.mkdir(f"{root}/new"),
    ):
        with pytest.raises(RemoteWriteError, match="read-only"):
            act()
    assert hub.requests == []


def test_a_path_without_a_server_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="names no server") as caught:
        fsspec.filesystem("stacs").cat_file("stacs://user:hidden-password@host/item/-/asset/a")
    assert "hidden-password" not in str(caught.value)


# -- which reader, and which scheme ---------------------------------------------------------------


def test_a_reader_is_never_taken_for_another(hub: SharingHubServer) -> None:
    with (
        GitLabStacIO("glpat-wrong", base_url=hub.url) as wrong,
        GitLabStacIO(TOKEN, base_url=hub.url) as right,
    ):
        assert repr(wrong) == repr(right)
        url = f"{assets_of(hub)}/data/lakes.csv"
        with pytest.raises(PermissionError):
            fsspec.open(url, reader=wrong).open()
        with fsspec.open(url, reader=right) as file:
            assert file.read() == LAKES
        one, other = (fsspec.filesystem("stacs", reader=reader) for reader in (wrong, right))
        assert one != other
        assert one == fsspec.filesystem("stacs", reader=wrong)


def test_pystacs_default_reader_is_used(
    hub: SharingHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STAC_GITLAB_TOKEN")
    reader = GitLabStacIO(TOKEN, base_url=hub.url)
    pystac.StacIO.set_default(reader)
    fs = fsspec.filesystem("stacs")
    assert fs.reader is reader
    assert fs.cat_file(f"{assets_of(hub)}/data/lakes.csv") == LAKES
    assert TOKEN.encode() not in pickle.dumps(fs)


def test_a_function_may_return_the_token(
    hub: SharingHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAC_GITLAB_TOKEN", "glpat-wrong")
    with fsspec.open(f"{assets_of(hub)}/data/lakes.csv", token=lambda: TOKEN) as file:
        assert file.read() == LAKES


def test_a_token_as_a_text_is_refused_and_not_shown(hub: SharingHubServer) -> None:
    with pytest.raises(ConfigurationError, match="reader=GitLabStacIO") as caught:
        fsspec.open(f"{assets_of(hub)}/data/lakes.csv", token=TOKEN)
    assert TOKEN not in str(caught.value)
    with pytest.raises(ConfigurationError):
        fsspec.filesystem("stacs", reader="reader")


def test_one_reader_serves_the_whole_process(hub: SharingHubServer) -> None:
    assert fsspec.filesystem("stacs").reader is fsspec.filesystem("stacs").reader


def test_other_hosts_are_read_with_https() -> None:
    reader = GitLabStacIO(TOKEN, base_url="http://lab.example.org:8000")
    fs = fsspec.filesystem("stacs", reader=reader)
    assert fs._url("hub.example.org/item") == "https://hub.example.org/item"
    assert fs._url("lab.example.org:8000/item") == "http://lab.example.org:8000/item"
    assert fs._url("127.0.0.1:8000/item") == "http://127.0.0.1:8000/item"


# -- pickles --------------------------------------------------------------------------------------


def source() -> str:
    return TOKEN


@pytest.mark.parametrize("how", ["environment", "reader", "function"])
def test_no_pickle_and_no_text_holds_the_token(hub: SharingHubServer, how: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "environment": {},
        "reader": {"reader": GitLabStacIO(TOKEN, base_url=hub.url)},
        "function": {"token": len},
    }
    fs = fsspec.filesystem("stacs", **options[how])
    url = f"{assets_of(hub)}/data/lakes.csv"
    pieces = [fs, fsspec.open(url, **options[how])]
    if how != "function":
        assert fs.cat_file(url) == LAKES
        pieces.append(fs.open(url))
        archive = f"zip://inside::{assets_of(hub)}/lakes.zip"
        pieces.append(fsspec.open(archive, stacs=options[how]).fs)
    for piece in pieces:
        assert TOKEN.encode() not in pickle.dumps(piece)
        assert TOKEN not in repr(piece) + repr(vars(piece))


def test_a_copy_in_another_process_uses_the_environment_there(hub: SharingHubServer) -> None:
    reader = GitLabStacIO(TOKEN, base_url=hub.url)
    fs = fsspec.filesystem("stacs", reader=reader)
    file = fs.open(f"{assets_of(hub)}/data/lakes.csv")
    file.seek(3)
    script = "import pickle, sys\nprint(pickle.load(sys.stdin.buffer).read().decode())"
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, input=pickle.dumps(file), capture_output=True, timeout=60, check=False
    )
    assert done.stdout.decode().strip() == LAKES[3:].decode().strip(), done.stderr.decode()


def test_copies_of_one_file_system_are_one_in_a_process(hub: SharingHubServer) -> None:
    text = pickle.dumps(fsspec.filesystem("stacs"))
    copies = [pickle.loads(text) for _ in range(3)]
    for copy in copies:
        assert copy.cat_file(f"{assets_of(hub)}/data/lakes.csv") == LAKES
    assert sum("/items/" in path for path in paths(hub)) == 1


def test_json_of_the_file_system_makes_it_again(hub: SharingHubServer) -> None:
    text = fsspec.filesystem("stacs").to_json()
    assert TOKEN not in text
    again = fsspec.AbstractFileSystem.from_json(text)
    assert again.cat_file(f"{assets_of(hub)}/data/lakes.csv") == LAKES


def test_files_opened_a_while_ago_are_requested_again(served: Any, server: LoopbackServer) -> None:
    url, reader = served(a=ServedFile(BIG))
    fs, root = fsspec.url_to_fs(url, reader=reader, listings_expiry_time=0)
    fs.open(f"{root}/a")
    fs.open(f"{root}/a")
    assert paths(server).count("/files/a") == 2
