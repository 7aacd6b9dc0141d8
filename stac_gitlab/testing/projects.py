"""Projects that the stand-ins serve: made in a test, read from folders, or generated.

A `Project` is what SharingHub turns into a STAC item: a GitLab project with a repository, a
README and some metadata. How it looks as STAC is `documents`' affair.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, overload

METADATA_FILE = "sharinghub.json"
README = "README.md"


@dataclass(frozen=True)
class Release:
    """A release of a project: its tag, its name, and what it says about itself."""

    tag: str
    name: str = ""
    description: str = ""


@dataclass(frozen=True)
class Project:
    """One GitLab project, which is one STAC item.

    Attributes:
        path: The path with its groups, `group/subgroup/project`. It is the item's id.
        files: Repository path to content, of the default branch.
        categories: The collections that the project is in. With none, the item is a 500 and no
            collection lists it.
        title: The item's title in full mode; the name where it is `None`.
        name: The project's name in GitLab, made from the path where it is `None`. Preview and
            reference items are titled by it.
        readme: Markdown, the item's description. `None` takes it from a file `README.md`.
        summary: GitLab's one-line description, which preview items show. `None` takes the
            README's first paragraph.
        ref: The default branch; `None` for a repository without a commit.
        branches: Further branches or tags, each with its files.
        keywords: Topics beside the categories.
        bbox: West, south, east, north.
        temporal: Start and end, RFC 3339. `None` takes `created` and `updated`.
        created: When the project was made, RFC 3339; made from its number where it is `None`.
        updated: When something last happened in it; likewise.
        stars: How many people starred it.
        license: An SPDX identifier.
        roles: Glob to asset roles; of the globs that match a file the first counts, and a file
            that no glob matches is no asset. A glob without a slash is held against the file's
            name, any other against its whole path, where `*` matches slashes too. With `None`
            all files but the README are data.
        preview: Repository path of the thumbnail; an image of the README whose alternative text
            is "Preview" comes first.
        lfs: Globs of the files that are kept in Git LFS.
        private: Visible to members and guests only.
        members: Names of users who may do everything.
        guests: Names of users who see the item without assets, and may download nothing.
        broken: A README that SharingHub cannot read: the item is a 500, and so is every full page
            that it is on.
        broken_preview: Every preview page that it is on is a 500 as well.
        releases: Releases, the latest first; the item's `release` asset is that one's archive.
        properties: Item properties, verbatim; they win over those that SharingHub makes.
        extensions: The item's `stac_extensions`.
        extra_assets: Assets by key, verbatim. One with `path` in place of `href` gets the
            download URL of that file.
        extra_links: Links, verbatim; a `href` without scheme is a file of the repository.
        related: Collection to project paths, for `derived_from` links.
        packages: Name to type of packages, for `package` links.

    Example:
        >>> project = Project("group/lakes", {"data/lakes.csv": b"id,name"}, title="Lakes")
        >>> project.name, project.assets
        ('Lakes', {'data/lakes.csv': ['data']})
    """

    path: str
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    categories: Sequence[str] = ("dataset",)
    title: str | None = None
    name: str = ""
    readme: str | None = field(default=None, repr=False)
    summary: str | None = None
    ref: str | None = "main"
    branches: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    keywords: Sequence[str] = ()
    bbox: Sequence[float] | None = None
    temporal: tuple[str, str] | None = None
    created: str | None = None
    updated: str | None = None
    stars: int = 0
    license: str | None = None
    roles: Mapping[str, Sequence[str]] | None = None
    preview: str | None = None
    lfs: Sequence[str] = ()
    private: bool = False
    members: Sequence[str] = ()
    guests: Sequence[str] = ()
    broken: bool = False
    broken_preview: bool = False
    releases: Sequence[Release] = ()
    properties: Mapping[str, Any] = field(default_factory=dict)
    extensions: Sequence[str] = ()
    extra_assets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    extra_links: Sequence[Mapping[str, Any]] = ()
    related: Mapping[str, Sequence[str]] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.categories, str):
            raise TypeError(
                f"categories is a sequence of names, not one string: {self.categories!r}"
            )
        if self.path.strip("/") != self.path or not self.path:
            raise ValueError(f"a project's path looks like group/project, not like {self.path!r}")
        if not self.name:
            last = self.path.rpartition("/")[2]
            object.__setattr__(self, "name", last.replace("-", " ").title())
        if self.readme is None:
            content = self.files.get(README, b"")
            object.__setattr__(self, "readme", content.decode("utf-8", "replace"))
        elif self.readme and README not in self.files and self.ref is not None:
            object.__setattr__(self, "files", {**self.files, README: self.readme.encode()})

    @classmethod
    def from_folder(cls, folder: str | Path, path: str | None = None) -> Project:
        """Read a project from a folder that holds a `sharinghub.json`.

        The JSON's keys are this class's attributes, all optional. `README.md` is the
        description, all other files are the repository's. Contents are read when they are
        asked for.

        Args:
            folder: The folder.
            path: The project's path; the folder's name where it is `None`.

        Raises:
            ValueError: `sharinghub.json` is missing, is not a JSON object, or has a key that
                no project has.
        """
        folder = Path(folder)
        return cls(path=path or folder.name, files=FolderFiles(folder), **_metadata(folder))

    @property
    def refs(self) -> list[str]:
        """The branches and tags that can be asked for, the default branch first."""
        default = [] if self.ref is None else [self.ref]
        return [*default, *self.branches, *(release.tag for release in self.releases)]

    def files_at(self, ref: str) -> Mapping[str, bytes] | None:
        """The files of a branch or tag; `None` where it does not exist."""
        if ref in self.branches:
            return self.branches[ref]
        return self.files if ref in self.refs else None

    @property
    def assets(self) -> dict[str, list[str]]:
        """The files that are assets, with their roles, in the order of the globs."""
        rules = self.roles
        if rules is None:
            return {name: ["data"] for name in self.files if name != README}
        found: dict[str, list[str]] = {}
        for glob, roles in rules.items():
            for name in self.files:
                if name not in found and matches_glob(name, glob):
                    found[name] = list(roles)
        return found

    def in_lfs(self, name: str) -> bool:
        """Whether a file is kept in Git LFS."""
        return any(matches_glob(name, glob) for glob in self.lfs)


class FolderFiles(Mapping[str, bytes]):
    """The files below a folder by their path relative to it, read anew whenever they are asked for.

    Files and folders whose name starts with a dot, except `.dvc`, and `sharinghub.json` are left
    out. A folder with a `sharinghub.json` of its own is another project, and left out too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = sorted(_names_below(folder, ""))
        self._known = frozenset(self._names)

    def __getitem__(self, name: str) -> bytes:
        if name not in self._known:
            raise KeyError(name)
        return (self._folder / name).read_bytes()

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def projects_from_folder(root: str | Path) -> list[Project]:
    """The projects below a folder, ordered by path.

    Every folder with a `sharinghub.json` is a project, and its path relative to `root` is the
    project's path.

    Raises:
        ValueError: There is none, or one cannot be read.
    """
    root = Path(root)
    found = sorted(marker.parent for marker in root.rglob(METADATA_FILE))
    if not found:
        raise ValueError(f"no folder below {root} holds a {METADATA_FILE}")
    return [Project.from_folder(each, each.relative_to(root).as_posix()) for each in found]


def sample_projects() -> list[Project]:
    """The sample projects that come with this package."""
    with as_file(files("stac_gitlab.testing") / "sample") as folder:
        return projects_from_folder(folder)


class ProjectSeries(Sequence[Project]):
    """Any number of projects that are made when they are asked for, and never kept.

    A server given a plain sequence has to look at every project once, to know which collections
    list it. A series says so itself, and a hundred thousand projects cost no memory.

    Args:
        length: How many there are.
        make: Makes the project at an index.
        find: The index of a project's path (letter case ignored), or `None`.
        categories: The collections that all of them are in.

    Example:
        >>> series = generated_projects(100_000)
        >>> len(series), series[42].path, series.find("generated/group-000/project-000042")
        (100000, 'generated/group-000/project-000042', 42)
    """

    def __init__(
        self,
        length: int,
        make: Callable[[int], Project],
        find: Callable[[str], int | None],
        *,
        categories: Sequence[str] = ("dataset",),
    ) -> None:
        self.categories = tuple(categories)
        self.find = find
        self._length = length
        self._make = make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Project: ...
    @overload
    def __getitem__(self, index: slice) -> list[Project]: ...
    def __getitem__(self, index: int | slice) -> Project | list[Project]:
        if isinstance(index, slice):
            return [self._make(each) for each in range(*index.indices(self._length))]
        return self._make(range(self._length)[index])


def generated_projects(length: int, *, categories: Sequence[str] = ("dataset",)) -> ProjectSeries:
    """A series of small projects, each with two files, a bounding box and a README.

    Args:
        length: How many.
        categories: The collections that they are in.
    """
    categories = tuple(categories)

    def make(index: int) -> Project:
        west, south = float(index % 359 - 180), float(index // 359 % 179 - 90)
        return Project(
            path=f"generated/group-{index // 1000:03d}/project-{index:06d}",
            files={
                "data/table.csv": b"id,value\n%d,1\n" % index,
                "data/meta.json": b'{"index":%d}' % index,
            },
            categories=categories,
            readme=f"# Project {index}\n\nGenerated project number {index}.",
            keywords=("generated", f"tag {index % 10}"),
            bbox=(west, south, west + 1.0, south + 1.0),
        )

    def find(path: str) -> int | None:
        number = path.rpartition("-")[2]
        if not number.isascii() or not number.isdigit() or int(number) >= length:
            return None
        return int(number) if make(int(number)).path == path.lower() else None

    return ProjectSeries(length, make, find, categories=categories)


def matches_glob(name: str, glob: str) -> bool:
    """Whether a repository path matches a glob, as `Project.roles` describes it."""
    subject = name if "/" in glob else name.rpartition("/")[2]
    return name == glob or fnmatchcase(subject, glob)


def _names_below(folder: Path, prefix: str) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.name.startswith(".") and entry.name != ".dvc":
            continue
        if entry.is_dir():
            if entry.name != "__pycache__" and not (entry / METADATA_FILE).exists():
                yield from _names_below(entry, f"{prefix}{entry.name}/")
        elif prefix or entry.name != METADATA_FILE:
            yield f"{prefix}{entry.name}"


def _metadata(folder: Path) -> dict[str, Any]:
    """The arguments of `Project` that a folder's `sharinghub.json` holds."""
    source = folder / METADATA_FILE
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} is no project: it holds no {METADATA_FILE}") from None
    except ValueError as error:
        raise ValueError(f"{source} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{source} holds no JSON object")
    known = {each.name for each in fields(Project)} - {"path", "files", "branches"}
    if unknown := sorted(set(document) - known):
        raise ValueError(
            f"{source} has unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    if "releases" in document:
        document["releases"] = [
            Release(each) if isinstance(each, str) else Release(**each)
            for each in document["releases"]
        ]
    if document.get("temporal") is not None:
        start, end = document["temporal"]
        document["temporal"] = (start, end)
    return document
