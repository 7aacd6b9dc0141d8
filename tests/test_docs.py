"""The examples of README, documentation and docstrings run, and the links of the pages resolve.

The ``python`` blocks of a page are run in order, in one namespace. The output of a block is
compared with the ``text`` block right below it, and the value of an expression with the text after
``# →``. In both, ``…`` matches anything. Test functions in a block are called with their fixtures.
Stand-ins replace the hosts of the pages, and the working folder is a temporary one.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import pkgutil
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from inspect import signature
from pathlib import Path
from types import CodeType
from typing import Any

import pystac
import pytest
from stand_in.git_host import GitHost

import stac_gitlab
import stac_gitlab.testing
from stac_gitlab.auth import TOKEN_VARIABLES
from stac_gitlab.testing import (
    Fault,
    GitLabServer,
    LoopbackServer,
    Project,
    SharingHubServer,
    sample_projects,
)

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# These are missing where the tests run against an installed package, without a checkout.
MORE_PAGES = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
IN_A_CHECKOUT = (ROOT / "setup.py").exists()

TOKEN = "glpat-the-token-of-the-pages"
BATHYMETRY = Path(
    stac_gitlab.testing.__path__[0], "sample/alpine/lakes/lake-temperature/data/bathymetry.tif"
)
# What a source of data serves, which limits the rate of requests.
RASTERS = (
    "extent_S1B_EW_GRDH_1SDH_20171111T205337_20171111T205438_008239_00E91A_F8D1.tif",
    "extent_S1B_EW_GRDH_1SDH_20190224T203744_20190224T203844_015093_01C356_B9C1.tif",
    "extent_S1B_EW_GRDH_1SDH_20170620T205332_20170620T205433_006139_00AC89_6857.tif",
)

# These pages use libraries that are in an environment of their own: see `libraries/install.sh`.
PAGES_ABOUT_LIBRARIES = ("docs/pandas.md", "docs/rasters.md", "docs/zarr.md")
HAS_LIBRARIES = all(map(importlib.util.find_spec, ("geopandas", "rasterio", "stackstac", "zarr")))

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(stac_gitlab.__path__, "stac_gitlab.")
    if not name.endswith("__main__")
]


# -- pages and their blocks ---------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    line: int
    text: str
    follows_block: bool


def blocks_of(text: str) -> Iterator[Block]:
    lines = iter(enumerate(text.splitlines(), start=1))
    follows_block = False
    for number, line in lines:
        fence = re.match(r"(`{3,})(.*)", line)
        if fence is None:
            follows_block = follows_block and not line.strip()
            continue
        content: list[str] = []
        for _, inner in lines:
            if inner == fence[1]:
                break
            content.append(inner)
        else:
            pytest.fail(f"the block in line {number} is not closed")
        yield Block(fence[2].strip(), number + 1, "\n".join(content), follows_block)
        follows_block = True


def examples_of(page: Path) -> list[tuple[Block, Block | None]]:
    """The python blocks of a page, each with the block that shows its output."""
    blocks = list(blocks_of(page.read_text(encoding="utf-8")))
    following: list[Block | None] = [*blocks, None][1:]
    return [
        (block, after if after and after.language == "text" and after.follows_block else None)
        for block, after in zip(blocks, following, strict=True)
        if block.language == "python"
    ]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# -- running a page -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalog_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A static catalog, as in a repository: with relative links, and data beside its item."""
    folder = tmp_path_factory.mktemp("catalog")
    catalog = pystac.Catalog("alpine-rivers", "Rivers of the Alps")
    extent = pystac.Extent(
        pystac.SpatialExtent([[6.0, 45.0, 11.0, 48.0]]), pystac.TemporalExtent([[None, None]])
    )
    catalog.add_child(pystac.Collection("gauges", "Water levels", extent))
    for name in ("aare", "inn"):
        when = datetime(2023, 6, 1, tzinfo=UTC)
        item = pystac.Item(name, None, None, when, {})
        item.add_asset("levels", pystac.Asset("./levels.csv", roles=["data"]))
        next(catalog.get_children()).add_item(item)
    catalog.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    for path in list(folder.rglob("*.json")):
        if path.stem in ("aare", "inn"):
            (path.parent / "levels.csv").write_bytes(f"day,{path.stem}\n1,2.5\n".encode())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def climate(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[Project]:
    """The project with tables and arrays, for the pages about libraries."""
    page = request.node.callspec.params.get("page", ROOT)
    if name_of(page) not in PAGES_ABOUT_LIBRARIES:
        return []
    library_files = importlib.import_module("library_files")
    files = library_files.climate_files(tmp_path_factory.mktemp("climate"))
    return [Project("alpine/climate", files, private=True)]


@pytest.fixture
def hosts(
    catalog_files: dict[str, bytes], climate: list[Project], tmp_path: Path
) -> Iterator[dict[str, str]]:
    """Map the hosts that the pages name to the URLs of the stand-ins."""
    project = Project("alpine/catalog", catalog_files, private=True)
    with (
        GitLabServer([project], token=TOKEN) as gitlab,
        SharingHubServer([*sample_projects(), *climate], token=TOKEN, gitlab=gitlab) as hub,
        GitHost(tmp_path / "repositories", TOKEN) as git_host,
        LoopbackServer() as data,
    ):
        for name in RASTERS:
            data.route(f"/records/7568049/files/{name}", BATHYMETRY.read_bytes())
        limit = {"X-RateLimit-Limit": "1", "X-RateLimit-Reset": str(int(time.time()))}
        data.inject(Fault(path="/records/", status=429, headers=limit, after=1, times=2))
        data.route("/rasters/bathymetry.tif", BATHYMETRY.read_bytes(), ranges=True)
        yield {
            "stacs://hub.example.org": f"stacs://127.0.0.1:{hub.port}",
            "https://data.example.org": data.url,
            "https://hub.example.org": hub.url,
            "https://gitlab.example.org": gitlab.url,
            "https://git.example.org": git_host.url,
        }


@pytest.fixture
def user_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set the token in the environment, and an empty working folder. It is typed if asked for."""
    monkeypatch.setattr("stac_gitlab.integrations.login.ask_for_token", lambda _: TOKEN)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for variable in TOKEN_VARIABLES:
        monkeypatch.setenv(variable, TOKEN)
    monkeypatch.chdir(tmp_path)


class PageRunner:
    """Runs the examples of a page and compares their output."""

    def __init__(self, page: Path, hosts: Mapping[str, str], fixture: Callable[[str], Any]) -> None:
        self.page = page
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self._hosts = hosts
        self._fixture = fixture

    def run(self, block: Block) -> None:
        text = block.text
        for host, url in self._hosts.items():
            text = text.replace(host, url)
        lines = block.text.splitlines()
        before = set(self.namespace)
        # With the lines before, tracebacks show the line numbers of the page.
        for statement in ast.parse("\n" * (block.line - 1) + text, str(self.page)).body:
            last = lines[(statement.end_lineno or 0) - block.line]
            value = self._execute(statement)
            _, arrow, expected = last.partition("# → ")
            if arrow:
                assert isinstance(statement, ast.Expr), f"no value to compare: {last}"
                self.compare(repr(value), expected.strip())
        for name in [n for n in self.namespace if n.startswith("test_") and n not in before]:
            test = self.namespace[name]
            test(**{fixture: self._fixture(fixture) for fixture in signature(test).parameters})

    def _execute(self, statement: ast.stmt) -> object:
        code: CodeType
        if isinstance(statement, ast.Expr):
            code = compile(ast.Expression(statement.value), str(self.page), "eval")
            return eval(code, self.namespace)
        code = compile(ast.Module([statement], []), str(self.page), "exec")
        exec(code, self.namespace)
        return None

    def compare(self, actual: str, expected: str) -> None:
        for host, url in self._hosts.items():
            actual = actual.replace(url, host)
            actual = actual.replace(url.removeprefix("http://"), host.removeprefix("https://"))
        actual = "\n".join(line.rstrip() for line in actual.strip("\n").splitlines())
        pattern = ".*".join(map(re.escape, expected.split("…")))
        if re.fullmatch(pattern, actual, re.DOTALL) is None:
            assert actual == expected


def with_its_marks(page: Path) -> Any:
    marks = []
    if name_of(page) in PAGES_ABOUT_LIBRARIES:
        reason = "tests/libraries/install.sh installs what this page uses"
        marks = [pytest.mark.slow, pytest.mark.skipif(not HAS_LIBRARIES, reason=reason)]
    return pytest.param(page, marks=marks)


@pytest.mark.usefixtures("user_environment")
@pytest.mark.parametrize("page", [with_its_marks(p) for p in PAGES if examples_of(p)], ids=name_of)
def test_the_examples_of_a_page_run_and_print_what_the_page_shows(
    page: Path,
    hosts: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if name_of(page) in PAGES_ABOUT_LIBRARIES:
        monkeypatch.setenv("STAC_GITLAB_URL", hosts["https://hub.example.org"])
    runner = PageRunner(page, hosts, request.getfixturevalue)
    for block, output in examples_of(page):
        runner.run(block)
        printed = capsys.readouterr().out
        if output is not None:
            runner.compare(printed, output.text)


@pytest.mark.parametrize("text", ["1 + 1  # → 3", "x = 1  # → 1", "1 / 0"])
def test_a_wrong_example_is_detected(text: str) -> None:
    block = Block("python", 1, text, follows_block=False)
    with pytest.raises((AssertionError, ZeroDivisionError)):
        PageRunner(ROOT / "page.md", {}, str).run(block)


def test_a_wrong_output_is_detected() -> None:
    runner = PageRunner(ROOT / "page.md", {}, str)
    runner.compare("one\ntwo", "one\n…o")
    with pytest.raises(AssertionError):
        runner.compare("one\ntwo", "one")


def test_the_demo_prints_what_its_page_shows() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    [expected] = [block.text for block in blocks_of(page) if block.language == "text"]
    command = [sys.executable, "-m", "stac_gitlab", "demo"]
    demo = subprocess.run(command, capture_output=True, timeout=60, check=True)
    PageRunner(ROOT / "docs" / "cli.md", {}, str).compare(demo.stdout.decode(), expected)


# -- docstrings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_docstring_run(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert not failed


def test_some_docstrings_have_examples() -> None:
    modules = [importlib.import_module(name) for name in MODULES]
    found = [test for module in modules for test in doctest.DocTestFinder().find(module)]
    assert len([test for test in found if test.examples]) >= 10


def test_the_page_about_errors_draws_the_tree_of_the_module() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    doc = stac_gitlab.errors.__doc__ or ""
    [drawn] = [block.text for block in blocks_of(page) if block.text.startswith("STACGitLabError")]
    # The captions may differ.
    entry = re.compile(r"^[│├└─ ]*[A-Z]\w+(?:Error|Warning)\b(?: +\([\w.]+\))?", re.MULTILINE)
    tree = "\n".join(line[4:] for line in doc.splitlines() if line.startswith(" " * 4))
    assert entry.findall(drawn) == entry.findall(tree)


# -- links --------------------------------------------------------------------------------------


def prose_of(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)


def links_of(page: Path) -> list[str]:
    prose = re.sub(r"`[^`\n]*`", "", prose_of(page))
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [p for p in [*PAGES, *MORE_PAGES] if p.exists()], ids=name_of)
def test_the_links_of_a_page_resolve(page: Path) -> None:
    for link in links_of(page):
        target, _, anchor = link.partition("#")
        if target.startswith(("https://", "mailto:")):
            continue
        assert not target.startswith("http://"), link
        there = (page.parent / target).resolve() if target else page
        if there in PAGES or IN_A_CHECKOUT:
            assert there.exists(), f"{name_of(page)}: {link}"
        if anchor and there.suffix == ".md":
            assert anchor in anchors_of(there), f"{name_of(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", prose_of(page))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.skipif(not IN_A_CHECKOUT, reason="the table is in CONTRIBUTING.md")
def test_the_table_of_modules_is_complete() -> None:
    rows = re.findall(r"^\| \**`([\w/]+(?:\.py|/))`\** \|", prose_of(MORE_PAGES[1]), re.MULTILINE)
    package = ROOT / "stac_gitlab"
    paths = [path.relative_to(package) for path in package.rglob("*.py")]
    folders = {f"{path.parts[0]}/" for path in paths if len(path.parts) > 1}
    # `testing` has a row of its own, and its modules have none.
    modules = {
        path.as_posix()
        for path in paths
        if path.name != "__init__.py" and path.parts[0] != "testing"
    }
    assert sorted(rows) == sorted({"__init__.py"} | folders | modules)


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    contents = [b.text for b in blocks_of(index) if b.language == "{toctree}"]
    lines = "\n".join(contents).splitlines()
    listed = {line for line in lines if line and not line.startswith(":")}
    pages = {p.stem for p in (ROOT / "docs").iterdir() if p.suffix in (".md", ".rst", ".ipynb")}
    assert listed == pages - {"index"}
