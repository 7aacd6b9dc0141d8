"""The reader of libraries that call this package without naming one."""

from __future__ import annotations

import os
from functools import cache

import pystac

from stac_gitlab.auth import URL_VARIABLE
from stac_gitlab.reading.stac_io import GitLabStacIO


def shared_reader() -> GitLabStacIO:
    """Return pystac's default reader if it is a GitLabStacIO, or else one for this process."""
    default = pystac.StacIO.default()
    if isinstance(default, GitLabStacIO):
        return default
    return reader_for(os.environ.get(URL_VARIABLE))


@cache
def reader_for(_url: str | None) -> GitLabStacIO:
    """Return the reader with the token of the environment; a new one for another default server."""
    return GitLabStacIO()
