"""Threads in a line: one computes, those who wait let others go ahead, and nobody gets stuck."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from stac_gitlab.http import deadline as line_module
from stac_gitlab.http.deadline import Line, away, standing_in


class Clocks:
    """The two clocks that a line looks at, which move only when a test says so."""

    def __init__(self) -> None:
        self.now = self.busy = 0.0

    def compute(self, seconds: float) -> None:
        self.now += seconds
        self.busy += seconds

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.busy


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(line_module, "time", clocks)
    return clocks


@pytest.fixture
def line(clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    # Long enough to tell from none.
    monkeypatch.setattr(line_module, "_PATIENCE", 5.0)
    line = Line()
    yield line
    assert line.enter(), "somebody is still in front"


def test_one_is_in_front_at_a_time(line: Line) -> None:
    computing, most = 0, 0

    def work() -> None:
        nonlocal computing, most
        for _ in range(20):
            with standing_in(line):
                computing += 1
                most = max(most, computing)
                time.sleep(0.0001)
                computing -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_whoever_waits_lets_others_go_ahead(line: Line) -> None:
    came = threading.Event()

    def ahead() -> None:
        with standing_in(line):
            came.set()

    other = threading.Thread(target=ahead)
    with standing_in(line):
        other.start()
        assert not came.wait(0.05)
        with away():
            assert came.wait(5)
    other.join()


@pytest.mark.parametrize("computed_before", [0.0, 0.9])
def test_behind_those_who_wait_for_a_disk_nobody_stands_for_long(
    line: Line, clocks: Clocks, computed_before: float
) -> None:
    with standing_in(line):
        clocks.compute(computed_before)
        clocks.wait(5)
    assert goes_ahead(line, within=2)


def test_behind_those_who_compute_again_one_waits_again(line: Line, clocks: Clocks) -> None:
    with standing_in(line):
        clocks.wait(5)
    for _ in range(20):
        with standing_in(line):
            clocks.compute(1)
    assert not goes_ahead(line, within=0.1)


def goes_ahead(line: Line, *, within: float) -> bool:
    """Tell whether a thread goes ahead of one that is in front and does not move."""
    came = threading.Event()

    def ahead() -> None:
        with standing_in(line):
            came.set()

    other = threading.Thread(target=ahead)
    with standing_in(line):
        other.start()
        has_come = came.wait(within)
    other.join()
    return has_come


def test_one_line_inside_another_gives_it_back(line: Line) -> None:
    inner = Line()
    with standing_in(line):
        with standing_in(inner):
            assert line.enter(), "who stands elsewhere is not in front here"
            line.leave()
        assert inner.enter()
        inner.leave()
        with pytest.raises(ZeroDivisionError), away():
            raise ZeroDivisionError


def test_outside_of_a_line_being_away_changes_nothing() -> None:
    with away():
        pass
