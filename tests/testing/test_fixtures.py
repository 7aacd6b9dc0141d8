"""The fixtures of the pytest plugin start servers and stop them, and change nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
import requests

from stac_gitlab.testing import Project, SharingHubServer
from stac_gitlab.testing.fixtures import SharingHubFactory


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


# -- the plugin in a test run of its own -----------------------------------------------------------


def installed() -> bool:
    """Return whether the installed package names its plugin, as after `pip install`."""
    return any(e.value == "stac_gitlab.testing.fixtures" for e in entry_points(group="pytest11"))


Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest in another process, without plugins of other packages."""
    if not installed():
        pytest.skip("this checkout was installed before the plugin existed: pip install -e .")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_subprocess("-W", "error::pytest.PytestWarning", *arguments)

    return run


# By the name of its entry point, as pytest loads it without this option.
WITH_PLUGIN = ("-p", "stac_gitlab.testing.fixtures")

USES_FIXTURES = """
    def test_hub(sharinghub, sharinghub_factory):
        from stac_gitlab.testing import Project
        lakes = sharinghub_factory(Project("group/lakes"), token="t")
        assert lakes.url != sharinghub.url
        assert lakes.token == "t"
"""
USES_NOTHING = """
    import sys

    def test_nothing(pytestconfig):
        assert pytestconfig.pluginmanager.has_plugin("stac_gitlab.testing.fixtures")
        loaded = {name.partition(".")[0] for name in sys.modules}
        assert not loaded & {"pystac", "requests", "urllib3", "tenacity"}
"""


def test_an_installed_package_brings_its_fixtures(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(USES_FIXTURES)
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    run().assert_outcomes(passed=1)


def test_a_run_without_the_fixtures_imports_no_other_package(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(USES_NOTHING)
    run(*WITH_PLUGIN).assert_outcomes(passed=1)


def test_a_conftest_that_names_the_fixtures_works_as_before(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(USES_FIXTURES)
    pytester.makeconftest('pytest_plugins = ["stac_gitlab.testing.fixtures"]')
    run().assert_outcomes(passed=1)
    run(*WITH_PLUGIN).assert_outcomes(passed=1)


def test_the_plugin_changes_no_warning_and_no_setting(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        """
        import logging, warnings

        def test_state(pytestconfig):
            plugin = pytestconfig.pluginmanager.get_plugin("stac_gitlab.testing.fixtures")
            if plugin is not None:
                assert not [name for name in dir(plugin) if name.startswith("pytest_")]
            print()
            print("state", warnings.filters, logging.root.handlers, logging.root.level)
        """
    )
    with_plugin, without = (
        [line for line in run("-s", *options).outlines if line.startswith("state")]
        for options in (WITH_PLUGIN, ())
    )
    assert len(with_plugin) == 1
    assert with_plugin == without


def test_a_run_in_a_process_that_has_the_package_gets_no_warning(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(USES_FIXTURES)
    assert run
    options = ["-W", "error", *WITH_PLUGIN]
    program = f"import sys, stac_gitlab, pytest; sys.exit(pytest.main({options}))"
    assert pytester.run(sys.executable, "-c", program).ret == 0
