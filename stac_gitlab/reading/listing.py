"""Items and collections that an API lists, page by page, without the unreadable ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pystac

from stac_gitlab.errors import (
    HTTPStatusError,
    InvalidResponseError,
    PartialItemWarning,
    ServerError,
    STACGitLabError,
    UnreadableItemWarning,
)
from stac_gitlab.reading.objects import (
    check_collection,
    check_feature,
    collection_of,
    id_of,
    item_of,
)
from stac_gitlab.reading.paging import Page, PageRequest, Pages, with_limit
from stac_gitlab.reading.refused_pages import PartialItem, UnreadableItem, read_items_page
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import quoted

T = TypeVar("T")
# After this number of items that cannot be read, and none that can, the server is assumed to fail.
_MOST_FAILURES = 3


def list_items(
    stac_io: GitLabStacIO, items_url: str, *, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the items of an items endpoint, page by page, as dictionaries.

    With a `limit`, which the caller applies, pages beyond it are not read ahead.

    Raises:
        STACGitLabError: If a page cannot be read.
    """
    pages = item_pages(stac_io, items_url)
    yield from pages.listed(partial(is_readable, stac_io), limit=limit)
    stac_io.omissions += not pages.is_complete


def item_pages(
    stac_io: GitLabStacIO,
    items_url: str,
    *,
    by_post: Callable[[str], PageRequest | None] | None = None,
) -> Pages:
    """Return the unread pages of an items endpoint. Check what they list with `is_readable`.

    `by_post` returns the search to send instead of a URL that the server fails on, if any.
    """
    first = PageRequest(with_limit(items_url, stac_io.page_size))

    def read(request: PageRequest) -> Page:
        if by_post is None or request is not first:
            return read_items_page(stac_io, request)
        policy = stac_io.session.retry
        once = policy.replace(statuses=policy.statuses - {500})
        try:
            return stac_io.read_page(request, retry=once)
        except ServerError as error:
            search = by_post(request.href) if error.status_code == 500 else None
            with suppress(STACGitLabError):
                if search is not None:
                    return replace(stac_io.read_page(search, retry=once), request=search)
        return read_items_page(stac_io, request)

    return Pages(
        read,
        first,
        limits=stac_io.session.limits,
        known_gaps=stac_io.known_gaps,
        # If the URL has its own limit, the page size is unknown.
        page_size=None if first.href == items_url else stac_io.page_size,
    )


def is_readable(
    stac_io: GitLabStacIO,
    listed: Any,
    url: str,
    *,
    check: Callable[..., None] = check_feature,
    kind: str = "item",
) -> bool:
    """Return whether what a page lists can be read; if not, warn or raise as `on_bad_item` says.

    `url` is that of the page, redacted. `check` raises an InvalidResponseError for what cannot be
    read.
    """
    if isinstance(listed, UnreadableItem):
        report_bad_member(stac_io, listed.error, _name_of(kind, listed.item_id))
        return False
    if isinstance(listed, PartialItem):
        if stac_io.on_bad_item == "raise":
            raise listed.error
        warnings.warn(
            f"Partial {_name_of(kind, id_of(listed))}: the server fails on it, and gave a short "
            f"form without most of its assets and properties. {listed.error}",
            PartialItemWarning,
            stacklevel=2,
        )
        return True
    try:
        check(listed, url=url)
    except InvalidResponseError as error:
        report_bad_member(stac_io, error, _name_of(kind, id_of(listed)))
        return False
    return True


def readable_item_of(
    stac_io: GitLabStacIO, feature: dict[str, Any], url: str
) -> pystac.Item | None:
    """Return the item that a page lists; None, with a warning, if pystac refuses it."""
    return _readable(item_of, "item", stac_io, feature, url)


def readable_collection_of(
    stac_io: GitLabStacIO, document: dict[str, Any], url: str
) -> pystac.Collection | None:
    """Return the collection that a page lists; None, with a warning, if pystac refuses it."""
    return _readable(collection_of, "collection", stac_io, document, url)


def _readable(
    make: Callable[[dict[str, Any], GitLabStacIO, str], T],
    kind: str,
    stac_io: GitLabStacIO,
    document: dict[str, Any],
    url: str,
) -> T | None:
    name = _name_of(kind, document.get("id"))
    try:
        return make(document, stac_io, url)
    except STACGitLabError as error:
        report_bad_member(stac_io, error, name)
        return None


def report_bad_member(stac_io: GitLabStacIO, error: Exception, name: str) -> None:
    """Warn about, or raise for, a member of a listing or catalog that cannot be read."""
    stac_io.omissions += 1
    if stac_io.on_bad_item == "raise":
        raise error
    warnings.warn(f"Left out {name}: {error}", UnreadableItemWarning, stacklevel=2)


def _name_of(kind: str, name: object) -> str:
    if name is None:
        return f"{'an' if kind == 'item' else 'a'} {kind} without an id"
    return f"{kind} {quoted(str(name))}"


def read_item(
    stac_io: GitLabStacIO, items_url: str, item_id: str
) -> tuple[str, dict[str, Any]] | None:
    """Return one item of an items endpoint with its URL, or None if it is not there.

    Raises:
        STACGitLabError: If the server does not say whether it is there.
    """
    dialect = stac_io.session.dialect_of(items_url)
    try:
        url = dialect.item_url(items_url, item_id)
    except UnicodeEncodeError:
        # A lone surrogate cannot be part of a URL, so no server has such an item.
        return None
    try:
        document = stac_io.read_json(url)
    except HTTPStatusError as error:
        if dialect.is_missing(error.status_code):
            return None
        raise
    return url, document


def read_each_item(
    stac_io: GitLabStacIO, items_url: str, ids: Iterable[str]
) -> Iterator[tuple[str, tuple[str, dict[str, Any]] | None]]:
    """Yield each id with what :func:`read_item` returns for it, but for items that are bad.

    Raises:
        STACGitLabError: If none of the first items can be read.
    """
    # Reported only when the server has answered: it may be the server that fails, and no item.
    failed: list[tuple[str, STACGitLabError]] = []
    is_answering = False
    for item_id in ids:
        try:
            response = read_item(stac_io, items_url, item_id)
        except (InvalidResponseError, ServerError) as error:
            failed.append((item_id, error))
            if len(failed) == _MOST_FAILURES:
                raise
        else:
            is_answering = True
            yield item_id, response
        while is_answering and failed:
            name, failure = failed.pop(0)
            report_bad_member(stac_io, failure, _name_of("item", name))
    if failed:
        raise failed[0][1]


def list_collections(stac_io: GitLabStacIO, collections_url: str) -> Iterator[dict[str, Any]]:
    """Yield the collections that ``/collections`` lists, page by page, as dictionaries.

    Raises:
        STACGitLabError: If a page cannot be read.
    """
    pages = Pages(
        stac_io.read_page,
        PageRequest(collections_url),
        field_name="collections",
        limits=stac_io.session.limits,
        known_gaps=stac_io.known_gaps,
    )
    is_member = partial(is_readable, stac_io, check=check_collection, kind="collection")
    yield from pages.listed(is_member)
    stac_io.omissions += not pages.is_complete
