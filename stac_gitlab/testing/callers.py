"""Who calls a SharingHub, and what a call without a good token comes to.

The token in the query beats the one in `X-Gitlab-Token`; `Authorization` and GitLab's own headers
are no token to SharingHub. Whether a token is any good is GitLab's to say, so requests that need
no GitLab are answered whatever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stac_gitlab.testing.access import PUBLIC, User
from stac_gitlab.testing.exchange import RecordedRequest


@dataclass(frozen=True)
class Caller:
    """Somebody who asks.

    Attributes:
        user: The user behind the token; the public where no token is needed; `None` where
            GitLab would refuse the token.
        token: The token, if the request has one.
        in_query: Whether the token came in the query: it is then written into every link.
    """

    user: User | None
    token: str | None = None
    in_query: bool = False

    @property
    def link_query(self) -> dict[str, str]:
        """What every link carries for this caller."""
        return self.file_query if self.in_query else {}

    @property
    def file_query(self) -> dict[str, str]:
        """What every link to a file carries for this caller."""
        return {"gitlab_token": self.token} if self.token else {}

    @property
    def may_search(self) -> bool:
        """Whether GitLab lists projects for this caller."""
        return self.user is not None and self.user.may_read


def caller_of(
    request: RecordedRequest, users: Mapping[str, User], *, public: bool
) -> Caller | None:
    """The caller behind a request; `None` where it has no token and needs one."""
    asked = request.query.get("gitlab_token", "")
    token = asked or request.headers.get("X-Gitlab-Token", "")
    if token:
        return Caller(users.get(token), token, in_query=bool(asked))
    return Caller(PUBLIC) if public else None


def forwarded_user(
    request: RecordedRequest, caller: Caller, users: Mapping[str, User]
) -> User | None:
    """The user that GitLab sees behind a download.

    An `Authorization` header is passed on and replaces the token, so that GitLab sees somebody
    else, or with anything but a token that it knows, nobody.
    """
    authorization = request.headers.get("Authorization")
    if authorization is None:
        return caller.user
    scheme, _, secret = authorization.partition(" ")
    return users.get(secret, PUBLIC) if scheme.lower() == "bearer" else PUBLIC
