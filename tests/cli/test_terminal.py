"""The commands in a terminal: colour, widths, bars and Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stac_gitlab.testing import Fault, Project, SharingHubServer, sample_projects

pty = pytest.importorskip("pty", reason="terminals are a matter of POSIX systems")
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

TOKEN = "glpat-of-the-command-0001"
LAKES = "alpine/lakes/lake-temperature"


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    title = "A title that is much longer than the line \x1b[31m of any terminal " * 3
    projects = [*sample_projects(), Project("group/long", {"a.csv": b""}, title=title)]
    with SharingHubServer(projects, token=TOKEN) as running:
        yield running


class Terminal:
    """A command in a terminal of so many columns."""

    def __init__(self, *arguments: str, columns: int = 80, **environment: str) -> None:
        try:
            master, slave = pty.openpty()
        except OSError:
            pytest.skip("there are no terminals here, as in a chroot without devpts")
        termios.tcsetwinsize(slave, (24, columns))
        self._master = master
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stac_gitlab", *arguments],
            env={
                # The size of another terminal would count.
                **{name: each for name, each in os.environ.items() if name != "COLUMNS"},
                "TERM": "xterm",
                "PYTHONIOENCODING": "utf-8",
                "STAC_GITLAB_TOKEN": TOKEN,
                **environment,
            },
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            # It only makes a system call.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(slave)
        self.shown = ""

    def read_until(self, text: str) -> None:
        """Read what is shown until a text appears, or until the end."""
        while text not in self.shown:
            try:
                read = os.read(self._master, 65536)
            except OSError:
                # Linux says so at the end.
                break
            if not read:
                break
            self.shown += read.decode("utf-8", "replace")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Read all that is shown; return the exit code."""
        self.read_until("\0 never")
        code = self._process.wait(timeout=30)
        with contextlib.suppress(OSError):
            os.close(self._master)
        return code


@pytest.mark.parametrize("columns", [20, 60, 300])
def test_lines_fit_the_terminal_unless_their_ids_do_not(
    hub: SharingHubServer, columns: int
) -> None:
    terminal = Terminal("ls", f"{hub.stac_url}/collections/dataset", columns=columns)
    assert terminal.end() == 0, terminal.shown
    plain = re.sub(r"\x1b\[\d*m", "", terminal.shown).replace("\r", "")
    assert "\x1b" not in plain
    lines = plain.splitlines()
    assert lines[0] == "Datasets"
    assert any(LAKES in line for line in lines)
    least = 2 + len(LAKES) + 2 * (2 + 8)
    assert max(map(len, lines)) <= max(columns, least)


def test_colour_is_for_terminals_that_want_it(hub: SharingHubServer) -> None:
    bold = Terminal("ls", hub.item_url(LAKES))
    assert bold.end() == 0
    assert f"\x1b[1m{LAKES}\x1b[0m" in bold.shown
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        terminal = Terminal("ls", hub.item_url(LAKES), **plain)
        assert terminal.end() == 0
        assert "\x1b" not in terminal.shown


def test_bars_are_shown_in_a_terminal_but_not_in_a_job(
    hub: SharingHubServer, tmp_path: Path
) -> None:
    pytest.importorskip("tqdm")
    arguments = ("download", hub.item_url(LAKES), "-o", str(tmp_path))
    bars = Terminal(*arguments)
    assert bars.end() == 0
    assert "3 of 3 files: 100%" in bars.shown
    assert "[3/3]" not in bars.shown
    job = Terminal(*arguments, GITLAB_CI="true")
    assert job.end() == 0
    assert "3 of 3 files" not in job.shown
    assert "[3/3]" in job.shown


def test_ctrl_c_ends_a_download(hub: SharingHubServer, tmp_path: Path) -> None:
    hub.inject(Fault(path="/api/download", delay=30, times=None))
    terminal = Terminal("download", hub.item_url(LAKES), "-o", str(tmp_path))
    while not any("/api/download" in request.path for request in hub.requests):
        time.sleep(0.05)
    terminal.type("\x03")
    assert terminal.end() == 130
    assert terminal.shown.rstrip().endswith("stac-gitlab: stopped.")
    assert "Traceback" not in terminal.shown
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_token_is_asked_for_and_not_shown(hub: SharingHubServer, tmp_path: Path) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path), "STAC_GITLAB_TOKEN": ""}
    terminal = Terminal("auth", "login", hub.url, **home)
    terminal.read_until("Token for")
    terminal.type(f"{TOKEN}\n")
    assert terminal.end() == 0, terminal.shown
    assert "is stored in" in terminal.shown
    assert TOKEN not in terminal.shown
    nothing = Terminal("auth", "login", hub.url, **home)
    nothing.read_until("Token for")
    nothing.type("\x04")
    assert nothing.end() == 2
    assert "Nothing is stored" in nothing.shown
    assert "Traceback" not in nothing.shown
