"""Who may see what: users, their tokens, and their levels on projects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from stac_gitlab.testing.projects import Project

DEFAULT_TOKEN = "glpat-stand-in-0000000001"  # noqa: S105 - opens nothing but a stand-in
"""The token that a stand-in knows when a test names none."""

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
    """Somebody with a token.

    Attributes:
        name: The name that `Project.members` and `Project.guests` go by.
        level: The level on every project, private ones included. `None` asks each project:
            members maintain, guests are guests, and a project that is not private is open
            to everybody who is signed in.
        scopes: The token's scopes. Without `api`, `read_api` or `read_repository` SharingHub
            answers 401 to STAC requests and 403 to downloads.
    """

    name: str = "owner"
    level: AccessLevel | None = None
    scopes: frozenset[str] = frozenset({"read_api"})

    @property
    def may_read(self) -> bool:
        """Whether the token's scopes let it read anything."""
        return bool(self.scopes & _READING_SCOPES)

    def level_on(self, project: Project) -> AccessLevel:
        """This user's level on a project."""
        if self.level is not None:
            return self.level
        if self.name in project.guests:
            return AccessLevel.GUEST
        if self.name in project.members:
            return AccessLevel.MAINTAINER
        return AccessLevel.NONE if project.private else AccessLevel.REPORTER


OWNER = User(level=AccessLevel.MAINTAINER)
"""The user behind a token about which a test says nothing more: sees and may do everything."""

PUBLIC = User(name="")
"""Nobody in particular: sees what is not private, where a server allows public access."""

TokenHolder = User | AccessLevel | str
"""Who a token belongs to: a user, a level on every project, or the name of a user."""


def users_by_token(token: str | None, tokens: Mapping[str, TokenHolder] | None) -> dict[str, User]:
    """The users behind a stand-in's tokens.

    Args:
        token: A token of the owner; the default one where neither argument is given.
        tokens: Tokens and who they belong to.
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
