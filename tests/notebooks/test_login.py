"""A token that is typed in a notebook stays out of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from notebooks.notebook import run_cells

pytestmark = pytest.mark.slow

TOKEN = "glpat-typed-0123456789"
SETUP = f"""
import os, sys
sys.modules["keyring"] = None
os.environ["XDG_CONFIG_HOME"] = os.getcwd()
from stac_gitlab import *
from stac_gitlab.testing import *
hub = SharingHubServer(sample_projects(), token="".join(["glpat-", {TOKEN[6:]!r}])).start()
"""
CELLS = (
    "login(hub.url)",
    'GitLabStacIO(base_url=hub.url).read_json(hub.item_url("alpine/lakes/ice-cover"))["id"]',
    "%history -g -o",
    "print([value for value in (*In[:-1], *Out.values()) if 'glpat-typed' in repr(value)])",
)


def test_a_typed_token_is_stored_and_gets_into_no_cell_no_output_and_no_history(
    tmp_path: Path,
) -> None:
    _, prompt, read, history, names = run_cells(SETUP, *CELLS, folder=tmp_path, answer=TOKEN)
    stored = tmp_path / "stac-gitlab" / "tokens.json"
    assert prompt.printed.endswith(f"is stored in {stored}.\n")
    assert TOKEN in stored.read_text(encoding="utf-8")
    assert read.shown("text/plain") == ["'alpine/lakes/ice-cover'"]
    assert names.printed == "[]\n"
    assert TOKEN not in json.dumps([cell.outputs for cell in (prompt, read, history, names)])
    kept = [p for p in (tmp_path / ".ipython").rglob("*") if p.is_file()]
    assert kept
    assert not any(TOKEN.encode() in path.read_bytes() for path in kept)


def test_a_notebook_that_a_program_executes_says_what_to_do_instead(tmp_path: Path) -> None:
    _, cell = run_cells(SETUP, "login(hub.url)", folder=tmp_path)
    assert "no terminal to ask" in "\n".join(cell.traceback)
    assert len(cell.traceback) <= 20
