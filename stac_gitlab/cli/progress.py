"""Progress where there is no terminal: a line for each file, in a section of a GitLab job log."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

from stac_gitlab.download.report import human_size
from stac_gitlab.redaction import printable


class Lines:
    """Prints a line to standard error for each finished file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished = self._expected = 0

    def expect(self, files: int, size: int | None) -> None:
        """Count more files."""
        with self._lock:
            self._expected += files

    def advance(self, key: str, received: int, total: int | None) -> None:
        """Print nothing."""

    def done(self, key: str, size: int | None) -> None:
        """Print a line about a file, which failed if it has no size."""
        with self._lock:
            self._finished += 1
            state = "failed" if size is None else human_size(size)
            name = printable(key, limit=1000)
            _print(f"[{self._finished}/{self._expected}] {name}  {state}")


def in_gitlab_job() -> bool:
    """Return whether this is a job of GitLab CI."""
    return bool(os.environ.get("GITLAB_CI"))


@contextlib.contextmanager
def log_section(name: str, title: str, *, is_shown: bool) -> Iterator[None]:
    """Let GitLab fold the lines that are printed meanwhile. Elsewhere nothing is printed.

    Source: GitLab CI/CD, job logs, custom collapsible sections.
    """
    if not (is_shown and in_gitlab_job()):
        yield
        return
    name = f"stac_gitlab_{name}_{os.getpid()}"
    start = f"section_start:{int(time.time())}:{name}[collapsed=true]"
    _print(f"\033[0K{start}\r\033[0K{printable(title, limit=1000)}")
    try:
        yield
    finally:
        _print(f"\033[0Ksection_end:{int(time.time())}:{name}\r\033[0K")


def _print(text: str) -> None:
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)
