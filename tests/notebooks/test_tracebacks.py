"""Errors in a notebook: the frames of the user, and the message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from notebooks.notebook import run_cells

pytestmark = pytest.mark.slow

SETUP = """
import pystac
from stac_gitlab import *
from stac_gitlab.testing import *

hub = SharingHubServer(sample_projects()).start()
reader = GitLabStacIO(hub.token, base_url=hub.url, on_bad_item="raise")
downloader = STACDownloader(stac_io=reader, base_url=hub.url)
api = STACAPI(hub.stac_url, stac_io=reader)
"""
LINKED = """
catalog = pystac.Catalog.from_file(hub.stac_url, stac_io=reader)
catalog.links = [link for link in catalog.links if link.rel != "data"]
catalog.add_link(pystac.Link("child", hub.stac_url + "/collections/nope"))
list(catalog.get_children())
"""
MISSING = [
    'reader.read_json(hub.item_url("alpine/nope"))',
    'downloader.load_item("dataset", "alpine", "nope")',
    'pystac.Item.from_file(hub.item_url("alpine/nope"), stac_io=reader)',
    'api.item("dataset", "alpine/nope")',
    LINKED,
    # The last one: from here on each listing fails.
    'hub.inject(Fault(path="/items", status=404, times=None))\nlist(api.items("dataset"))',
]


def test_a_404_is_a_few_lines_in_a_notebook_with_the_frames_of_the_user_only(
    tmp_path: Path,
) -> None:
    _, *cells, all_frames = run_cells(
        SETUP, *MISSING, "%xmode Verbose\n" + MISSING[0], folder=tmp_path
    )
    for cell, source in zip(cells, MISSING, strict=True):
        lines = cell.traceback
        assert len(lines) <= 20, source
        assert not any("site-packages" in line or "stac_gitlab/" in line for line in lines)
        assert source.strip().splitlines()[-1] in "\n".join(lines)
        assert any("404 Not Found" in line for line in lines)
    assert any("session.py" in line for line in all_frames.traceback)


def test_no_output_of_a_notebook_holds_the_token(tmp_path: Path) -> None:
    """Not even with the values of the variables in each frame."""
    setup = SETUP.replace(
        "sample_projects()", 'sample_projects(), token="".join(["glpat-", SECRET])'
    )
    cells = run_cells(
        'SECRET = "canary-0123456789"\n%xmode Verbose' + setup,
        "reader",
        "downloader",
        "api",
        'item = api.item("dataset", "alpine/lakes/lake-temperature")\npreview(item)',
        'downloader.download_assets(item, "out", progress=True)',
        "hub.inject(Fault(status=401, times=None))\n" + MISSING[0],
        MISSING[1],
        'downloader.download_assets(item, "again")',
        "hub.close()\nGitLabStacIO(hub.token, base_url=hub.url)" if False else "SECRET = None",
        folder=tmp_path,
    )
    outputs = json.dumps([cell.outputs for cell in cells])
    assert "401 Unauthorized" in outputs
    assert "glpat-canary" not in outputs
