"""The questions that generic code asks about the system behind a URL.

Generic code knows HTTP, STAC and the STAC API. Each system that differs has a subclass of
:class:`Dialect` in a module of its own. The URL alone decides which one is used. The defaults here
describe a STAC API that follows its specification.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from stac_gitlab.auth import Token


class Dialect:
    """A STAC API as its specification describes it."""

    ignored_by_items: frozenset[str] = frozenset()
    """Query parameters that the items endpoint ignores although conformance names them."""

    searches_by_get: bool = False
    """Whether a search with POST has to be sent as one with GET."""

    advice: Mapping[int, str] = MappingProxyType({})
    """What a status means here and what to do, where that is not the usual meaning."""

    def speaks(self, url: str) -> bool:
        """Return whether this dialect is the one for `url`."""
        return True

    def token_header(self, token: Token) -> tuple[str, str]:
        """Return the name of the header for a token, and the scheme before it, if any.

        With the scheme ``Basic USER``, the token is the password of that user.
        """
        return "X-Gitlab-Token", ""

    def request_urls(self, url: str) -> Iterator[str]:
        """Yield the URLs to request for `url`; the next one is used where one is not found."""
        yield url

    def goes_on_after(self, missing: str) -> bool:
        """Return whether the next of :meth:`request_urls` may exist, given the body of a 404."""
        return True

    def base_href(self, requested: str, received: str) -> str:
        """Return the URL that relative links of a document are relative to.

        Args:
            requested: The URL that the caller named.
            received: The URL that the document came from, after redirects.
        """
        return received

    def correct(self, document: dict[str, Any], url: str) -> None:
        """Correct, in place, the known mistakes in a document that came from `url`."""

    def advice_for_page(self, url: str) -> str | None:
        """Return what to request instead of a web page that no token opens, or None."""
        return None

    def is_missing(self, status: int) -> bool:
        """Return whether an error status says that there is no such item or collection."""
        return status in (404, 410)

    def is_same_id(self, requested: str, received: str) -> bool:
        """Return whether an item or collection with the id `received` is the one requested."""
        return requested == received

    def query_parameters(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """Return the query parameters of a listing in a form that the server understands.

        With ``intersects``, which they may contain then, the listing is a search.
        """
        return dict(parameters)

    def item_url(self, page_url: str, item_id: str) -> str:
        """Return the URL of one of the items that a page lists."""
        parts = urlsplit(page_url)
        path = f"{parts.path.rstrip('/')}/{quote(item_id, safe='')}"
        return urlunsplit(parts._replace(path=path))

    def short_forms(self, page_url: str) -> tuple[Mapping[str, str], ...]:
        """Return the query parameters for short forms of a page, the most complete one first.

        A server with short forms may fail on a whole page because of one item.
        """
        return ()

    def asset_url(
        self, href: str, *, key: str, item_id: str, item_url: str, properties: Mapping[str, Any]
    ) -> str:
        """Return the URL to download an asset from."""
        return href

    def lfs_url(self, url: str) -> str | None:
        """Return the URL of the file that a Git LFS pointer at `url` stands for, or None."""
        return None

    def tree_url(
        self, url: str, *, item_id: str, properties: Mapping[str, Any]
    ) -> tuple[str, str] | None:
        """Return the URL that lists git blob ids, and the path of an asset's file in that listing.

        `url` is the download URL of the asset. The result is None if there is no such listing.
        """
        return None

    def archive_url(
        self, item_url: str, *, item_id: str, properties: Mapping[str, Any], ref: str | None
    ) -> str | None:
        """Return the URL of the repository of an item's project, as a ZIP file, or None.

        `ref` is a branch, tag or commit; None stands for the default.
        """
        return None

    def generates(self, url: str) -> bool:
        """Return whether `url` is a document that the server generates, perhaps with tokens."""
        return False

    def sha256(self, headers: Mapping[str, str], size: int | None) -> str | None:
        """Return the SHA-256 digest that the headers of a response state for its file, in hex.

        Args:
            headers: The headers of the response, case-insensitive.
            size: Bytes of the whole file, where they are known.
        """
        return None
