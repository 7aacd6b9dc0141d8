"""The pytest plugin of stac_gitlab: fixtures that start SharingHub stand-ins.

pytest loads it by its entry point. `sharinghub` is a running server over the sample projects.
`sharinghub_factory` starts servers over projects of your own. All of them are closed when the test
ends.

It is a module of its own because importing anything from `stac_gitlab` imports pystac, which a test
run that uses no fixture does not need. PYTEST_DONT_REWRITE: it holds no tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stac_gitlab.testing import Project, SharingHubServer
    from stac_gitlab.testing.fixtures import SharingHubFactory


@pytest.fixture
def sharinghub() -> Iterator[SharingHubServer]:
    """A running SharingHub stand-in over the sample projects."""
    from stac_gitlab.testing import SharingHubServer, sample_projects  # noqa: PLC0415

    with SharingHubServer(sample_projects()) as server:
        yield server


@pytest.fixture
def sharinghub_factory() -> Iterator[SharingHubFactory]:
    """Starts SharingHub stand-ins: `sharinghub_factory(Project("group/lakes"), token="…")`."""
    from stac_gitlab.testing import SharingHubServer  # noqa: PLC0415

    with ExitStack() as running:

        def start(*projects: Project, **options: object) -> SharingHubServer:
            server = SharingHubServer(projects, **options)  # type: ignore[arg-type]  # passed on
            return running.enter_context(server)

        yield start
