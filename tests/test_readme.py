"""The two commands at the top of the README are what a machine can run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    return re.findall(r"^```bash\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL)


def test_the_first_command_runs_the_demo_in_an_environment_of_its_own() -> None:
    demo = commands()[0]
    assert "\n" not in demo
    assert demo.startswith("python3 -m venv .venv && ")
    assert demo.endswith(" && .venv/bin/stac-gitlab demo")


def test_the_second_command_runs_the_tests() -> None:
    tests = commands()[1]
    assert "\n" not in tests
    assert "pip install -q -e '.[test]'" in tests
    assert tests.endswith(" && .venv/bin/python -m pytest -q")


def test_no_other_block_is_taken_for_a_command() -> None:
    assert len(commands()) == 2


def test_it_fits_what_a_reader_has_time_for() -> None:
    assert len(README.splitlines()) <= 220
