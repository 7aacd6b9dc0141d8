"""The children and items of a catalog: those that it links to, and those that an API lists.

pystac walks a tree by recursion, down to the items and up to the root. A link that leads to a
catalog which is above it, or further down than Python can follow, raises an error here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard, cast
from urllib.parse import quote

import pystac
from pystac.link import Link
from pystac.stac_object import STACObject

from stac_gitlab.errors import (
    AuthenticationError,
    HTTPStatusError,
    InvalidRequestError,
    InvalidResponseError,
    NetworkError,
    RateLimitError,
    STACGitLabError,
)
from stac_gitlab.reading.documents import is_id
from stac_gitlab.reading.listing import (
    list_collections,
    list_items,
    read_each_item,
    read_item,
    readable_collection_of,
    readable_item_of,
    report_bad_member,
)
from stac_gitlab.reading.objects import (
    ItemRelations,
    check_feature,
    collection_of,
    collections_url_of,
    explain_pystac_errors,
    is_materialized,
    item_of,
    items_url_of,
    root_of,
)
from stac_gitlab.reading.read_ahead import ReadAhead
from stac_gitlab.reading.stac_io import GitLabStacIO, reader_of
from stac_gitlab.redaction import quoted, redact

MAX_LEVELS = 100
"""Maximum depth of a catalog below its root. Python stops at 1000 nested calls."""

_FEATURES_CLASSES = ("/ogcapi-features", "/ogcapi-features-1/1.0/conf/core")
LinkOrder = Callable[[list[Link]], list[Link]]


# -- links ----------------------------------------------------------------------------------


def linked_members(
    catalog: pystac.Catalog,
    stac_io: GitLabStacIO,
    rel: str | pystac.RelType,
    modify_links: LinkOrder | None = None,
) -> Iterator[STACObject]:
    """Yield what the ``item`` or ``child`` links of a catalog lead to.

    A link that leads to nothing, or to an object of another type, is left out with a warning.

    Raises:
        pystac.STACError: If a link cannot be resolved and `on_bad_item` is ``"raise"``, or the
            error concerns the whole server.
        InvalidResponseError: If a child is above the catalog, or too far below the root.
    """
    links = catalog.links[:] if modify_links is None else modify_links(catalog.links[:])
    links = [link for link in links if link.rel == rel]
    root = catalog.get_root() if links else None
    with contextlib.closing(ReadAhead(stac_io, links, root)) as ahead:
        for link in links:
            try:
                with ahead.needing(link):
                    found = _resolved(link, root)
            except (InvalidResponseError, pystac.STACError) as error:
                reason = error if isinstance(error, InvalidResponseError) else error.__cause__
                if not _is_fault_of_one_object(reason):
                    raise
                name = f"the {rel} {redact(quoted(str(link.get_href())))}"
                report_bad_member(
                    stac_io, error if stac_io.on_bad_item == "raise" else reason, name
                )
                continue
            if is_expected(found, rel, stac_io):
                if rel == pystac.RelType.CHILD:
                    check_ancestors(cast("pystac.Catalog", found), catalog)
                yield found


def linked_items(
    catalog: pystac.Catalog, stac_io: GitLabStacIO
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what the ``item`` links of a catalog lead to: URLs and documents, none of them kept.

    A link that leads to nothing, or to no item, is left out with a warning.

    Raises:
        STACGitLabError: If a link cannot be read and `on_bad_item` is ``"raise"``, or the error
            concerns the whole server.
    """
    for link in catalog.get_links(pystac.RelType.ITEM):
        href = link.get_absolute_href() or ""
        try:
            if link.is_resolved():
                document = cast("STACObject", link.target).to_dict(transform_hrefs=False)
            else:
                document = stac_io.read_json(link)
                href = getattr(document, "url", href)
            check_feature(document, url=redact(href))
        except STACGitLabError as error:
            if not _is_fault_of_one_object(error):
                raise
            report_bad_member(stac_io, error, f"the item {redact(quoted(href))}")
            continue
        except OSError as error:
            why = f"{redact(href)}: the item cannot be read: {error.strerror or error}."
            missing = InvalidResponseError(why, url=redact(href))
            report_bad_member(stac_io, missing, f"the item {redact(quoted(href))}")
            continue
        yield href, dict(document)


def _resolved(link: Link, root: pystac.Catalog | None) -> STACObject:
    """Return what a link leads to, or explain why pystac cannot move it to its URL."""
    try:
        return cast("STACObject", link.resolve_stac_object(root=root).target)
    except (pystac.STACError, STACGitLabError):
        raise
    except Exception:
        with explain_pystac_errors(link.get_absolute_href() or "", {}):
            raise


def _is_fault_of_one_object(error: BaseException | None) -> TypeGuard[STACGitLabError]:
    """Return whether the next object of the server may be readable."""
    if isinstance(error, HTTPStatusError):
        is_refusal_of_all = isinstance(error, (AuthenticationError, RateLimitError))
        return not is_refusal_of_all and error.status_code in (400, 403, 404, 410, 422, 500)
    return isinstance(error, STACGitLabError) and not isinstance(error, NetworkError)


def is_expected(found: STACObject, rel: str | pystac.RelType, stac_io: GitLabStacIO) -> bool:
    """Return whether a link leads to an object of its type, with an id; if not, warn or raise."""
    expected: type[STACObject] = pystac.Item if rel == pystac.RelType.ITEM else pystac.Catalog
    if is_id(found.id) and isinstance(found, expected):
        return True
    url = redact(found.get_self_href() or "")
    kind = type(found).__name__.lower()
    name = f"{kind} {quoted(str(found.id))}" if is_id(found.id) else f"{kind} without an id"
    article = "an" if isinstance(found, pystac.Item) else "a"
    error = InvalidResponseError(
        f"{url}: a link with the relation {str(rel)!r} leads to {article} {name}. The catalog "
        "has to be corrected by its maintainer.",
        url=url,
    )
    report_bad_member(stac_io, error, name)
    return False


def check_ancestors(child: pystac.Catalog, parent: pystac.Catalog) -> None:
    """Raise InvalidResponseError if a child is its own ancestor, or has too many ancestors."""
    above: Any = parent
    for _ in range(MAX_LEVELS):
        if (
            above is child
            or _href_without_fragment(above) == _href_without_fragment(child) is not None
        ):
            problem = "is listed below itself"
            break
        link = above.get_single_link(pystac.RelType.PARENT)
        if link is None or not link.is_resolved():
            return
        above = link.target
    else:
        problem = f"is below more than {MAX_LEVELS} catalogs"
    href = child.get_self_href()
    for link in parent.get_links(pystac.RelType.CHILD):
        if href is not None and link.is_resolved() and link.target is child:
            link.target = href
    child.set_parent(None)
    url = redact(href or "")
    raise InvalidResponseError(
        f"{url}: {quoted(str(child.id))} {problem}, so that a walk through the catalog would not "
        "end. The catalog has to be corrected by its maintainer.",
        url=url,
    )


def _href_without_fragment(catalog: pystac.Catalog) -> str | None:
    href = catalog.get_self_href()
    return None if href is None else href.partition("#")[0]


def check_tree(catalog: pystac.Catalog) -> None:
    """Raise InvalidResponseError if a child link leads to no catalog, or the tree has no end."""
    for link in catalog.get_links(pystac.RelType.CHILD):
        child = cast("Any", link.resolve_stac_object(root=catalog.get_root()).target)
        stac_io = reader_of(catalog)
        if stac_io is not None:
            if not is_expected(child, pystac.RelType.CHILD, stac_io):
                continue
            check_ancestors(child, catalog)
        check_tree(child)


# -- listings -------------------------------------------------------------------------------


def items_endpoint_of(catalog: pystac.Catalog) -> str | None:
    """Return the URL of the items of a catalog, if an API lists them.

    A collection without any link to items is asked at its usual place, if the landing page declares
    OGC API - Features.
    """
    url = items_url_of(catalog)
    own = catalog.get_self_href()
    if url is not None or own is None or not isinstance(catalog, pystac.Collection):
        return url
    if is_materialized(catalog):
        return None
    own = own.partition("?")[0].rstrip("/")
    is_in_api = own.endswith(f"/collections/{quote(str(catalog.id), safe='')}")
    if not is_in_api or catalog.get_links(pystac.RelType.ITEM) or catalog.get_links("items"):
        return None
    return f"{own}/items" if _declares_features(catalog) else None


def _declares_features(catalog: pystac.Catalog) -> bool:
    root = root_of(catalog)
    declared = None if root is None else root.extra_fields.get("conformsTo")
    return isinstance(declared, list) and any(
        isinstance(uri, str) and uri.endswith(_FEATURES_CLASSES) for uri in declared
    )


def listed_items(catalog: pystac.Catalog, stac_io: GitLabStacIO, url: str) -> Iterator[pystac.Item]:
    """Yield the items of an items endpoint, page by page."""
    relations = ItemRelations(catalog)
    for feature in list_items(stac_io, url):
        item = readable_item_of(stac_io, feature, url)
        if item is not None:
            yield relations.attach(item)


def items_by_id(
    catalog: pystac.Catalog, stac_io: GitLabStacIO, url: str, ids: tuple[str, ...]
) -> Iterator[pystac.Item]:
    """Yield the items with these ids: linked ones first, then those that the server returns."""
    missing = dict.fromkeys(ids)
    for found in linked_members(catalog, stac_io, pystac.RelType.ITEM):
        if found.id in missing:
            del missing[found.id]
            yield cast("pystac.Item", found)
    dialect = stac_io.session.dialect_of(url)
    relations: ItemRelations | None = None
    not_found: set[str] = set()
    for item_id, response in read_each_item(stac_io, url, filter(None, missing)):
        if response is None:
            not_found.add(item_id)
            continue
        href, document = response
        item = item_of(document, stac_io, href)
        if dialect.is_same_id(item_id, str(item.id)):
            relations = relations or ItemRelations(catalog)
            yield relations.attach(item)
    if not_found and not _declares_features(catalog):
        # The server may have no URL for a single item.
        for item in listed_items(catalog, stac_io, url):
            if item.id in not_found:
                not_found.remove(item.id)
                yield item
            if not not_found:
                return


def listed_collections(
    catalog: pystac.Catalog, stac_io: GitLabStacIO
) -> Iterator[pystac.Collection]:
    """Yield the collections that ``/collections`` lists, if a catalog links to such a list."""
    url = collections_url_of(catalog)
    if url is None:
        return
    for document in list_collections(stac_io, url):
        collection = readable_collection_of(stac_io, document, url)
        if collection is not None:
            yield _attached(collection, catalog, url)


def collection_by_id(
    catalog: pystac.Catalog, stac_io: GitLabStacIO, collections_url: str, collection_id: str
) -> pystac.Collection | None:
    """Return one collection, or None if it is not at its usual URL. It may still be listed."""
    try:
        response = read_item(stac_io, collections_url, collection_id)
    except InvalidRequestError:
        return None
    if response is None:
        return None
    href, document = response
    if document.get("id") != collection_id or document.get("type") != "Collection":
        return None
    return _attached(collection_of(document, stac_io, href), catalog, collections_url)


def _attached(collection: pystac.Collection, parent: pystac.Catalog, url: str) -> pystac.Collection:
    """Return a collection as a child of `parent`: the known object, or else this one."""
    if collection.get_self_href() is None:
        # Without it, pystac follows the parent links, to look the collection up by their ids.
        listed_at = url.partition("?")[0].rstrip("/")
        collection.add_link(Link.self_href(f"{listed_at}/{quote(str(collection.id))}"))
    check_ancestors(collection, parent)
    collection.set_parent(parent)
    root = parent.get_root()
    if root is not None:
        # One object for one href, as for the targets of links in pystac.
        known = root._resolved_objects.get_or_cache(collection)
        if isinstance(known, pystac.Collection):
            collection = known
        collection.set_root(root)
        collection.set_parent(parent)
    return collection
