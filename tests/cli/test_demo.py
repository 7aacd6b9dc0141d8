"""The command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stac_gitlab import __version__
from stac_gitlab.testing import Fault, Project, SharingHubServer, sample_projects

TOKEN = "glpat-of-the-command-0001"


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stac_gitlab", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    with SharingHubServer(sample_projects(), token=TOKEN) as running:
        yield running


def test_the_demo_browses_downloads_and_verifies(tmp_path: Path) -> None:
    done = command("demo", "--output", str(tmp_path / "files"))
    assert done.returncode == 0, done.stderr
    assert "alpine/lakes/lake-temperature: Lake surface temperature" in done.stdout
    assert "verified (sha256" in done.stdout
    assert (tmp_path / "files" / "data" / "temperature.csv").stat().st_size == 132485


def test_the_demo_needs_no_proxy_for_its_own_server(tmp_path: Path) -> None:
    proxy = "http://127.0.0.1:9"
    done = command("demo", "--output", str(tmp_path), HTTP_PROXY=proxy, http_proxy=proxy)
    assert done.returncode == 0, done.stderr


def test_the_demo_works_with_a_real_server(hub: SharingHubServer, tmp_path: Path) -> None:
    item = "alpine/lakes/ice-cover"
    done = command(
        "demo",
        "--url",
        hub.url,
        "--item",
        item,
        "--output",
        str(tmp_path),
        STAC_GITLAB_TOKEN=TOKEN,
    )
    assert done.returncode == 0, done.stderr
    assert f"Downloading the data of {item}" in done.stdout
    assert (tmp_path / "data" / "notes résumé.txt").exists()
    assert TOKEN not in done.stdout + done.stderr


def test_a_wrong_token_is_a_message_without_a_traceback(hub: SharingHubServer) -> None:
    done = command("demo", "--url", hub.url, STAC_GITLAB_TOKEN="glpat-wrong-0000001")
    assert done.returncode == 1
    assert done.stderr.startswith("stac-gitlab: GET ")
    assert "SharingHub got no valid token" in done.stderr
    assert "Traceback" not in done.stderr
    assert "glpat-wrong" not in done.stdout + done.stderr


def test_a_missing_item_is_reported(hub: SharingHubServer) -> None:
    done = command("demo", "--url", hub.url, "--item", "no/such", STAC_GITLAB_TOKEN=TOKEN)
    assert (done.returncode, done.stderr) == (1, "\nThere is no item 'no/such' to download.\n")


def test_an_invalid_address_is_reported() -> None:
    done = command("demo", "--url", "ftp://hub.example.org")
    assert done.returncode == 1
    assert "is not" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_with_few_characters_works(tmp_path: Path) -> None:
    done = command("demo", "--output", str(tmp_path), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "r?sum?" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM is a matter of POSIX systems")
def test_control_characters_from_a_hub_are_escaped(tmp_path: Path) -> None:
    escape = "\x1b]0;title\x07\x1b[2J"
    project = Project("group/lakes", {"a.csv": b"id"}, title=f"Lakes{escape}")
    with SharingHubServer([project], token=TOKEN) as hub:
        done = command("demo", "--url", hub.url, "--output", str(tmp_path), GITLAB_TOKEN=TOKEN)
    assert r"Lakes\x1b]0;title\x07\x1b[2J" in done.stdout
    assert not {"\x1b", "\x07"}.intersection(done.stdout + done.stderr)


def test_sigterm_stops_the_command_cleanly(hub: SharingHubServer, tmp_path: Path) -> None:
    hub.inject(Fault(path="/api/download", delay=30, times=None))
    child = subprocess.Popen(
        [sys.executable, "-m", "stac_gitlab", "demo", "--url", hub.url, "--output", str(tmp_path)],
        env={**os.environ, "STAC_GITLAB_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("Downloading"):
            break
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=10)
    assert (child.returncode, errors) == (130, "stac-gitlab: stopped.\n")
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_printed() -> None:
    assert command("--version").stdout == f"stac-gitlab {__version__}\n"
