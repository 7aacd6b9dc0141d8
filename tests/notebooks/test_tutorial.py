"""The tutorial runs, and its outputs are those that the documentation shows."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from notebooks.notebook import execute_notebook
from notebooks.tutorial import TUTORIAL, normalized

from stac_gitlab import NotFoundError


@pytest.fixture
def tutorial() -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(TUTORIAL.read_text(encoding="utf-8"))
    return notebook


@pytest.mark.slow
def test_the_tutorial_has_the_outputs_that_it_shows(
    tutorial: dict[str, Any], tmp_path: Path
) -> None:
    executed = normalized(execute_notebook(tutorial, folder=tmp_path))
    for cell, shown in zip(executed["cells"], tutorial["cells"], strict=True):
        assert cell.get("outputs") == shown.get("outputs"), (
            "run tests/notebooks/tutorial.py again, and look at the difference"
        )


def test_the_code_of_the_tutorial_runs(
    tutorial: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stderr", None)
    names: dict[str, Any] = {}
    for cell in tutorial["cells"]:
        if cell["cell_type"] != "code":
            continue
        code = compile(ast.parse("".join(cell["source"])), "tutorial", "exec")
        if "raises-exception" in cell["metadata"].get("tags", []):
            with pytest.raises(NotFoundError):
                exec(code, names)
        else:
            exec(code, names)
    assert names["report"].ok
    assert names["batch"].ok


def test_the_tutorial_is_small_and_holds_no_path_of_a_machine(tutorial: dict[str, Any]) -> None:
    text = TUTORIAL.read_text(encoding="utf-8")
    assert len(text) < 100_000
    assert "/tmp" not in text
    assert "/home" not in text
    assert tutorial == normalized(tutorial)
    assert all(cell.get("outputs") != [] for cell in tutorial["cells"][-12:-5:2])
