"""Files that other libraries wrote, and servers for them.

The tests of this folder run in a virtual environment of their own: see `install.sh`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_process import Servers, servers_in_a_process

from stac_gitlab.integrations import shared_reader

TOKEN = "glpat-canary-of-the-libraries"

if not all(map(importlib.util.find_spec, ("geopandas", "rasterio", "stackstac", "zarr"))):
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tables, arrays and rasters."""
    from library_files import write_files

    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    return folder


@pytest.fixture(scope="session")
def running_servers(files: Path) -> Iterator[Servers]:
    with servers_in_a_process(files, TOKEN) as servers:
        yield servers


@pytest.fixture
def servers(running_servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Servers:
    """The servers, whose token is in the environment; no request counts so far."""
    shared_reader.reader_for.cache_clear()
    monkeypatch.setenv("STAC_GITLAB_TOKEN", TOKEN)
    monkeypatch.setenv("STAC_GITLAB_URL", running_servers.hub)
    running_servers.requests()
    return running_servers
