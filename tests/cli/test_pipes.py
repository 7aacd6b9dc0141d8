"""Pipes from and to the commands of pystac-client and stac-asset."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_servers import program

from stac_gitlab.testing import SharingHubServer, sample_projects

TOKEN = "glpat-of-the-command-0001"
LAKES = "alpine/lakes/lake-temperature"
OURS = f"{sys.executable} -m stac_gitlab"


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    with SharingHubServer(sample_projects(), token=TOKEN) as running:
        yield running


def pipe(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env={**os.environ, "STAC_GITLAB_TOKEN": TOKEN},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_search_of_stac_client_is_downloaded(hub: SharingHubServer, tmp_path: Path) -> None:
    client = f"{sys.executable} -m pystac_client.cli"
    search = f"{client} search {hub.stac_url} --headers X-Gitlab-Token={TOKEN} -c dataset"
    search += " --method GET"
    done = pipe(f"{search} | {OURS} download - -o found -i '*.csv'", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "found/dataset" / LAKES / "data/temperature.csv").stat().st_size == 132485


@pytest.mark.slow
@pytest.mark.parametrize("ours", ["search {hub} -c dataset --ids {item}", "show {url} --json"])
def test_stac_asset_downloads_what_is_printed(
    hub: SharingHubServer, tmp_path: Path, ours: str
) -> None:
    asset = program("stac-asset")
    command = ours.format(hub=hub.url, item=LAKES, url=hub.item_url(LAKES))
    header = f"--http-header X-Gitlab-Token={TOKEN}"
    line = f"{OURS} {command} | {asset} download - found {header} -i data/temperature.csv"
    (tmp_path / "found").mkdir()
    done = pipe(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert next(tmp_path.rglob("temperature.csv")).stat().st_size == 132485
