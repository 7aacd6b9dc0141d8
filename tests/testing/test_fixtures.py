"""The public fixtures start servers and stop them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import requests

from stac_gitlab.testing import Project, SharingHubServer

if TYPE_CHECKING:  # pytest warns about a plugin that was imported before it loads it
    from stac_gitlab.testing.fixtures import SharingHubFactory

pytest_plugins = ["stac_gitlab.testing.fixtures"]


@pytest.fixture
def ended() -> Iterator[list[SharingHubServer]]:
    """Check, after the teardown of the later fixtures, that these servers are stopped."""
    servers: list[SharingHubServer] = []
    yield servers
    for server in servers:
        with pytest.raises(RuntimeError, match="not running"):
            _ = server.url


def first_id(hub: SharingHubServer) -> Any:
    url = f"{hub.stac_url}/collections/dataset/items"
    page = requests.get(url, headers={"X-Gitlab-Token": hub.token}, timeout=5).json()
    return page["features"][0]["id"]


def test_sharinghub_serves_the_sample_projects(
    ended: list[SharingHubServer], sharinghub: SharingHubServer
) -> None:
    assert first_id(sharinghub)
    ended.append(sharinghub)


def test_the_factory_serves_the_given_projects(
    ended: list[SharingHubServer], sharinghub_factory: SharingHubFactory
) -> None:
    lakes = sharinghub_factory(Project("group/lakes"), token="t")
    seas = sharinghub_factory(Project("group/seas"))
    assert (first_id(lakes), first_id(seas)) == ("group/lakes", "group/seas")
    assert lakes.token == "t"
    ended.extend((lakes, seas))
