"""What is public, and what importing the package imports."""

from __future__ import annotations

import builtins
import collections.abc
import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import stac_gitlab
import stac_gitlab.search
import stac_gitlab.testing

REFERENCE = Path(__file__).parents[1] / "docs" / "api.rst"
PUBLIC_MODULES = (stac_gitlab, stac_gitlab.search, stac_gitlab.testing)


# One entry: its module and name, "()" where no signature is shown, and the listed members.
ENTRY = re.compile(
    r"^\.\. auto\w+:: (stac_gitlab[\w.]*)\.(\w+)(\(\))?(?:\n   :members:(.*))?", re.MULTILINE
)
TYPE = re.compile(r"^\.\. py:type:: (\w+)\n   :canonical: (.+)", re.MULTILINE)


def names_in_the_reference(module: ModuleType) -> set[str]:
    text = REFERENCE.read_text(encoding="utf-8")
    names = {name for home, name, *_ in ENTRY.findall(text) if home == module.__name__}
    _, *sections = re.split(r"^\.\. currentmodule:: (\S+)$", text, flags=re.MULTILINE)
    for home, section in zip(sections[::2], sections[1::2], strict=True):
        if home == module.__name__:
            names |= {name for name, _ in TYPE.findall(section)}
    return names


@pytest.mark.parametrize("module", PUBLIC_MODULES, ids=lambda module: module.__name__)
def test_the_reference_lists_exactly_the_names_that_a_module_exports(module: ModuleType) -> None:
    assert names_in_the_reference(module) == set(module.__all__) - {"__version__"}


@pytest.mark.parametrize("module", PUBLIC_MODULES, ids=lambda module: module.__name__)
def test_every_exported_name_can_be_imported(module: ModuleType) -> None:
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("module", [stac_gitlab, stac_gitlab.testing], ids=lambda m: m.__name__)
def test_no_other_name_can_be_imported(module: ModuleType) -> None:
    of_this_package = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and getattr(value, "__module__", "").startswith("stac_gitlab")
    }
    assert of_this_package <= set(module.__all__)


def public_signatures() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield everything whose signature the reference shows."""
    for entry in ENTRY.finditer(REFERENCE.read_text(encoding="utf-8")):
        home, name, hidden, members = entry.groups()
        value = getattr(sys.modules[home], name)
        # A warning has the constructor of a built-in class.
        if not hidden and not name.endswith("Warning"):
            yield name, value
        if members is None:
            continue
        for member in members.replace(",", " ").split() or vars(value):
            attribute = inspect.getattr_static(value, member)
            function = getattr(attribute, "__func__", getattr(attribute, "fget", attribute))
            if inspect.isfunction(function) and not member.startswith("_"):
                yield f"{name}.{member}", function


EXPORTED = {name for module in PUBLIC_MODULES for name in module.__all__}
# HREF is pystac's own name for `str | os.PathLike[str]`.
NOT_OURS = {*dir(builtins), *dir(typing), *dir(collections.abc), "HREF"}


@pytest.mark.parametrize(
    "function", [pytest.param(function, id=name) for name, function in public_signatures()]
)
def test_every_type_in_a_public_signature_is_exported(function: Callable[..., Any]) -> None:
    signature = inspect.signature(function)
    annotations = [parameter.annotation for parameter in signature.parameters.values()]
    annotations.append(signature.return_annotation)
    text = " ".join(str(a) for a in annotations if a is not inspect.Signature.empty)
    # Without the values of a Literal, and without what is qualified with another package's name.
    names = set(re.findall(r"(?<![\w.])[A-Za-z]\w*(?![\w.])", re.sub(r"['\"].*?['\"]", "", text)))
    unknown = names - EXPORTED - NOT_OURS
    scope = vars(sys.modules[function.__module__])
    foreign = {
        name
        for name in unknown
        if inspect.isclass(scope.get(name)) and not scope[name].__module__.startswith("stac_gitlab")
    }
    assert unknown == foreign


def test_the_reference_gives_the_values_that_a_literal_has() -> None:
    documented = dict(TYPE.findall(REFERENCE.read_text(encoding="utf-8")))
    for module in PUBLIC_MODULES:
        for name in module.__all__:
            value = getattr(module, name)
            if typing.get_origin(value) is typing.Literal:
                assert eval(documented[name], {"Literal": typing.Literal}) == value


def test_the_exported_names_are_sorted_and_listed() -> None:
    def sort_key(name: str) -> tuple[int, str]:
        if name.isupper():
            return 0, name
        return (1 if name[0].isupper() else 2), name

    assert list(stac_gitlab.__all__) == sorted(set(stac_gitlab.__all__), key=sort_key)
    assert set(stac_gitlab.__all__) <= set(dir(stac_gitlab))


def test_the_import_leaves_out_what_reading_does_not_need() -> None:
    program = """
import sys, stac_gitlab
later = {"stac_gitlab.download.downloader", "stac_gitlab.api.stac_api", "requests_mock"}
later |= {"dateutil", "jsonschema", "pystac.validation", "tqdm", "yaml", "fsspec", "IPython"}
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
