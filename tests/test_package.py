"""What is public, what importing the package brings, and what comes when it is asked for."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import stac_gitlab
import stac_gitlab.search
import stac_gitlab.testing

REFERENCE = Path(__file__).parents[1] / "docs" / "api.rst"
PUBLIC_MODULES = (stac_gitlab, stac_gitlab.search, stac_gitlab.testing)


def names_in_the_reference(module: ModuleType) -> set[str]:
    text = REFERENCE.read_text(encoding="utf-8")
    entries = re.findall(r"^\.\. auto\w+:: (stac_gitlab[\w.]*)\.(\w+)$", text, re.MULTILINE)
    return {name for home, name in entries if home == module.__name__}


def importable_names(module: ModuleType) -> set[str]:
    """The names that a user can import from a module and that this package defines."""
    names = {*vars(module), *getattr(module, "__all__", ())}
    return {
        name
        for name in names
        if not name.startswith("_")
        and not inspect.ismodule(value := getattr(module, name))
        and getattr(value, "__module__", "").startswith("stac_gitlab")
    }


@pytest.mark.parametrize("module", PUBLIC_MODULES, ids=lambda module: module.__name__)
def test_the_reference_holds_what_the_module_exports_and_nothing_else(module: ModuleType) -> None:
    assert names_in_the_reference(module) == set(module.__all__) - {"__version__"}


@pytest.mark.parametrize("module", [stac_gitlab, stac_gitlab.testing], ids=lambda m: m.__name__)
def test_nothing_can_be_imported_that_is_not_exported(module: ModuleType) -> None:
    assert importable_names(module) == set(module.__all__) - {"__version__", "TokenHolder"}


def test_the_exported_names_are_sorted_and_listed() -> None:
    def sort_key(name: str) -> tuple[int, str]:
        if name.isupper():
            return 0, name
        return (1 if name[0].isupper() else 2), name

    assert list(stac_gitlab.__all__) == sorted(set(stac_gitlab.__all__), key=sort_key)
    assert set(stac_gitlab.__all__) <= set(dir(stac_gitlab))


def test_reading_imports_neither_the_downloader_nor_what_changes_servers() -> None:
    program = """
import sys, stac_gitlab
later = {"stac_gitlab.download.downloader", "stac_gitlab.api.stac_api", "requests_mock"}
assert not later & set(sys.modules)
assert stac_gitlab.STACDownloader is vars(stac_gitlab)["STACDownloader"]
from stac_gitlab import *
assert STACAPI.__module__ == "stac_gitlab.api.stac_api"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_any_other_name_is_missing() -> None:
    with pytest.raises(AttributeError, match="'Downloader'"):
        _ = stac_gitlab.Downloader


def test_search_without_pystac_client_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pystac_client", None)
    monkeypatch.delitem(sys.modules, "stac_gitlab.search")
    with pytest.raises(ImportError, match=r"pip install 'stac-gitlab\[client\]'"):
        importlib.import_module("stac_gitlab.search")
