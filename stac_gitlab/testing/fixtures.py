"""The fixtures of the pytest plugin, for a `conftest.py` that names them.

pytest loads the plugin `pytest_stac_gitlab` by itself, unless `PYTEST_DISABLE_PLUGIN_AUTOLOAD` is
set. This line enables the fixtures in any case:

    pytest_plugins = ["stac_gitlab.testing.fixtures"]
"""

from __future__ import annotations

from typing import Protocol

from pytest_stac_gitlab import sharinghub, sharinghub_factory
from stac_gitlab.testing.projects import Project
from stac_gitlab.testing.server import SharingHubServer

__all__ = ["SharingHubFactory", "sharinghub", "sharinghub_factory"]


class SharingHubFactory(Protocol):
    """Starts a `SharingHubServer`. It takes projects, and the options of the server by name."""

    def __call__(self, *projects: Project, **options: object) -> SharingHubServer:
        """Start a server over these projects."""
