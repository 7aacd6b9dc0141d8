"""What stock pystac lacks to walk an API, added to its own classes.

The collections of a STAC API list their items behind one ``items`` link, and pystac knows ``item``
links only. The hooks act on objects that were read through a GitLabStacIO and leave every other
object to pystac, whose own behaviour they extend and never replace:

- ``Catalog.get_stac_objects`` pages the ``items`` endpoint (and ``/collections``, for a landing
  page without ``child`` links) once the stock links are exhausted;
- ``Catalog.get_child`` asks ``/collections/{id}`` for that one collection;
- ``Catalog.get_items`` asks the endpoint for the items with given ids, and goes through children
  one after the other;
- ``STACObject.from_file`` lets every object keep its reader, returns the Collection that
  ``Catalog.from_file`` was pointed at, and explains what pystac refuses;
- ``full_copy`` and ``normalize_hrefs``, and so ``normalize_and_save``, find out first whether the
  tree has an end;
- ``clone``, and so ``full_copy`` and ``map_items``, keep the reader;
- ``ItemCollection.from_file`` lets its items keep their reader, and explains likewise;
- ``StacIO.set_default(GitLabStacIO)`` makes one reader, where pystac would make one a call, each
  with connections of its own and a token bound to another server.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast
from urllib.parse import quote, urlsplit

import pystac
from pystac.item_collection import ItemCollection
from pystac.link import Link
from pystac.stac_object import STACObject
from pystac.utils import is_absolute_href, make_absolute_href, make_posix_style

from stac_gitlab.errors import ConfigurationError, InvalidRequestError, InvalidResponseError
from stac_gitlab.files.paths import is_local
from stac_gitlab.reading.listing import (
    list_collections,
    list_items,
    read_item,
    readable_item_of,
    report_bad_item,
)
from stac_gitlab.reading.objects import (
    ItemRelations,
    OwnDocument,
    check_feature,
    collection_of,
    collections_url_of,
    explain_pystac_errors,
    item_of,
    items_url_of,
    keep_stac_io,
    make_own_root,
)
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import redact, strip_token_parameters
from stac_gitlab.settings import expect, whole_number

logger = logging.getLogger(__name__)
MAX_LEVELS = 100
"""How many catalogs may stand above another. Python ends what calls itself 1000 times."""


_MARK = "_stac_gitlab_hook"
LinkOrder = Callable[[list[Link]], list[Link]]


def install() -> None:
    """Add the hooks to pystac's classes. Doing it twice changes nothing."""
    hooks: tuple[tuple[type, str, Any], ...] = (
        (pystac.Catalog, "get_stac_objects", _get_stac_objects),
        (pystac.Catalog, "get_items", _get_items(pystac.Catalog.get_items)),
        (pystac.Catalog, "get_child", _get_child(pystac.Catalog.get_child)),
        (STACObject, "from_file", _from_file(STACObject.from_file)),
        (ItemCollection, "from_file", _items_from_file(ItemCollection.from_file)),
        (pystac.Catalog, "normalize_hrefs", _normalize_hrefs(pystac.Catalog.normalize_hrefs)),
        (pystac.Catalog, "full_copy", _full_copy(pystac.Catalog.full_copy)),
        (pystac.StacIO, "set_default", _set_default(pystac.StacIO.set_default)),
        *((owner, "clone", _clone(owner.clone)) for owner in _CLONED),
    )
    for owner, name, hook in hooks:
        add_hook(owner, name, hook)


def add_hook(owner: type, name: str, hook: Any) -> None:
    """Put a function in the place of a method or class method, unless one of ours is there."""
    present = owner.__dict__.get(name)
    if not getattr(getattr(present, "__func__", present), _MARK, False):
        stock = getattr(owner, name)
        # For help() and whoever looks at the signature.
        functools.update_wrapper(hook, getattr(stock, "__func__", stock))
        setattr(hook, _MARK, True)
        setattr(owner, name, classmethod(hook) if isinstance(present, classmethod) else hook)


def reader_of(catalog: pystac.Catalog) -> GitLabStacIO | None:
    """Return the GitLabStacIO that a catalog was read through, if it was."""
    stac_io = getattr(catalog, "_stac_io", None)
    return stac_io if isinstance(stac_io, GitLabStacIO) else None


def materialize(catalog: pystac.Catalog, max_items: int | None = None) -> pystac.Catalog:
    """Replace the ``items`` links of a catalog and its children by links to the items themselves.

    ``save``, ``normalize_and_save``, ``full_copy``, ``map_items`` and ``generate_subcatalogs`` go
    by links; after this they see the items of an API. All of them are then held in memory.

    Args:
        catalog: A catalog or collection read through a GitLabStacIO. It is changed in place.
        max_items: How many items to take at the most, over all collections; None for all.

    Returns:
        The same catalog.

    Raises:
        ConfigurationError: If an argument makes no sense.
        STACGitLabError: If a page cannot be read.

    Example:
        >>> import pystac
        >>> from stac_gitlab import materialize
        >>> catalog = pystac.Catalog("local", "Needs no materializing")
        >>> materialize(catalog) is catalog
        True
    """
    expect("catalog", catalog, pystac.Catalog, wanted="a catalog or collection")
    if max_items is not None:
        whole_number("max_items", max_items, least=0)
    _materialize(catalog, max_items)
    parent = catalog.get_single_link(pystac.RelType.PARENT)
    if reader_of(catalog) is not None and (parent is None or not parent.is_resolved()):
        # It was read by itself: what is saved of it is to stand by itself as well.
        catalog.set_parent(None)
        catalog.set_root(catalog)
        for link in catalog.links:
            if link.rel in (pystac.RelType.CHILD, pystac.RelType.ITEM) and link.is_resolved():
                cast("STACObject", link.target).set_root(catalog)
    return catalog


def _materialize(catalog: pystac.Catalog, max_items: int | None) -> int:
    taken = 0
    for child in list(catalog.get_children()):
        left = None if max_items is None else max_items - taken
        taken += _materialize(child, left)
        if not any(link.target is child for link in catalog.get_links("child")):
            catalog.add_link(Link.child(child))
    catalog.remove_links("data")
    if items_url_of(catalog) is None or reader_of(catalog) is None:
        return taken
    stock = sum(1 for link in catalog.links if link.rel == "item")
    fresh: list[Link] = []
    left = None if max_items is None else max_items - taken
    for number, item in enumerate(itertools.islice(catalog.get_items(), left)):
        if number >= stock:
            fresh.append(Link.item(item))
        taken += 1
    catalog.remove_links("items")
    catalog.add_links(fresh)
    return taken


# -- Catalog.get_stac_objects ---------------------------------------------------------------


def _get_stac_objects(
    self: pystac.Catalog,
    rel: str | pystac.RelType,
    typ: type[STACObject] | None = None,
    modify_links: LinkOrder | None = None,
) -> Iterable[STACObject]:
    seen: set[str | None] = set()
    stac_io = reader_of(self)
    for found in STACObject.get_stac_objects(self, rel, typ, modify_links):
        seen.add(found.id)
        if stac_io is None or _check_link_target(found, rel, self, stac_io):
            yield found
    if stac_io is None:
        return
    if rel == pystac.RelType.ITEM:
        url = items_url_of(self)
        more: Iterator[STACObject] = iter(()) if url is None else _items(self, stac_io, url)
    elif rel == pystac.RelType.CHILD and not any(k.rel == rel for k in self.links):
        more = _collections(self, stac_io)
    else:
        return
    for found in more:
        if found.id not in seen and (typ is None or isinstance(found, typ)):
            yield found


def _check_link_target(
    found: STACObject, rel: str | pystac.RelType, catalog: pystac.Catalog, stac_io: GitLabStacIO
) -> bool:
    """Tell whether what a link of a catalog leads to may be gone on with.

    Raises:
        InvalidResponseError: If it is no catalog where one is linked, or one that a walk would
            never come out of.
    """
    if rel == pystac.RelType.ITEM and not isinstance(found, pystac.Item):
        report_bad_item(stac_io, _misplaced(found, "an item"), found.id)
        return False
    if rel == pystac.RelType.CHILD:
        if not isinstance(found, pystac.Catalog):
            raise _misplaced(found, "a catalog or collection")
        _check_ancestors(found, catalog)
    return True


def _misplaced(found: STACObject, wanted: str) -> InvalidResponseError:
    redacted = redact(found.get_self_href() or "")
    return InvalidResponseError(
        f"{redacted}: {type(found).__name__} {found.id!r} came where a link promises {wanted}. "
        "Whoever maintains the catalog has to mend it.",
        url=redacted,
    )


def _check_ancestors(child: pystac.Catalog, parent: pystac.Catalog) -> None:
    """Check that a child is none of its own ancestors, of which there is an end.

    pystac walks down by functions that call themselves, and up to the end.
    """
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
        problem = f"stands below more than {MAX_LEVELS} catalogs"
    href = child.get_self_href()
    for link in parent.get_links(pystac.RelType.CHILD):
        if href is not None and link.is_resolved() and link.target is child:
            link.target = href
    child.set_parent(None)
    redacted = redact(href or "")
    raise InvalidResponseError(
        f"{redacted}: {child.id!r} {problem}, so that a walk through the catalog would not end. "
        "Whoever maintains it has to mend it.",
        url=redacted,
    )


def _href_without_fragment(catalog: pystac.Catalog) -> str | None:
    href = catalog.get_self_href()
    return None if href is None else href.partition("#")[0]


def _items(catalog: pystac.Catalog, stac_io: GitLabStacIO, url: str) -> Iterator[pystac.Item]:
    relations = ItemRelations(catalog)
    for feature in list_items(stac_io, url):
        item = readable_item_of(stac_io, feature, url)
        if item is not None:
            yield relations.attach(item)


def _collections(catalog: pystac.Catalog, stac_io: GitLabStacIO) -> Iterator[pystac.Collection]:
    url = collections_url_of(catalog)
    if url is None:
        return
    for document in list_collections(stac_io, url):
        yield _placed(collection_of(document, stac_io, url), catalog, url)


def _placed(collection: pystac.Collection, parent: pystac.Catalog, url: str) -> pystac.Collection:
    """Return a collection as a child of `parent`: the one that is known, or else this one."""
    if collection.get_self_href() is None:
        # Its key would be the ids of all its ancestors, for which pystac follows parent links.
        home = f"{url.partition('?')[0].rstrip('/')}/{quote(str(collection.id))}"
        collection.add_link(Link.self_href(home))
    _check_ancestors(collection, parent)
    collection.set_parent(parent)
    root = parent.get_root()
    if root is not None:
        # As pystac does with what a link resolves to: one object for one href.
        known = root._resolved_objects.get_or_cache(collection)
        if isinstance(known, pystac.Collection):
            collection = known
        collection.set_root(root)
        collection.set_parent(parent)
    return collection


# -- Catalog.get_items ----------------------------------------------------------------------

GetItems = Callable[..., Iterator[pystac.Item]]


def _get_items(stock: GetItems) -> GetItems:
    def get_items(
        self: pystac.Catalog, *ids: str, recursive: bool = False
    ) -> Iterator[pystac.Item]:
        stac_io = reader_of(self)
        if stac_io is None:
            yield from stock(self, *ids, recursive=recursive)
            return
        url = items_url_of(self)
        if ids and url is not None and urlsplit(url).path.rstrip("/").endswith("/items"):
            yield from _items_by_id(self, stac_io, url, ids)
        else:
            yield from stock(self, *ids)
        if recursive:
            # One child after the other; the stock method resolves all of them before the first
            # item comes.
            for child in self.get_children():
                yield from child.get_items(*ids, recursive=True)

    return get_items


def _items_by_id(
    catalog: pystac.Catalog, stac_io: GitLabStacIO, url: str, ids: tuple[str, ...]
) -> Iterator[pystac.Item]:
    linked = STACObject.get_stac_objects(catalog, pystac.RelType.ITEM)
    wanted = dict.fromkeys(ids)
    for found in linked:
        if found.id in wanted:
            del wanted[found.id]
            yield cast("pystac.Item", found)
    relations: ItemRelations | None = None
    for item_id in filter(None, wanted):
        answer = read_item(stac_io, url, item_id)
        if answer is None:
            continue
        href, document = answer
        item = item_of(document, stac_io, href)
        if stac_io.session.dialect_of(url).is_same_id(item_id, str(item.id)):
            relations = relations or ItemRelations(catalog)
            yield relations.attach(item)


# -- Catalog.get_child ----------------------------------------------------------------------

GetChild = Callable[..., pystac.Catalog | None]


def _get_child(stock: GetChild) -> GetChild:
    def get_child(
        self: pystac.Catalog,
        id: str,  # noqa: A002  # pystac names it
        recursive: bool = False,
        sort_links_by_id: bool = True,
    ) -> pystac.Catalog | None:
        stac_io = reader_of(self)
        url = None if stac_io is None or recursive else collections_url_of(self)
        if stac_io is None or url is None or not id or is_local(url):
            return stock(self, id, recursive, sort_links_by_id)
        links = self.get_links(pystac.RelType.CHILD)
        all_known = bool(links) and all(link.is_resolved() for link in links)
        if not all_known and not any(_may_be(link, id) for link in links):
            found = _collection_by_id(self, stac_io, url, id)
            if found is not None:
                return found
        return stock(self, id, recursive, sort_links_by_id)

    return get_child


def _may_be(link: Link, child_id: str) -> bool:
    """Tell whether a link leads, or is likely to lead, to the child with that id."""
    if link.is_resolved():
        return cast("STACObject", link.target).id == child_id
    return child_id in (link.get_href() or "")


def _collection_by_id(
    catalog: pystac.Catalog, stac_io: GitLabStacIO, collections_url: str, collection_id: str
) -> pystac.Collection | None:
    """Ask for one collection; None where it is not at its usual place, and may be in the list."""
    try:
        answer = read_item(stac_io, collections_url, collection_id)
    except InvalidRequestError:
        return None
    if answer is None:
        return None
    href, document = answer
    if document.get("id") != collection_id or document.get("type") != "Collection":
        return None
    return _placed(collection_of(document, stac_io, href), catalog, collections_url)


# -- from_file ------------------------------------------------------------------------------


def _from_file(stock: Any) -> Callable[..., Any]:
    def from_file(
        cls: type[STACObject], href: Any, stac_io: pystac.StacIO | None = None
    ) -> STACObject:
        reader = pystac.StacIO.default() if stac_io is None else stac_io
        if cls is STACObject or not isinstance(reader, GitLabStacIO):
            return cast("STACObject", stock.__func__(cls, href, stac_io))
        href = _absolute(href)
        document = reader.read_json(href)
        if cls is pystac.Catalog and document.get("type") == pystac.STACObjectType.COLLECTION:
            cls = pystac.Collection
        elif cls is pystac.Item:
            document = OwnDocument(document)
        with explain_pystac_errors(href, document):
            found = cls.from_dict(document, href=href, migrate=True, preserve_dict=False)
        keep_stac_io(found, reader)
        make_own_root(found, href)
        return found

    return from_file


def _items_from_file(stock: Any) -> Callable[..., Any]:
    def from_file(
        cls: type[ItemCollection], href: Any, stac_io: pystac.StacIO | None = None
    ) -> ItemCollection:
        reader = pystac.StacIO.default() if stac_io is None else stac_io
        if not isinstance(reader, GitLabStacIO):
            return cast("ItemCollection", stock.__func__(cls, href, stac_io))
        href = _absolute(href)
        document = reader.read_json(href)
        if document.get("type") == "FeatureCollection" and not is_local(href):
            for feature in document["features"]:
                check_feature(feature, url=redact(href))
        with explain_pystac_errors(href, document):
            found = cls.from_dict(document, preserve_dict=False)
        for item in found.items:
            keep_stac_io(item, reader)
        return found

    return from_file


# -- full_copy, normalize_hrefs -------------------------------------------------------------


def _full_copy(stock: Callable[..., pystac.Catalog]) -> Callable[..., pystac.Catalog]:
    def full_copy(
        self: pystac.Catalog,
        root: pystac.Catalog | None = None,
        parent: pystac.Catalog | None = None,
    ) -> pystac.Catalog:
        if root is None and reader_of(self) is not None:
            _check_tree(self)
        return stock(self, root, parent)

    return full_copy


def _normalize_hrefs(stock: Callable[..., None]) -> Callable[..., None]:
    def normalize_hrefs(
        self: pystac.Catalog, root_href: str, strategy: Any = None, skip_unresolved: bool = False
    ) -> None:
        if reader_of(self) is not None and not skip_unresolved:
            _check_tree(self)
        stock(self, root_href, strategy, skip_unresolved)

    return normalize_hrefs


def _check_tree(catalog: pystac.Catalog) -> None:
    """Follow the links of a catalog to the last, as pystac does it by itself here."""
    for link in catalog.get_links(pystac.RelType.CHILD):
        child = link.resolve_stac_object(root=catalog.get_root()).target
        stac_io = reader_of(catalog)
        if stac_io is not None:
            _check_link_target(cast("STACObject", child), pystac.RelType.CHILD, catalog, stac_io)
        _check_tree(cast("pystac.Catalog", child))


# -- clone ----------------------------------------------------------------------------------

_CLONED = (pystac.Catalog, pystac.Collection, pystac.Item)


def _clone(stock: Callable[..., Any]) -> Callable[..., Any]:
    def clone(self: Any) -> Any:
        copy = stock(self)
        reader = getattr(self, "_stac_io", None)
        if isinstance(reader, GitLabStacIO):
            keep_stac_io(copy, reader)
        return copy

    return clone


# -- StacIO.set_default ---------------------------------------------------------------------


def _set_default(stock: Any) -> Callable[..., Any]:
    def set_default(cls: type[pystac.StacIO], stac_io_class: Callable[[], pystac.StacIO]) -> None:
        if isinstance(stac_io_class, type) and issubclass(stac_io_class, GitLabStacIO):
            stac_io_class = stac_io_class()
        stock.__func__(cls, stac_io_class)

    return set_default


def _absolute(href: Any) -> str:
    # What an object was read from becomes its self link.
    href = strip_token_parameters(make_posix_style(href))
    try:
        return href if is_absolute_href(href) else make_absolute_href(href)
    except ValueError as error:
        raise ConfigurationError(f"{redact(ascii(href))}: not a URL ({error}).") from None
