"""What generic code asks of the system behind a URL.

Generic code speaks HTTP, STAC and the STAC API. Where one system differs, a subclass of
:class:`Dialect` in a module of its own says so; which one is in charge is decided by the URL alone.
The defaults here are a STAC API that keeps to its specification.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from stac_gitlab.auth import Token


class Dialect:
    """A STAC API as its specification describes it."""

    def speaks(self, url: str) -> bool:
        """Tell whether this dialect is in charge of `url`."""
        return True

    def token_header(self, token: Token) -> tuple[str, str]:
        """Return the header, name and value, under which a token travels."""
        return "X-Gitlab-Token", token.value

    def request_urls(self, url: str) -> Iterator[str]:
        """Yield the URLs to ask for `url`, the next one where the one before is not found."""
        yield url

    def goes_on_after(self, missing: str) -> bool:
        """Tell whether the next of :meth:`request_urls` may be found, given what a 404 says."""
        return True

    def correct(self, document: dict[str, Any], url: str) -> None:
        """Mend, in place, what is known to be wrong in a document that came from `url`."""

    def advice(self, status: int) -> str | None:
        """Return what a status means here and what to do, or None for the usual meaning."""
        return None

    def item_url(self, items_url: str, item_id: str) -> str:
        """Return the URL of one item of an items endpoint."""
        parts = urlsplit(items_url)
        path = f"{parts.path.rstrip('/')}/{quote(item_id, safe='')}"
        return urlunsplit(parts._replace(path=path))

    def reference_page_url(self, page_url: str) -> str | None:
        """Return the URL of the same page with bare references, where the system has such."""
        return None

    def full_page_url(self, page_url: str) -> str:
        """Undo :meth:`reference_page_url`, for the `next` link of a page of references."""
        return page_url

    def asset_url(
        self, href: str, *, key: str, item_id: str, item_url: str, properties: Mapping[str, Any]
    ) -> str:
        """Return the URL to download an asset from."""
        return href

    def lfs_url(self, url: str) -> str | None:
        """Return the URL of what a Git LFS pointer at `url` points to, if it can be had."""
        return None

    def item_version(self, properties: Mapping[str, Any]) -> str | None:
        """Return what changes whenever a file of the item does, if its server tells."""
        return None
