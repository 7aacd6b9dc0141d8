"""From where a SharingHub document is seen, and the addresses that it therefore holds.

The quirks of the real addresses are here: the caller's token stands in every link to a file, and
file paths are not percent-encoded, so that the query lands in front of what follows a `#`.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from urllib.parse import parse_qsl, urlencode, urlparse, urlunparse

from stac_gitlab.testing.projects import Project

# The built-in table alone, so that items look the same on every machine, and what the recorded
# server had beside it.
_MEDIA_TYPES = mimetypes.MimeTypes()
_MEDIA_TYPES.add_type("text/markdown", ".md")
_MEDIA_TYPES.add_type("application/geo+json", ".geojson")

_TEARING = frozenset("?#;")
"""What makes the server tear a path apart where it stands unquoted in an address."""


@dataclass(frozen=True)
class Viewpoint:
    """From where a document is seen: the name the server was called by, and the token it was given.

    Attributes:
        origin: Scheme and host of the request.
        stac_path: Path of the STAC API.
        api_path: Path of the server's other routes.
        gitlab_url: Address of the GitLab behind the server.
        link_query: What every link carries: the token, if it came in the query.
        file_query: What every link to a file carries: the token, if the caller sent one.
    """

    origin: str
    stac_path: str
    api_path: str
    gitlab_url: str
    link_query: Mapping[str, str] = field(default_factory=dict)
    file_query: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _link_suffix(self) -> str:
        return f"?{urlencode(self.link_query)}" if self.link_query else ""

    def stac(self, path: str) -> str:
        """The address of a STAC endpoint."""
        return f"{self.origin}{self.stac_path}{path}{self._link_suffix}"

    def root(self) -> str:
        """The address of the landing page as it names itself: with a slash at the end."""
        return self.stac("/")

    def page(self, path: str, query: Mapping[str, object]) -> str:
        """The address of a page of a listing."""
        return f"{self.origin}{self.stac_path}{path}{f'?{urlencode(query)}' if query else ''}"

    def download(self, project: Project, path: str, query: Mapping[str, str]) -> str:
        """The download address of a repository file, as unquoted as the server writes it."""
        address = f"{self.origin}{self.api_path}/download/{project.path}/repository/{path}"
        if _TEARING.isdisjoint(path):
            return f"{address}?{_encoded((*query.items(), *self.file_query.items()))}"
        # Parsed *after* it was put together: what follows a `?` or `#` in the path is torn off.
        parts = urlparse(address)
        merged = {**dict(parse_qsl(parts.query)), **query, **self.file_query}
        return urlunparse(parts._replace(query=urlencode(merged)))

    def archive(self, project: Project, ref: str) -> str:
        """The download address of the repository's archive."""
        query = urlencode({"ref": ref, **self.file_query})
        return f"{self.origin}{self.api_path}/download/{project.path}/archive.zip?{query}"


@lru_cache(maxsize=256)
def _encoded(query: tuple[tuple[str, str], ...]) -> str:
    return urlencode(query)


@lru_cache(maxsize=4096)
def media_type(path: str) -> str | None:
    """The media type that a path's ending tells, as far as an address made of it still shows it."""
    return _MEDIA_TYPES.guess_type(urlparse(path).path)[0]
