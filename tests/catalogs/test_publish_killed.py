"""A publish of 300 files that is killed five times, run again, cloned and compared.

`STAC_GITLAB_KILLED_MB` sets the size of all files together; by default, they are small.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from stand_in.git_host import TOKEN, GitHost, git

PROJECT = "alpine/lakes"
SMALL, LARGE = 100, 200
LFS_ABOVE = 6_000
MEGABYTES = int(os.environ.get("STAC_GITLAB_KILLED_MB", "20"))
PATIENCE = 60.0 + MEGABYTES / 5
CHILD = f"""
import sys
from stac_gitlab import GitLabStacIO, publish
url, folder, token = sys.argv[1:]
with GitLabStacIO(token, base_url=url) as reader:
    project = url + "/{PROJECT}"
    publish(folder, project, create_project=True, lfs_above={LFS_ABOVE}, stac_io=reader)
"""


def made_files(folder: Path) -> dict[str, str]:
    """Create small files and large ones; return the SHA-256 of the large ones by their paths."""
    noise = random.Random(1)  # not for security
    size = MEGABYTES * 10**6 // LARGE
    hashes = {}
    for number in range(SMALL + LARGE):
        is_large = number >= SMALL
        path = folder / f"part {number % 7}/file {number:03}.{'tif' if is_large else 'csv'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        hasher = hashlib.sha256()
        with path.open("wb") as file:
            left = size if is_large else 5_000
            while left:
                block = noise.randbytes(min(left, 2**20))
                left -= file.write(block)
                hasher.update(block)
        if is_large:
            hashes[path.relative_to(folder).as_posix()] = hasher.hexdigest()
    return hashes


def uploaded(giftless: str, hashes: dict[str, str]) -> int:
    """Return how many objects the Git LFS server has."""
    size = MEGABYTES * 10**6 // LARGE
    objects = [{"oid": each, "size": size} for each in hashes.values()]
    wanted = json.dumps({"operation": "download", "transfers": ["basic"], "objects": objects})
    kind = "application/vnd.git-lfs+json"
    url = f"{giftless}/{PROJECT}.git/info/lfs/objects/batch"
    request = Request(url, wanted.encode(), {"Accept": kind, "Content-Type": kind})
    try:
        with urlopen(request) as response:
            return sum("error" not in each for each in json.loads(response.read())["objects"])
    except HTTPError:
        # It has none.
        return 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a matter of POSIX systems")
@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="needs git-lfs")
def test_a_publish_that_is_killed_five_times_arrives_byte_by_byte(
    giftless: str, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    hashes = made_files(folder)
    host = GitHost(tmp_path / "host")
    host.lfs_server = giftless

    def child() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", CHILD, host.url, str(folder), TOKEN])

    def kill_when(reached: Callable[[], bool]) -> None:
        running, until = child(), time.monotonic() + PATIENCE
        while not reached() and running.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        running.wait()

    def is_committing() -> bool:
        return any(request.path.endswith("/repository/commits") for request in host.requests)

    with host:
        for count in (1, 50, 100, 150):
            kill_when(lambda count=count: uploaded(giftless, hashes) >= count)  # type: ignore[misc]
            if not is_committing():
                assert not host.projects or not git("for-each-ref", cwd=host.repository(PROJECT))
        kill_when(is_committing)
        assert child().wait(PATIENCE) == 0
        host.clear_requests()
        assert child().wait(PATIENCE) == 0
        assert {request.method for request in host.requests} == {"GET"}
        clone = tmp_path / "clone"
        git("clone", "-q", host.repository(PROJECT), clone, cwd=tmp_path)
        git("lfs", "install", "--local", cwd=clone)
        login = f"http://oauth2:{TOKEN}@127.0.0.1:{host.port}"
        git("config", "lfs.url", f"{login}/{PROJECT}.git/info/lfs", cwd=clone)
        subprocess.run(["git", "lfs", "pull"], cwd=clone, check=True, timeout=20 * PATIENCE)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == SMALL + LARGE
    for path in files:
        assert path.read_bytes() == (clone / path.relative_to(folder)).read_bytes(), path
