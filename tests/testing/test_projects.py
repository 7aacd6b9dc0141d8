"""Projects are made in a test, read from folders or generated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stac_gitlab.testing import (
    Project,
    Release,
    generated_projects,
    projects_from_folder,
    sample_projects,
)


def make_folder(folder: Path, metadata: Any, **files: bytes) -> Path:
    """Write the folder of a project. In a name, `__` is a slash and `_` is a dot."""
    for name, content in files.items():
        target = folder / name.replace("__", "/").replace("_", ".")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    folder.mkdir(parents=True, exist_ok=True)
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    (folder / "sharinghub.json").write_text(text, encoding="utf-8")
    return folder


def test_a_project_is_named_by_its_path() -> None:
    assert Project("group/sub/alpine-lakes").name == "Alpine Lakes"
    assert Project("group/lakes", name="Lakes!").name == "Lakes!"


@pytest.mark.parametrize("path", ["", "/group/lakes", "group/lakes/"])
def test_a_path_must_not_start_or_end_with_a_slash(path: str) -> None:
    with pytest.raises(ValueError, match="group/project"):
        Project(path)


def test_categories_must_not_be_a_string() -> None:
    with pytest.raises(TypeError, match="'dataset'"):
        Project("group/lakes", categories="dataset")


def test_the_readme_is_a_file_of_the_repository() -> None:
    assert Project("a/b", readme="# Lakes").files == {"README.md": b"# Lakes"}
    assert Project("a/b", {"README.md": b"# Seas"}).readme == "# Seas"
    assert Project("a/b", readme="# Lakes", ref=None).files == {}


def test_every_file_except_the_readme_is_data() -> None:
    project = Project("a/b", {"x.csv": b"", "docs/y.md": b"", "README.md": b""})
    assert project.assets == {"x.csv": ["data"], "docs/y.md": ["data"]}


def test_the_first_matching_glob_gives_the_roles() -> None:
    files = dict.fromkeys(("README.md", "docs/a.md", "data/deep/b.csv", "c.csv", "d.bin"), b"")
    roles = {"data/*": ["data", "train"], "*.csv": ["data"], "*.md": ["metadata"]}
    assert Project("a/b", files, roles=roles).assets == {
        "data/deep/b.csv": ["data", "train"],
        "c.csv": ["data"],
        "README.md": ["metadata"],
        "docs/a.md": ["metadata"],
    }


def test_files_are_in_lfs_by_glob() -> None:
    project = Project("a/b", lfs=("*.bin", "weights/*"))
    names = ("x/y.bin", "weights/w.txt", "y.txt")
    assert [project.in_lfs(name) for name in names] == [True, True, False]


def test_a_project_has_branches_and_tags() -> None:
    project = Project(
        "a/b", {"x": b"1"}, branches={"feature/x": {"x": b"2"}}, releases=(Release("v1"),)
    )
    assert project.refs == ["main", "feature/x", "v1"]
    found = [project.files_at(ref) for ref in ("main", "feature/x", "v1", "v2")]
    assert found == [{"x": b"1"}, {"x": b"2"}, {"x": b"1"}, None]
    assert Project("a/b", ref=None).refs == []


def test_the_repr_of_a_project_has_no_contents() -> None:
    project = Project("a/b", {"x": b"secret content"}, readme="long text")
    assert "content" not in repr(project)
    assert "long" not in repr(project)


def test_a_folder_is_a_project(tmp_path: Path) -> None:
    metadata = {
        "title": "Lakes",
        "categories": ["dataset", "processor"],
        "temporal": ["2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"],
        "bbox": [1, 2, 3, 4],
        "releases": ["v1", {"tag": "v0", "name": "First"}],
        "private": True,
    }
    files = {"README_md": b"# Lakes", "data__x_csv": b"1", "_dvc__config": b"", "_git__x": b""}
    folder = make_folder(tmp_path / "lakes", metadata, **files)
    project = Project.from_folder(folder, "group/lakes")
    assert project.path == "group/lakes"
    assert dict(project.files) == {".dvc/config": b"", "README.md": b"# Lakes", "data/x.csv": b"1"}
    assert project.readme == "# Lakes"
    assert project.temporal == ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z")
    assert project.releases == [Release("v1"), Release("v0", "First")]
    assert project.private
    assert Project.from_folder(folder).path == "lakes"


def test_the_files_of_a_folder_are_read_on_demand(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "lakes", {}, x_csv=b"1")
    project = Project.from_folder(folder)
    (folder / "x.csv").write_bytes(b"2")
    assert project.files["x.csv"] == b"2"
    assert "sharinghub.json" not in project.files
    with pytest.raises(KeyError):
        project.files["../secret"]


def test_projects_from_a_folder_are_ordered_by_path(tmp_path: Path) -> None:
    make_folder(tmp_path / "z" / "last", {}, x=b"")
    make_folder(tmp_path / "a" / "deep" / "first", {}, x=b"")
    make_folder(tmp_path / "a" / "deep" / "first" / "nested", {}, y=b"")
    projects = projects_from_folder(tmp_path)
    assert [project.path for project in projects] == [
        "a/deep/first",
        "a/deep/first/nested",
        "z/last",
    ]
    assert list(projects[0].files) == ["x"]


def test_a_folder_without_projects_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sharinghub\.json"):
        projects_from_folder(tmp_path)
    with pytest.raises(ValueError, match=r"contains no sharinghub\.json"):
        Project.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "not a JSON object"),
        ({"titel": "x"}, "unknown keys titel; known are bbox"),
        ({"path": "x"}, "unknown keys path"),
    ],
)
def test_the_error_names_the_invalid_sharinghub_json(
    tmp_path: Path, metadata: Any, message: str
) -> None:
    folder = make_folder(tmp_path, metadata)
    with pytest.raises(ValueError, match=message) as caught:
        Project.from_folder(folder)
    assert str(folder / "sharinghub.json") in str(caught.value)


def test_the_sample_projects_have_assets_and_readmes() -> None:
    projects = sample_projects()
    assert len(projects) > 1
    for project in projects:
        assert project.assets, project.path
        assert project.readme, project.path
        assert project.title, project.path


def test_generated_projects_are_made_on_demand() -> None:
    series = generated_projects(10**9, categories=("dataset", "processor"))
    assert len(series) == 10**9
    assert series[-1].path == series[10**9 - 1].path
    assert [project.path for project in series[5:7]] == [series[5].path, series[6].path]
    assert series[7].categories == ("dataset", "processor")
    assert series.find(series[12345].path.upper()) == 12345
    with pytest.raises(IndexError):
        series[10**9]


@pytest.mark.parametrize(
    "path", ["", "x", "generated/group-000/project-", "generated/group-001/project-000042"]
)
def test_a_path_that_was_not_generated_is_not_found(path: str) -> None:
    series = generated_projects(1000)
    assert series.find(path) is None
    assert series.find("generated/group-001/project-001000") is None
