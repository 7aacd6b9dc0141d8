"""Contenders run in turn, as whole processes, and what comes out made a table.

A :class:`Workload` is something to do, a :class:`Contender` one way to do it. In every round each
contender runs once, so that what else the machine is at meets all of them alike; what is compared
are ratios within a round, and of those the median.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Aim", "Contender", "FailedError", "Measure", "Result", "Served", "Workload", "run"]

ROOT = Path(__file__).parents[2]
FOLDER = "{folder}"
"""Stands in a command for the folder that the contender may write to."""

# Seconds after which a contender is given up.
_PATIENCE = 900.0
# Bytes; what has more is removed at once.
_LARGE = 2**20
# Seconds; what takes less is nothing to compare with.
_NOTHING = 0.01


class FailedError(Exception):
    """A contender did not do its work."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work, as a command of its own.

    Attributes:
        name: How tables call it.
        command: The program and its arguments, with :data:`FOLDER` where its folder goes.
        program: A program that has to be on the PATH.
        distribution: A Python distribution that has to be installed.
        continues: The contender in whose folder it goes on; by default it begins in an empty one.
    """

    name: str
    command: Sequence[str]
    program: str | None = None
    distribution: str | None = None
    continues: str | None = None

    def missing(self) -> str | None:
        """Say why it cannot run here, or return None."""
        if self.program is not None and shutil.which(self.program) is None:
            return f"the program {self.program} is not on the PATH"
        if self.distribution is not None:
            try:
                importlib.metadata.version(self.distribution)
            except importlib.metadata.PackageNotFoundError:
                return f"{self.distribution} is not installed in this Python"
        return None


@dataclass(frozen=True)
class Measure:
    """What one run of a contender took.

    Attributes:
        wall: Seconds from the start of the process to its end.
        inside: Seconds of the work alone, without starting Python and importing.
        cpu: Seconds of processor time, of the user and the system.
        peak: Bytes of memory at the worst moment. Never less than what the harness itself holds.
        requests: Requests that the server answered meanwhile.
        body_bytes: Bytes of body that it sent.
    """

    wall: float
    inside: float
    cpu: float
    peak: int
    requests: int
    body_bytes: int


@dataclass(frozen=True)
class Aim:
    """A figure that the package is to reach.

    Attributes:
        text: What is compared with what.
        figure: Makes the figure of one round, from the measures by contender.
        at_most: Its target.
    """

    text: str
    figure: Callable[[Mapping[str, Measure]], float]
    at_most: float


@dataclass(frozen=True)
class Workload:
    """Something to do, and those who do it.

    Attributes:
        name: What to call it on the command line.
        title: What is done.
        contenders: Who does it. The first is what the others are compared with.
        check: Raises a FailedError unless the work was done; it gets the folder, and what the
            contender counted.
        aims: What the package is to reach.
    """

    name: str
    title: str
    contenders: Sequence[Contender]
    check: Callable[[Path, int | None], None] = lambda _folder, _count: None
    aims: Sequence[Aim] = ()


Served = Callable[[], tuple[int, int]]
"""Returns how many requests were answered so far, and the bytes of their bodies."""


@dataclass
class Result:
    """What the rounds of a workload gave, and who is not in them, and why."""

    workload: Workload
    rounds: list[dict[str, Measure]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def table(self) -> str:
        """Return the table, in Markdown."""
        lines = [
            f"### {self.workload.name}: {self.workload.title}",
            "",
            "| contender | wall, s | ratio | inside, s | ratio | CPU, s | peak, MB |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {name} | {self._median(name, 'wall'):.3f} | {self._ratio(name, 'wall')} "
            f"| {self._median(name, 'inside'):.3f} | {self._ratio(name, 'inside')} "
            f"| {self._median(name, 'cpu'):.2f} | {self._median(name, 'peak') / 2**20:.0f} |"
            for name in self._present()
        ]
        lines += [f"| {name} | {why} | | | | | |" for name, why in self.absent.items()]
        lines += [
            f"\n{text}: {value:.2f} (target: at most {most:.2f})"
            for text, value, most in self.aims()
        ]
        return "\n".join(lines)

    def aims(self) -> list[tuple[str, float, float]]:
        """Return text, median figure and bound of each aim whose contenders were there."""
        found = []
        for aim in self.workload.aims:
            try:
                figures = [aim.figure(measures) for measures in self.rounds]
            except KeyError:
                continue
            found.append((aim.text, statistics.median(figures), aim.at_most))
        return found

    def as_json(self) -> dict[str, Any]:
        """Return everything that was measured."""
        return {
            "name": self.workload.name,
            "title": self.workload.title,
            "absent": self.absent,
            "rounds": [{name: asdict(m) for name, m in one.items()} for one in self.rounds],
            "aims": [{"text": t, "figure": v, "at_most": most} for t, v, most in self.aims()],
        }

    def _present(self) -> list[str]:
        names = (contender.name for contender in self.workload.contenders)
        return [name for name in names if self.rounds and name not in self.absent]

    def _median(self, name: str, what: str) -> float:
        return float(statistics.median(getattr(one[name], what) for one in self.rounds))

    def _ratio(self, name: str, what: str) -> str:
        first = self._present()[0]
        if self._median(first, what) < _NOTHING:
            return "-"
        ratios = (getattr(one[name], what) / getattr(one[first], what) for one in self.rounds)
        return f"{statistics.median(ratios):.2f}"


def run(
    workload: Workload,
    *,
    rounds: int,
    folder: Path,
    environment: Mapping[str, str],
    served: Served,
) -> Result:
    """Let every contender of a workload run once a round.

    Args:
        workload: What to do.
        rounds: How often.
        folder: Where the contenders get folders of their own.
        environment: The environment that all of them get.
        served: What the server has answered so far.
    """
    result = Result(workload)
    for contender in workload.contenders:
        reason = contender.missing()
        if reason is not None:
            result.absent[contender.name] = f"skipped: {reason}"
    continued = {contender.continues for contender in workload.contenders}
    for number in range(rounds):
        measures: dict[str, Measure] = {}
        for contender in workload.contenders:
            if contender.name in result.absent:
                continue
            name = (contender.continues or contender.name).replace(" ", "-")
            own = folder / workload.name / str(number) / name
            own.mkdir(parents=True, exist_ok=True)
            try:
                measure, count = _run_once(contender, own, environment, served)
                workload.check(own, count)
            except FailedError as failure:
                # The others can still be compared.
                result.absent[contender.name] = f"failed: {failure}"
            else:
                measures[contender.name] = measure
            if contender.name not in continued:
                _remove_large_files(own)
        result.rounds.append(measures)
    return result


def _remove_large_files(folder: Path) -> None:
    """Make room, but leave small files: who creates files soon after many were removed pays for it.

    ext4, for one, passes over every inode that was freed within the last minutes.
    """
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size > _LARGE:
            path.unlink()


def _run_once(
    contender: Contender, folder: Path, environment: Mapping[str, str], served: Served
) -> tuple[Measure, int | None]:
    command = [part.replace(FOLDER, str(folder)) for part in contender.command]
    # Nobody waits for a disk that is still busy with what the one before wrote.
    os.sync()
    requests_before, bytes_before = served()
    started = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        watchdog = threading.Timer(_PATIENCE, process.kill)
        watchdog.start()
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        watchdog.cancel()
    if process.returncode:
        raise FailedError(f"it ended with {process.returncode}")
    # A server notes a request once it is through with it, a little after the client is.
    time.sleep(0.02)
    requests_after, bytes_after = served()
    progress = json.loads(said.splitlines()[-1]) if said.startswith("{") else {}
    measure = Measure(
        wall=wall,
        inside=progress.get("seconds", wall),
        cpu=usage.ru_utime + usage.ru_stime,
        # Linux counts in KiB, macOS in bytes.
        peak=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        requests=requests_after - requests_before,
        body_bytes=bytes_after - bytes_before,
    )
    return measure, progress.get("count")
