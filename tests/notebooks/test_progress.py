"""Bars in a real notebook: few outputs, whatever the number of files."""

from __future__ import annotations

from pathlib import Path

import pytest
from notebooks.notebook import run_cells

pytestmark = pytest.mark.slow

SETUP = """
import sys
from stac_gitlab import *
from stac_gitlab.testing import *

files = {f"data/{n}.csv": b"id" for n in range(10)}
projects = [Project(f"many/{n}", files) for n in range(100)]
projects += [Project(f"large/{n}", {"l.bin": bytes(12_000_000)}) for n in range(6)]
hub = SharingHubServer(projects).start()
downloader = STACDownloader(hub.token, hub.url, progress=True)
items = list(STACAPI(hub.stac_url, stac_io=downloader.stac_io).items("dataset"))
"""
MANY = 'report = downloader.download_items(items, "out")'


@pytest.mark.parametrize("widgets", ["", "sys.modules['ipywidgets'] = None"], ids=["with", "no"])
def test_many_files_leave_one_small_output(tmp_path: Path, widgets: str) -> None:
    _, run, report, again = run_cells(SETUP + widgets, MANY, "report", MANY, folder=tmp_path)
    for cell in (run, again):
        assert len(cell.outputs) == 1
        assert cell.size < 5_000
        [html] = cell.shown("text/html")
        assert html.count("<progress ") == 1
    [text] = run.shown("text/plain")
    assert "1006 of 1006 files: 100%, 72.0M of 72.0M" in text
    assert report.size < 5_000
