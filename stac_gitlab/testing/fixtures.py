"""The pytest plugin: fixtures that start SharingHub stand-ins.

pytest loads it by its entry point, which has the name of this module. Where
`PYTEST_DISABLE_PLUGIN_AUTOLOAD` is set, a `conftest.py` enables it:

    pytest_plugins = ["stac_gitlab.testing.fixtures"]

`sharinghub` is a running server over the sample projects. `sharinghub_factory` starts servers over
projects of your own. All of them are closed when the test ends.

PYTEST_DONT_REWRITE: there are no tests here, and the module may have been imported before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from stac_gitlab.testing.projects import Project, sample_projects
from stac_gitlab.testing.server import SharingHubServer


class SharingHubFactory(Protocol):
    """Starts a `SharingHubServer`. It takes projects, and the options of the server by name."""

    def __call__(self, *projects: Project, **options: object) -> SharingHubServer:
        """Start a server over these projects."""


@pytest.fixture
def sharinghub() -> Iterator[SharingHubServer]:
    """A running SharingHub stand-in over the sample projects."""
    with SharingHubServer(sample_projects()) as server:
        yield server


@pytest.fixture
def sharinghub_factory() -> Iterator[SharingHubFactory]:
    """Starts SharingHub stand-ins: `sharinghub_factory(Project("group/lakes"), token="…")`."""
    with ExitStack() as running:

        def start(*projects: Project, **options: object) -> SharingHubServer:
            server = SharingHubServer(projects, **options)  # type: ignore[arg-type]  # passed on
            return running.enter_context(server)

        yield start
