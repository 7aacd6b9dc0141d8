"""A download that is killed at any moment leaves complete files only."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stac_gitlab.files.partial_file import OWN_PREFIX
from stac_gitlab.testing import Fault, LoopbackServer

FILES = 200

CHILD = """
import datetime, sys
import pystac
from stac_gitlab import STACDownloader
from stac_gitlab.download import stream, transfer

url, folder, files, connections = *sys.argv[1:3], *map(int, sys.argv[3:])
transfer.FIRST_SEGMENT, stream._MIN_SEGMENT = 100_000, 50_000
item = pystac.Item("killed", None, None, datetime.datetime(2024, 1, 1), {})
for number in range(files):
    key = f"part-{number % 7}/{number:03}.bin"
    item.add_asset(key, pystac.Asset(f"{url}/{key}", roles=["data"]))
print("ready", flush=True)
report = STACDownloader(base_url=url).download_assets(item, folder, segments=connections)
print(len(report.downloaded), len(report.skipped), flush=True)
"""


def content_of(key: str) -> bytes:
    """Return what the file with a key holds: some kilobytes, and a few files with megabytes."""
    number = int(key[-7:-4])
    size = 1_500_000 if number % 40 == 0 else 2_000 + 97 * number
    seed = hashlib.sha256(key.encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


@pytest.fixture
def file_server() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        for number in range(FILES):
            key = f"part-{number % 7}/{number:03}.bin"
            content = content_of(key)
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            server.route(f"/{key}", content, ranges=True, headers={"ETag": etag})
        # A little delay, or a run would be over before it can be killed.
        server.inject(Fault(path="part-", delay=0.004, times=None))
        yield server


def finished_files(folder: Path) -> list[str]:
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.bin")
        if not path.name.startswith(OWN_PREFIX)
    ]


def start(server: LoopbackServer, folder: Path, segments: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, server.url, str(folder), str(FILES), str(segments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a matter of POSIX systems")
@pytest.mark.parametrize(("segments", "kills"), [(1, 50), (4, 20)])
def test_no_kill_leaves_a_wrong_file_and_the_next_run_downloads_no_file_twice(
    file_server: LoopbackServer, tmp_path: Path, segments: int, kills: int
) -> None:
    chance = random.Random(20)
    folder = tmp_path / "0"
    caught_under_way = 0
    for kill in range(kills):
        child = start(file_server, folder, segments)
        time.sleep(chance.uniform(0.0, 0.35))
        child.kill()
        child.communicate()
        done = finished_files(folder)
        for key in done:
            assert (folder / key).read_bytes() == content_of(key), key
        caught_under_way += 0 < len(done) < FILES
        if len(done) == FILES:
            folder = tmp_path / str(kill + 1)
    assert caught_under_way >= kills // 4, "the kills came too early or too late to tell anything"

    finished = set(finished_files(folder))
    before = len(file_server.requests)
    child = start(file_server, folder, segments)
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert output == f"{FILES - len(finished)} {len(finished)}\n"
    assert all((folder / key).read_bytes() == content_of(key) for key in finished_files(folder))
    assert len(finished_files(folder)) == FILES
    again = [r for r in file_server.requests[before:] if r.path.lstrip("/") in finished]
    assert {r.status for r in again} <= {304}, "a finished file was fetched again"
    leftovers = list(folder.rglob(f"{OWN_PREFIX}*.part"))
    assert leftovers == []


KILLED_AT = """
import datetime, os, signal, sys
import pystac
from stac_gitlab import STACDownloader

url, folder, name = sys.argv[1:]
really_replace = os.replace

def replace(source, target):
    if os.path.basename(target) == name:
        os.kill(os.getpid(), signal.SIGKILL)
    really_replace(source, target)

os.replace = replace
item = pystac.Item("lakes", None, None, datetime.datetime(2024, 1, 1), {})
item.add_asset("a", pystac.Asset(f"{url}/a", roles=["data"]))
loader = STACDownloader(base_url=url)
loader.download_item(item, folder)
loader.download_items([item], folder, save_json=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a signal of POSIX")
@pytest.mark.parametrize("name", ["a", "lakes.json", "catalog.json"])
def test_the_next_run_removes_what_a_kill_left_of_a_document(
    server: LoopbackServer, tmp_path: Path, name: str
) -> None:
    def run(kill_at: str) -> int:
        command = [sys.executable, "-c", KILLED_AT, server.url, str(tmp_path), kill_at]
        return subprocess.run(command, check=False, timeout=60).returncode

    server.route("/a", b"lakes")
    assert run(name) == -signal.SIGKILL
    assert list(tmp_path.rglob(f"{OWN_PREFIX}*.part"))
    assert run("") == 0
    assert not list(tmp_path.rglob(f"{OWN_PREFIX}*.part"))
