"""Threads in a line: one computes, those who wait let others go ahead, and nobody gets stuck."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from stac_gitlab import line as line_module
from stac_gitlab.line import Line, away, standing_in


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    # Long enough to tell from none.
    monkeypatch.setattr(line_module, "_PATIENCE", 5.0)
    line = Line()
    yield line
    assert line.enter(), "somebody is still in front"


def test_one_is_in_front_at_a_time(line: Line) -> None:
    computing, most = 0, 0

    def compute() -> None:
        nonlocal computing, most
        for _ in range(20):
            with standing_in(line):
                computing += 1
                most = max(most, computing)
                time.sleep(0.0001)
                computing -= 1

    threads = [threading.Thread(target=compute) for _ in range(4)]
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


def test_nobody_stands_behind_for_long(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "_PATIENCE", 0.01)
    came = threading.Event()

    def ahead() -> None:
        with standing_in(line):
            came.set()

    with standing_in(line):
        other = threading.Thread(target=ahead)
        other.start()
        assert came.wait(5), "it never went ahead of one that does not move"
        other.join()


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
