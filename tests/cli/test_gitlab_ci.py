"""The jobs of docs/gitlab-ci.md, run with stand-ins for GitLab and a SharingHub."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from stand_in.git_host import GitHost

from stac_gitlab.cli.progress import log_section
from stac_gitlab.testing import SharingHubServer, sample_projects

PAGE = Path(__file__).parents[2] / "docs" / "gitlab-ci.md"
JOB_TOKEN = "glcbt-64_of-the-job-0001"
PROJECT_TOKEN = "glpat-of-the-project-0001"
BLOCKS = re.findall(r"(?ms)^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"))
JOBS: dict[str, Any] = {name: job for b in BLOCKS for name, job in yaml.safe_load(b).items()}
ITEM = {
    "type": "Feature",
    "stac_version": "1.1.0",
    "id": "forecast",
    "geometry": None,
    "properties": {"datetime": "2024-01-05T00:00:00Z"},
    "links": [],
    "assets": {"model.onnx": {"href": "./model.onnx", "roles": ["mlm:model"]}},
}


class Done(NamedTuple):
    """How a job ended."""

    returncode: int
    stdout: str
    stderr: str


def run_job(name: str, folder: Path, hub: str = "", **variables: str) -> Done:
    """Run the script of a job as a runner does: in bash, which stops at the first failure."""
    job = JOBS[name]
    lines = [f'export {name}="{value}"' for name, value in job.get("variables", {}).items()]
    script = "\n".join(["set -euo pipefail", *lines, *job["script"]])
    programs = folder.parent / "bin"
    programs.mkdir(exist_ok=True)
    command = programs / "stac-gitlab"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stac_gitlab "$@"\n')
    command.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", script.replace("https://hub.example.org", hub)],
        env={
            **os.environ,
            "GITLAB_CI": "true",
            "CI_JOB_TOKEN": JOB_TOKEN,
            "CI_COMMIT_SHORT_SHA": "1a2b3c4d",
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            **variables,
        },
        cwd=folder,
        capture_output=True,
        timeout=60,
        check=False,
    )
    # Not as text, in which a carriage return becomes the end of a line.
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitHost]:
    with GitHost(tmp_path / "host", token=JOB_TOKEN) as host:
        yield host


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "build"
    made.mkdir()
    return made


def assert_folded(log: str) -> None:
    """Assert that there is one section, and no other escape code and no progress bar."""
    rest = re.sub(r"\x1b\[0Ksection_(start|end):\d+:\w+(\[collapsed=true\])?\r\x1b\[0K", "§", log)
    assert rest.count("§") == 2
    assert not {"\x1b", "\r"} & set(rest)


def test_the_page_has_these_jobs() -> None:
    assert list(JOBS) == ["download-model", "download-data", "publish-results"]


def test_a_job_downloads_a_model_with_its_token(gitlab: GitHost, folder: Path) -> None:
    gitlab.add("alpine/forecast")
    files = {"item.json": json.dumps(ITEM).encode(), "model.onnx": b"\x08\x07 a model"}
    gitlab.write("alpine/forecast", files)
    done = run_job("download-model", folder, CI_SERVER_URL=gitlab.url)
    assert done.returncode == 0, done.stderr
    assert (folder / "model" / "model.onnx").read_bytes() == files["model.onnx"]
    assert all(request.headers["JOB-TOKEN"] == JOB_TOKEN for request in gitlab.requests)
    assert_folded(done.stderr)
    assert JOB_TOKEN not in done.stdout + done.stderr


def test_a_job_without_access_fails_with_its_own_code(gitlab: GitHost, folder: Path) -> None:
    gitlab.add("alpine/forecast")
    done = run_job(
        "download-model", folder, CI_SERVER_URL=gitlab.url, CI_JOB_TOKEN="glcbt-64_another-0001"
    )
    assert done.returncode == 3, done.stderr
    assert list(folder.rglob("*.onnx")) == []


def test_a_job_downloads_from_a_hub(folder: Path) -> None:
    with SharingHubServer(sample_projects(), token=PROJECT_TOKEN) as hub:
        done = run_job("download-data", folder, hub.url, STAC_GITLAB_TOKEN=PROJECT_TOKEN)
        assert done.returncode == 0, done.stderr
        sent = [r.headers["X-Gitlab-Token"] for r in hub.requests if "stac" in r.path]
        assert set(sent) == {PROJECT_TOKEN}
    report = json.loads((folder / "report.json").read_text())
    assert {result["status"] for result in report} == {"downloaded"}
    assert (folder / "data/dataset/alpine/lakes/lake-temperature/data/lakes.geojson").exists()
    assert JOB_TOKEN not in done.stdout + done.stderr


def test_a_job_publishes_with_a_project_token(tmp_path: Path, folder: Path) -> None:
    with GitHost(tmp_path / "host", token=PROJECT_TOKEN) as host:
        host.add("alpine/results")
        done = run_job(
            "publish-results", folder, CI_SERVER_URL=host.url, STAC_GITLAB_TOKEN=PROJECT_TOKEN
        )
        assert done.returncode == 0, done.stderr
        assert set(host.files("alpine/results")) == {"README.md", "run.txt"}
    assert_folded(done.stderr)
    assert PROJECT_TOKEN not in done.stdout + done.stderr


def test_the_title_of_a_section_holds_no_escape_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITLAB_CI", "true")
    with log_section("download", "Download to a\x1b[0K\nsection_end:1:b", is_shown=True):
        pass
    start, end, _ = capsys.readouterr().err.split("\n")
    assert start.endswith("Download to a\\x1b[0K\\nsection_end:1:b")
    assert "section_end" in end
