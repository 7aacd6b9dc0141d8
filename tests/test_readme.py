"""The README has two commands that run as written, and links that work on a package index."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


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


def test_there_are_no_other_commands() -> None:
    assert len(commands()) == 2


def test_every_link_is_absolute_because_an_index_page_has_no_relative_ones() -> None:
    links = re.findall(r"(?:\]\(|^\[.+\]: )([^)\s]+)", README, re.MULTILINE)
    assert len(links) > 10
    assert [link for link in links if not link.startswith("https://")] == []


def test_every_short_link_has_its_target() -> None:
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", README, flags=re.MULTILINE | re.DOTALL)
    defined = set(re.findall(r"^\[(.+)\]: ", prose, re.MULTILINE))
    assert set(re.findall(r"\[([^\]]+)\](?![(:])", prose)) == defined


def test_links_to_the_repository_are_to_files_that_it_has() -> None:
    if not (ROOT / "stac_gitlab").exists():
        pytest.skip("this is not a checkout")
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    urls = dict(re.findall(r"(\w+) = (\S+)", config["metadata"]["project_urls"]))
    blob = f"{urls['Source']}/-/blob/main/"
    texts = [README, *urls.values()]
    paths = [path for text in texts for path in re.findall(rf"{re.escape(blob)}(\S+)", text)]
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 220
