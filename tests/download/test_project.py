"""The repository of a whole project: complete and safe, or nothing of it."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pystac
import pytest
from sample_items import TOKEN, files_in, item_of

from stac_gitlab import GitLabStacIO, STACDownloader
from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    DownloadError,
    InvalidResponseError,
    NotFoundError,
    STACGitLabError,
    UnsafePathError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.settings import Limits, RetryPolicy
from stac_gitlab.testing import (
    Answer,
    Fault,
    GitLabServer,
    LoopbackServer,
    Project,
    RecordedRequest,
    SharingHubServer,
)

ARCHIVE = "/api/proxy/projects/7/repository/archive.zip"
FILES = {"README.md": b"# Lakes", "data/lakes.csv": b"id,name", "src/lakes/run.py": b"print()"}
posix_only = pytest.mark.skipif(os.name != "posix", reason="modes and links are POSIX's")


@pytest.fixture
def item(server: LoopbackServer) -> pystac.Item:
    """Return the item of a project whose archive the test serves."""
    item = item_of({}, at=f"{server.url}/api/stac/collections/dataset/items/group/lakes")
    item.properties["sharinghub:id"] = 7
    return item


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    project = Project(
        "group/sub/lakes",
        FILES,
        roles={"*.csv": ["data"]},
        branches={"v1 (old)": {"old.csv": b"old"}},
    )
    with SharingHubServer([project], token=TOKEN) as hub:
        yield hub


def zipped(files: Mapping[str, bytes], **modes: int) -> bytes:
    """Return an archive; the mode of a file is named by the stem of its name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = modes.get(Path(name).stem, 0o100644) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- what is extracted -----------------------------------------------------------------------------


def test_all_files_of_a_project_are_downloaded(hub: SharingHubServer, tmp_path: Path) -> None:
    with STACDownloader(TOKEN, hub.url) as loader:
        item = loader.load_item("dataset", "group/sub", "lakes")
        assert set(item.assets) == {"data/lakes.csv"}
        folder = loader.download_project(item, tmp_path / "new" / "lakes")
    assert folder == tmp_path / "new" / "lakes"
    assert files_in(folder) == FILES
    assert names_in(folder.parent) == ["lakes"]


def test_the_files_of_another_ref_are_downloaded(hub: SharingHubServer, tmp_path: Path) -> None:
    with STACDownloader(TOKEN, hub.url) as loader:
        item = loader.load_item("dataset", "group/sub", "lakes")
        folder = loader.download_project(item, tmp_path / "lakes", ref="v1 (old)")
        assert files_in(folder) == {"old.csv": b"old"}
        with pytest.raises(NotFoundError):
            loader.download_project(item, tmp_path / "none", ref="none")
    assert names_in(tmp_path) == ["lakes"]


def test_a_group_named_repository_is_no_obstacle(tmp_path: Path) -> None:
    project = Project("group/repository/lakes", FILES, branches={"v1": {"old.csv": b"old"}})
    with SharingHubServer([project], token=TOKEN) as hub, STACDownloader(TOKEN, hub.url) as loader:
        item = loader.load_item("dataset", "group/repository", "lakes")
        folder = loader.download_project(item, tmp_path / "lakes", ref="v1")
    assert files_in(folder) == {"old.csv": b"old"}


def test_the_project_of_an_item_in_a_repository_is_downloaded(tmp_path: Path) -> None:
    files = {"stac/item.json": b"{}", **FILES}
    project = Project("group/sub/lakes", files, branches={"dev": {"dev.csv": b"dev"}})
    with GitLabServer([project], token=TOKEN) as gitlab:
        loader = STACDownloader(stac_io=GitLabStacIO(TOKEN, base_url=gitlab.url))
        at = gitlab.web_url("group/sub/lakes", "stac/item.json", ref=str(project.ref))
        item = item_of({}, at=at)
        assert files_in(loader.download_project(item, tmp_path / "usual")) == files
        folder = loader.download_project(item, tmp_path / "dev", "dev")
        assert files_in(folder) == {"dev.csv": b"dev"}


def test_the_token_is_neither_in_the_url_nor_on_disk(hub: SharingHubServer, tmp_path: Path) -> None:
    with STACDownloader(TOKEN, hub.url) as loader:
        item = loader.load_item("dataset", "group/sub", "lakes")
        loader.download_project(item, tmp_path / "lakes")
    assert TOKEN not in hub.requests[-1].raw_path
    assert all(TOKEN.encode() not in content for content in files_in(tmp_path).values())


def test_an_empty_folder_is_replaced(
    server: LoopbackServer, downloader: STACDownloader, item: pystac.Item, tmp_path: Path
) -> None:
    server.route(ARCHIVE, zipped({"lakes-main/a.csv": b"a"}))
    (tmp_path / "lakes").mkdir()
    downloader.download_project(item, tmp_path / "lakes")
    assert files_in(tmp_path) == {"lakes/a.csv": b"a"}


@posix_only
def test_scripts_stay_executable(
    server: LoopbackServer, downloader: STACDownloader, item: pystac.Item, tmp_path: Path
) -> None:
    content = zipped({"top/run.sh": b"#!/bin/sh", "top/a.csv": b"a"}, run=0o104755)
    server.route(ARCHIVE, content)
    folder = downloader.download_project(item, tmp_path / "lakes")
    assert stat.S_IMODE((folder / "run.sh").stat().st_mode) & 0o7100 == 0o100
    assert stat.S_IMODE((folder / "a.csv").stat().st_mode) & 0o111 == 0


def test_progress_is_reported(server: LoopbackServer, item: pystac.Item, tmp_path: Path) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.calls: list[tuple[Any, ...]] = []

        def expect(self, files: int, size: int | None) -> None:
            self.calls.append((files, size))

        def advance(self, key: str, received: int, total: int | None) -> None:
            self.calls.append((key, received, total))

        def done(self, key: str, size: int | None) -> None:
            self.calls.append((key, size))

    content = zipped({"top/a.csv": b"a"})
    server.route(ARCHIVE, content)
    recorder = Recorder()
    with STACDownloader(progress=recorder) as loader:
        loader.download_project(item, tmp_path / "lakes")
    name, size = "the archive of group/lakes", len(content)
    assert recorder.calls == [(1, None), (name, size, size), (name, size)]


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../evil", "top/../../evil", "/evil", "top//evil/../../../evil", "top/..\\..\\evil"],
)
def test_a_name_that_leads_out_of_the_folder_is_an_error(
    server: LoopbackServer,
    downloader: STACDownloader,
    item: pystac.Item,
    tmp_path: Path,
    name: str,
) -> None:
    server.route(ARCHIVE, zipped({"top/a.csv": b"a", name: b"evil"}))
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsafePathError):
        downloader.download_project(item, tmp_path / "out" / "lakes")
    assert files_in(tmp_path) == {}
    assert names_in(tmp_path / "out") == []


@posix_only
def test_links_and_odd_names_are_left_out_with_a_warning(
    server: LoopbackServer, downloader: STACDownloader, item: pystac.Item, tmp_path: Path
) -> None:
    files = {
        "top/a.csv": b"a",
        "top/link": b"/etc/passwd",
        "top/link/passwd": b"evil",
        "top/pipe": b"",
        "top/b\n.csv": b"b",
        "top/a.csv/c": b"c",
    }
    server.route(ARCHIVE, zipped(files, link=stat.S_IFLNK | 0o777, pipe=stat.S_IFIFO | 0o644))
    with pytest.warns(UnverifiedDownloadWarning, match=r"4 files were left out: 'link' is") as said:
        downloader.download_project(item, tmp_path / "lakes")
    assert len(said) == 1
    assert files_in(tmp_path / "lakes") == {"a.csv": b"a", "link/passwd": b"evil"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_pointers_of_git_lfs_are_a_warning(
    server: LoopbackServer, downloader: STACDownloader, item: pystac.Item, tmp_path: Path
) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    server.route(ARCHIVE, zipped({"top/model.onnx": pointer, "top/a.csv": b"a"}))
    with pytest.warns(UnverifiedDownloadWarning, match=r"1 files are pointers.*'model\.onnx'"):
        downloader.download_project(item, tmp_path / "lakes")
    assert (tmp_path / "lakes" / "model.onnx").read_bytes() == pointer


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        (Limits(archive_bytes=5_000), r"would become 10\.0 kB.*archive_bytes"),
        (Limits(file_bytes=9_999), r"file_bytes"),
        (Limits(archive_files=2), r"more than 2 files.*archive_files"),
    ],
)
def test_an_archive_beyond_a_limit_is_not_extracted(
    server: LoopbackServer, item: pystac.Item, tmp_path: Path, limits: Limits, match: str
) -> None:
    server.route(ARCHIVE, zipped({"t/a": b"a" * 10_000, "t/b": b"b", "t/c": b"c"}))
    loader = STACDownloader(stac_io=GitLabStacIO(limits=limits))
    with pytest.raises(DownloadError, match=match):
        loader.download_project(item, tmp_path / "lakes")
    assert names_in(tmp_path) == []


def test_an_archive_that_grows_enormously_is_not_extracted(
    server: LoopbackServer, downloader: STACDownloader, item: pystac.Item, tmp_path: Path
) -> None:
    content = zipped({"top/zeros": bytes(1000)})
    # The stated size, in the directory and before the file, is that of 2 GB.
    stated = (1000).to_bytes(4, "little")
    server.route(ARCHIVE, content.replace(stated, (2 * 10**9).to_bytes(4, "little")))
    with pytest.raises(DownloadError, match=r"would become 2\.0 GB.*archive_bytes"):
        downloader.download_project(item, tmp_path / "lakes")
    assert names_in(tmp_path) == []


def test_no_more_is_extracted_than_the_archive_states(
    server: LoopbackServer, downloader: STACDownloader, item: pystac.Item, tmp_path: Path
) -> None:
    content = zipped({"top/zeros": bytes(1_000_000)})
    stated = (1_000_000).to_bytes(4, "little")
    server.route(ARCHIVE, content.replace(stated, (1000).to_bytes(4, "little")))
    with pytest.raises(InvalidResponseError, match="cannot be extracted"):
        downloader.download_project(item, tmp_path / "lakes")
    assert names_in(tmp_path) == []


def test_a_directory_of_millions_of_files_is_not_read(
    server: LoopbackServer, item: pystac.Item, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stac_gitlab.download.project.BUFFER_SIZE", 100)
    server.route(ARCHIVE, zipped({f"top/{number:0200}": b"" for number in range(100)}))
    loader = STACDownloader(stac_io=GitLabStacIO(limits=Limits(archive_files=50)))
    with pytest.raises(DownloadError, match="more than 50 files"):
        loader.download_project(item, tmp_path / "lakes")


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "encrypted", "lzma", "bzip2"])
def test_a_damaged_archive_is_an_error(
    server: LoopbackServer,
    downloader: STACDownloader,
    item: pystac.Item,
    tmp_path: Path,
    damage: str,
) -> None:
    content = bytearray(zipped({"top/a.csv": os.urandom(5000)}))
    if damage == "cut":
        del content[-30:]
    elif damage == "changed":
        content[2000] ^= 1
    elif damage == "encrypted":
        content[6] |= 1
        content[content.index(b"PK\x01\x02") + 8] |= 1
    elif damage in ("lzma", "bzip2"):
        # Their decoders raise errors of their own.
        buffer = io.BytesIO()
        kind = zipfile.ZIP_LZMA if damage == "lzma" else zipfile.ZIP_BZIP2
        with zipfile.ZipFile(buffer, "w", kind) as archive:
            archive.writestr("top/a.csv", os.urandom(5000))
        content = bytearray(buffer.getvalue())
        content[100:200] = bytes(100)
    else:
        content = bytearray(b"PK\3\4")
    server.route(ARCHIVE, bytes(content))
    with pytest.raises(InvalidResponseError, match=r"archive\.zip.*cannot be extracted"):
        downloader.download_project(item, tmp_path / "lakes")
    assert names_in(tmp_path) == []


def test_a_page_in_place_of_the_archive_is_an_error(
    server: LoopbackServer, downloader: STACDownloader, item: pystac.Item, tmp_path: Path
) -> None:
    page = b"<html><body>Sign in <form action='/users/sign_in'></form></body></html>"
    server.route(ARCHIVE, Answer(200, (("content-type", "text/html"),), page))
    with pytest.raises((AuthenticationError, InvalidResponseError)):
        downloader.download_project(item, tmp_path / "lakes")
    assert names_in(tmp_path) == []


def test_a_body_that_breaks_off_is_requested_again(
    server: LoopbackServer, downloader: STACDownloader, item: pystac.Item, tmp_path: Path
) -> None:
    server.route(ARCHIVE, zipped({"top/a.csv": b"a"}))
    server.inject(Fault(path="archive", cut_after=50))
    assert files_in(downloader.download_project(item, tmp_path / "lakes")) == {"a.csv": b"a"}


@posix_only
def test_a_kill_leaves_no_folder_and_the_next_run_removes_the_rest(
    server: LoopbackServer, downloader: STACDownloader, item: pystac.Item, tmp_path: Path
) -> None:
    server.route(ARCHIVE, zipped({"top/a.csv": b"a"}))
    script = f"""
import os, pystac
from stac_gitlab import STACDownloader
from stac_gitlab.download import project
project._Extraction.run = lambda *_: os.kill(os.getpid(), 9)
item = pystac.Item.from_dict({item.to_dict(transform_hrefs=False)!r})
STACDownloader().download_project(item, {str(tmp_path / "lakes")!r})
"""
    killed = subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = names_in(tmp_path)
    assert len(left) == 2
    assert all(name.startswith(".stac-gitlab-") for name in left)
    downloader.download_project(item, tmp_path / "other")
    assert names_in(tmp_path) == [*left, "other"]
    downloader.download_project(item, tmp_path / "lakes")
    assert names_in(tmp_path) == ["lakes", "other"]


def test_a_run_leaves_the_folders_of_others_alone(
    server: LoopbackServer, downloader: STACDownloader, item: pystac.Item, tmp_path: Path
) -> None:
    asked: list[Path] = []

    def download_within(_: RecordedRequest) -> bytes:
        if not asked:
            asked.append(tmp_path)
            downloader.download_project(item, tmp_path / "lakes")
        return zipped({"top/a.csv": b"a"})

    server.route(ARCHIVE, download_within)
    with pytest.raises(DownloadError, match="cannot be written"):
        downloader.download_project(item, tmp_path / "lakes")
    assert files_in(tmp_path) == {"lakes/a.csv": b"a"}
    assert names_in(tmp_path) == ["lakes"]


# -- the folder ------------------------------------------------------------------------------------


def test_a_folder_with_files_is_left_alone(
    server: LoopbackServer,
    downloader: STACDownloader,
    item: pystac.Item,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_bytes(b"mine")
    (tmp_path / "file").write_bytes(b"file")
    (tmp_path / "current").mkdir()
    for name in ("mine", "file"):
        with pytest.raises(DownloadError, match="not an empty folder"):
            downloader.download_project(item, tmp_path / name)
    monkeypatch.chdir(tmp_path / "current")
    with pytest.raises(DownloadError, match="is in use"):
        downloader.download_project(item, ".")
    assert server.requests == []
    assert files_in(tmp_path) == {"mine/notes.txt": b"mine", "file": b"file"}


def test_a_full_disk_leaves_nothing_behind(
    server: LoopbackServer,
    downloader: STACDownloader,
    item: pystac.Item,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.route(ARCHIVE, zipped({"top/a.csv": b"a", "top/b.csv": b"b"}))
    opened = Path.open

    def open_until_full(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if path.name == "b.csv":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return opened(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", open_until_full)
    with pytest.raises(DownloadError, match=r"lakes' cannot be written.*No space"):
        downloader.download_project(item, tmp_path / "lakes")
    assert names_in(tmp_path) == []


def test_an_archive_that_does_not_fit_is_not_extracted(
    server: LoopbackServer,
    downloader: STACDownloader,
    item: pystac.Item,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.route(ARCHIVE, zipped({"top/a.csv": b"a" * 10_000}))
    monkeypatch.setattr("stac_gitlab.download.project.free_space", lambda _: 5000)
    with pytest.raises(DownloadError, match=r"10\.0 kB are needed.*only 5\.0 kB free"):
        downloader.download_project(item, tmp_path / "lakes")
    assert names_in(tmp_path) == []


def test_an_item_of_no_project_is_an_error(downloader: STACDownloader, tmp_path: Path) -> None:
    for at in (None, str(tmp_path / "item.json"), "https://stac.example.org/items/1"):
        with pytest.raises(ConfigurationError, match="does not name the GitLab project"):
            downloader.download_project(item_of({}, at=at), tmp_path / "out")
    bad: Any = 5
    with pytest.raises(ConfigurationError, match="ref has to be"):
        downloader.download_project(item_of({}), tmp_path / "out", ref=bad)


def test_a_server_that_is_down_is_reported_after_retries(
    server: LoopbackServer, item: pystac.Item, tmp_path: Path
) -> None:
    server.route(ARCHIVE, Answer(503))
    retry = RetryPolicy(max_attempts=2, sleep=lambda _: None)
    loader = STACDownloader(stac_io=GitLabStacIO(retry=retry))
    with pytest.raises(STACGitLabError, match="503"):
        loader.download_project(item, tmp_path / "lakes")
    assert len(server.requests) == 2
    assert names_in(tmp_path) == []
