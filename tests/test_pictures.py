"""The pictures of the documentation are what the commands print now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    pytest.importorskip("tqdm")
    pytest.importorskip("pty")
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_terminal_of_the_first_page_shows_what_the_commands_print(
    pictures: ModuleType,
) -> None:
    picture = (DOCS / "terminal.svg").read_text(encoding="utf-8")
    assert pictures.svg_of(pictures.terminal_lines()) == picture, "run docs/pictures.py again"


def test_the_outputs_of_the_tutorial_that_are_shown_are_there(pictures: ModuleType) -> None:
    page = pictures.notebook_page()
    assert page.count("<pre>") == 2
    for part in ("<img src=", "<svg ", "<progress ", "3 downloaded"):
        assert page.count(part) == 1


def test_the_pictures_are_small_and_complete() -> None:
    for name in ("terminal.svg", "notebook.png"):
        assert 1000 < (DOCS / name).stat().st_size < 150_000
    lines = ET.parse(DOCS / "terminal.svg").getroot().itertext()
    text = "\n".join(lines)
    assert "127.0.0.1" not in text
    assert "3 of 3 files: 100%" in text
