"""Projects for the stand-ins: made in a test, read from folders, or generated."""

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
    """A release of a project: its tag, its name and its description."""

    tag: str
    name: str = ""
    description: str = ""


@dataclass(frozen=True)
class Project:
    """A GitLab project, which is a STAC item at SharingHub.

    Attributes:
        path: The path with its groups, `group/subgroup/project`. It is the id of the item.
        files: Contents of the files on the default branch, by their path in the repository.
        categories: The collections of the project. Without any, no collection lists the item, and
            reading it is a 500.
        title: The title of the full item. `None` takes `name`.
        name: The name of the project in GitLab. If it is empty, it is made from the path. Reference
            items have it as their title.
        readme: The description of the item, in Markdown. `None` takes the file `README.md`.
        ref: The default branch; `None` for a repository without a commit.
        branches: Other branches or tags, each with its files.
        keywords: Topics, without the categories.
        bbox: West, south, east, north, in degrees.
        temporal: Start and end, RFC 3339. `None` takes `created` and `updated`.
        created: Time of creation, RFC 3339. `None` takes a date made from the project's number.
        updated: Time of the last activity; likewise.
        stars: Number of stars.
        license: An SPDX identifier.
        roles: Asset roles by glob. The first glob that matches a file counts; a file that no glob
            matches is not an asset. A glob without a slash is matched against the name of the file,
            any other against its whole path, where `*` also matches slashes. With `None`, all
            files except the README have the role `data`.
        preview: Path of the thumbnail. An image in the README with the alternative text "Preview"
            takes precedence.
        lfs: Globs of the files that are stored in Git LFS.
        private: Whether only members and guests see the project.
        members: Names of users who are maintainers.
        guests: Names of users who see the item without its assets and may not download.
        broken: Whether SharingHub fails on the item: the item, and every full page with it, is a
            500. Previews and references still list it.
        releases: Releases, the latest first. The `release` asset is the archive of the latest.
        properties: Item properties. They take precedence over those that SharingHub makes.
        extensions: The `stac_extensions` of the item.
        extra_assets: Further assets by key. An asset with `path` instead of `href` gets the
            download URL of that file.
        extra_links: Further links. An `href` without a scheme is a file of the repository.

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
    releases: Sequence[Release] = ()
    properties: Mapping[str, Any] = field(default_factory=dict)
    extensions: Sequence[str] = ()
    extra_assets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    extra_links: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        if isinstance(self.categories, str):
            raise TypeError(
                f"categories must be a sequence of names, not one string: {self.categories!r}"
            )
        if self.path.strip("/") != self.path or not self.path:
            raise ValueError(f"the path of a project must look like group/project: {self.path!r}")
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
        """Read a project from a folder that contains a `sharinghub.json`.

        The keys of the JSON object are attributes of this class, all of them optional. `README.md`
        is the description, the other files are the repository. Contents are read on demand.

        Args:
            folder: The folder.
            path: The path of the project. `None` takes the name of the folder.

        Raises:
            ValueError: `sharinghub.json` is missing, is not a JSON object, or has an unknown key.
        """
        folder = Path(folder)
        return cls(path=path or folder.name, files=FolderFiles(folder), **_metadata(folder))

    @property
    def refs(self) -> list[str]:
        """The branches and tags, the default branch first."""
        default = [] if self.ref is None else [self.ref]
        return [*default, *self.branches, *(release.tag for release in self.releases)]

    def files_at(self, ref: str) -> Mapping[str, bytes] | None:
        """Return the files of a branch or tag, or `None` if it does not exist."""
        if ref in self.branches:
            return self.branches[ref]
        return self.files if ref in self.refs else None

    @property
    def assets(self) -> dict[str, list[str]]:
        """The roles of the files that are assets, in the order of the globs."""
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
        """Return whether a file is stored in Git LFS."""
        return any(matches_glob(name, glob) for glob in self.lfs)


class FolderFiles(Mapping[str, bytes]):
    """The files below a folder by their relative path. A content is read at each access.

    `sharinghub.json` is left out, and so are files and folders whose name starts with a dot, except
    `.dvc`. A folder with a `sharinghub.json` is another project and is left out, too.
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
    """Read the projects below a folder, ordered by path.

    Every folder with a `sharinghub.json` is a project. Its path is the path relative to `root`.

    Raises:
        ValueError: There is no project, or one cannot be read.
    """
    root = Path(root)
    found = sorted(marker.parent for marker in root.rglob(METADATA_FILE))
    if not found:
        raise ValueError(f"no folder below {root} contains a {METADATA_FILE}")
    return [Project.from_folder(each, each.relative_to(root).as_posix()) for each in found]


def sample_projects() -> list[Project]:
    """Return the sample projects of this package."""
    with as_file(files("stac_gitlab.testing") / "sample") as folder:
        return projects_from_folder(folder)


class ProjectSeries(Sequence[Project]):
    """Any number of projects, made on demand and not kept.

    Of a plain sequence, a server reads every project once to find its collections. A series states
    them, so that a hundred thousand projects take no memory.

    Args:
        length: The number of projects.
        make: A function from an index to a project.
        find: A function from a path in lower case to an index, or `None` if there is no such
            project.
        categories: The collections of every project.

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
    """Return a series of small projects with two files, a bounding box and a README each.

    Args:
        length: The number of projects.
        categories: The collections of every project.
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
    """Return whether a path matches a glob, as described for `Project.roles`."""
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
    """Return the arguments of `Project` from the `sharinghub.json` of a folder."""
    source = folder / METADATA_FILE
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} is not a project: it contains no {METADATA_FILE}") from None
    except ValueError as error:
        raise ValueError(f"{source} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{source} is not a JSON object")
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
