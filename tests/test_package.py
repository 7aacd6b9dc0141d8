"""What importing the package brings, and what comes when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import stac_gitlab


def test_importing_brings_no_downloader_and_asking_does() -> None:
    program = (
        "import sys, stac_gitlab;"
        "assert 'stac_gitlab.downloader' not in sys.modules;"
        "assert stac_gitlab.downloader.STACDownloader is stac_gitlab.STACDownloader;"
        "from stac_gitlab import *; STACAPI, BulkReport"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_public_name_is_there_and_listed() -> None:
    for name in stac_gitlab.__all__:
        assert getattr(stac_gitlab, name) is not None
        assert name in dir(stac_gitlab)


def test_any_other_name_is_missing() -> None:
    with pytest.raises(AttributeError, match="'Downloader'"):
        _ = stac_gitlab.Downloader
