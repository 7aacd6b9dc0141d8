"""Who sees which project: users, their tokens and access levels, and the projects of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from stac_gitlab.testing.projects import Project, ProjectSeries

DEFAULT_TOKEN = "glpat-stand-in-0000000001"  # noqa: S105 - accepted by stand-ins only
"""The token that a stand-in accepts if the test names none."""

FIRST_NUMBER = 101
"""The number of the first project. The others follow in the order of the sequence."""

_READING_SCOPES = frozenset({"api", "read_api", "read_repository"})


class AccessLevel(IntEnum):
    """What a user may do with a project, with the numbers of `sharinghub:access-level`."""

    NONE = 0
    GUEST = 1
    REPORTER = 2
    DEVELOPER = 3
    MAINTAINER = 4


@dataclass(frozen=True)
class User:
    """The owner of a token.

    Attributes:
        name: The name that `Project.members` and `Project.guests` use.
        level: The access level on every project, private ones included. With `None` it depends on
            the project: members are maintainers, guests are guests, and everybody who is signed in
            is a reporter of a project that is not private.
        scopes: The scopes of the token. Without `api`, `read_api` or `read_repository`, SharingHub
            responds with 401 to STAC requests and with 403 to downloads.
    """

    name: str = "owner"
    level: AccessLevel | None = None
    scopes: frozenset[str] = frozenset({"read_api"})

    @property
    def may_read(self) -> bool:
        """Whether the scopes of the token allow reading."""
        return bool(self.scopes & _READING_SCOPES)

    def level_on(self, project: Project) -> AccessLevel:
        """Return the access level of this user on a project."""
        if self.level is not None:
            return self.level
        if self.name in project.guests:
            return AccessLevel.GUEST
        if self.name in project.members:
            return AccessLevel.MAINTAINER
        return AccessLevel.NONE if project.private else AccessLevel.REPORTER


OWNER = User(level=AccessLevel.MAINTAINER)
"""The owner of a token about which the test says nothing more: sees everything."""

PUBLIC = User(name="")
"""A caller without a token, on a server with public access."""

TokenHolder = User | AccessLevel | str
"""The owner of a token: a user, an access level on every project, or the name of a user."""


def users_by_token(token: str | None, tokens: Mapping[str, TokenHolder] | None) -> dict[str, User]:
    """Return the users of a stand-in by token.

    Args:
        token: A token that sees everything.
        tokens: Tokens and their owners. If both arguments are empty, there is `DEFAULT_TOKEN`.
    """
    users = {} if token is None else {token: OWNER}
    for known, holder in (tokens or {}).items():
        if isinstance(holder, User):
            users[known] = holder
        elif isinstance(holder, AccessLevel):
            users[known] = User(name=holder.name.lower(), level=holder)
        else:
            users[known] = User(name=holder)
    return users or {DEFAULT_TOKEN: OWNER}


@dataclass(frozen=True)
class NumberedProject:
    """A project with the number that GitLab gave it."""

    number: int
    project: Project

    @property
    def created(self) -> str:
        """When the project was created, RFC 3339."""
        # At most 700 days, so that no made-up creation is after a made-up update.
        made_up = datetime(2022, 1, 1, tzinfo=UTC) + timedelta(days=self.number % 700)
        return self.project.created or _rfc3339(made_up)

    @property
    def updated(self) -> str:
        """When the project was last active, RFC 3339."""
        made_up = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=self.number)
        return self.project.updated or _rfc3339(made_up)

    @property
    def full_name(self) -> str:
        """The name with its namespace: `Group / Sub-Group / Project Name`."""
        *groups, _ = self.project.path.split("/")
        return " / ".join((*(group.title() for group in groups), self.project.name))


class Catalogue:
    """The projects of a server by number, path and collection.

    Args:
        projects: The projects. A `ProjectSeries` is not read through.
    """

    def __init__(self, projects: Sequence[Project]) -> None:
        self._projects = projects
        self._private: set[int] = set()
        self._indices: dict[str, Sequence[int]]
        if isinstance(projects, ProjectSeries):
            self._find = projects.find
            self._indices = dict.fromkeys(projects.categories, range(len(projects)))
            return
        by_path: dict[str, int] = {}
        by_category: dict[str, list[int]] = {}
        for index, project in enumerate(projects):
            by_path[project.path.lower()] = index
            for category in project.categories:
                by_category.setdefault(category, []).append(index)
            if project.private:
                self._private.add(index)
        self._find = by_path.get
        self._indices = {**by_category}

    @property
    def categories(self) -> list[str]:
        """The collections of the projects, in the order of their first project."""
        return list(self._indices)

    def __getitem__(self, index: int) -> NumberedProject:
        return NumberedProject(index + FIRST_NUMBER, self._projects[index])

    def find(self, name: str) -> NumberedProject | None:
        """Return the project with this number, or with this path in any letter case."""
        if name.isdecimal():
            index: int | None = int(name) - FIRST_NUMBER
        else:
            index = self._find(name.strip("/").lower())
        if index is None or not 0 <= index < len(self._projects):
            return None
        return self[index]

    def visible(self, category: str, user: User) -> Sequence[int]:
        """Return the indices of the projects of a collection that a user may see."""
        indices = self._indices.get(category, ())
        if not self._private:
            return indices
        return [
            index
            for index in indices
            if index not in self._private or user.level_on(self._projects[index]) > AccessLevel.NONE
        ]


def _rfc3339(moment: datetime) -> str:
    return f"{moment.replace(tzinfo=None).isoformat()}Z"
