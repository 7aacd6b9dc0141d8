"""Downloads in a Dask cluster, and the examples of its page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_servers import program

import stac_gitlab
from stac_gitlab.testing import (
    Answer,
    Fault,
    LoopbackServer,
    Project,
    RecordedRequest,
    SharingHubServer,
    sample_projects,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PROGRAM = Path(__file__).with_name("run.py")
PAGE = Path(__file__).parents[2] / "docs" / "dask.md"
TOKEN = "glpat-of-the-workers-0001"
ITEMS = 40
FILES = {"a.csv": b"id\n1\n" * 2000, "b.bin": bytes(range(256)) * 400}


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    projects = [Project(f"group/lakes{number}", FILES) for number in range(ITEMS)]
    with SharingHubServer(projects, token=TOKEN) as running:
        yield running


def run(url: str, folder: Path, mode: str, *more: str) -> str:
    there = Path(stac_gitlab.__file__).parents[1]
    done = subprocess.run(
        [program("python"), str(PROGRAM), url, str(folder), mode, *more],
        input=f"{TOKEN}\n",
        env={**os.environ, "PYTHONPATH": str(there)},
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Dask logs the names of tasks.
    assert TOKEN not in done.stdout + done.stderr
    return done.stdout


def download(hub: SharingHubServer, folder: Path, mode: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(hub.url, folder, mode).splitlines()[-1])
    return found


def assert_complete(folder: Path) -> None:
    """Assert that each file is there, complete, and nothing else but the records."""
    found = {path for path in folder.rglob("*") if path.is_file()}
    records = folder / ".stac-gitlab-records.jsonl"
    expected = {
        folder / "dataset" / "group" / f"lakes{number}" / name: content
        for number in range(ITEMS)
        for name, content in FILES.items()
    }
    assert found - {records} == set(expected)
    assert all(path.read_bytes() == content for path, content in expected.items())


def test_two_processes_download_with_the_token_of_their_environment(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    found = download(hub, tmp_path / "out", "all")
    assert found["states"] == {"downloaded": 2 * ITEMS}
    assert found["counts"]["expected"] == found["counts"]["done"] == 2 * ITEMS
    assert found["counts"]["bytes"] == ITEMS * sum(map(len, FILES.values()))
    assert_complete(tmp_path / "out")
    assert {request.headers["X-Gitlab-Token"] for request in hub.requests} == {TOKEN}


def test_a_worker_that_is_killed_loses_nothing(hub: SharingHubServer, tmp_path: Path) -> None:
    hub.inject(Fault(path="/api/download", delay=0.05, times=None))
    found = download(hub, tmp_path / "out", "kill")
    assert sum(found["states"].values()) == found["counts"]["done"] == 2 * ITEMS
    assert set(found["states"]) <= {"downloaded", "resumed", "skipped"}
    assert_complete(tmp_path / "out")


def test_the_report_names_what_a_dead_worker_did_not_finish(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    slow = hub.inject(Fault(path="/api/download", delay=0.05, times=None))
    found = download(hub, tmp_path / "out", "lose")
    failed = found["states"]["failed"]
    assert 0 < failed < 2 * ITEMS
    assert f"{failed} assets of {ITEMS} items failed" in found["error"]
    assert "KilledWorker" in found["error"]
    slow.disarm()
    again = download(hub, tmp_path / "out", "all")
    assert set(again["states"]) <= {"downloaded", "skipped"}
    assert again["states"]["skipped"] >= 10
    assert_complete(tmp_path / "out")


def test_processes_that_share_a_rate_limit_waste_few_requests(tmp_path: Path) -> None:
    lock = threading.Lock()
    window = [0.0, 0]

    def limited(_request: RecordedRequest) -> Answer:
        with lock:
            now = time.monotonic()
            if now - window[0] > 1:
                window[:] = [now, 0]
            window[1] += 1
            if window[1] > 40:
                return Answer(429, (("retry-after", "1"),))
        return Answer(200, (), b"x")

    with LoopbackServer({"/limited": limited}) as server:
        found = json.loads(run(server.url, tmp_path / "out", "limited").splitlines()[-1])
        assert found["states"] == {"downloaded": 160}
        refused = sum(request.status == 429 for request in server.requests)
        assert refused / len(server.requests) < 0.25


def test_the_examples_of_the_page_run(tmp_path: Path) -> None:
    blocks = re.findall(r"(?ms)^```py\n(.*?)^```$", PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 4
    with SharingHubServer(sample_projects(), token=TOKEN) as hub:
        shared = tmp_path / "shared"
        text = "\n".join(blocks).replace("https://hub.example.org", hub.url)
        code = tmp_path / "page.py"
        code.write_text(text.replace("/shared", str(shared)), encoding="utf-8")
        printed = run(hub.url, shared, "page", str(code))
        assert {r.headers["X-Gitlab-Token"] for r in hub.requests if "/api/" in r.path} == {TOKEN}
    item = "alpine/lakes/lake-temperature"
    for folder in ("executor", "bag", "array"):
        assert (
            shared / folder / "dataset" / item / "data/temperature.csv"
        ).stat().st_size == 132485
    assert f"{item} 3 downloaded" in printed
    assert f"{item} 132485" in printed
