"""All changes to pystac's own classes, in one table: :data:`HOOKS`.

The hooks act on objects that were read through a GitLabStacIO, and leave all others to pystac.
Each hook calls the method that it replaces, and adds what that method lacks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast
from urllib.parse import urlsplit

import pystac
import pystac.utils
from pystac.item_collection import ItemCollection
from pystac.layout import APILayoutStrategy
from pystac.link import Link
from pystac.stac_object import STACObject
from pystac.utils import is_absolute_href, make_absolute_href, make_posix_style

from stac_gitlab.errors import ConfigurationError, STACGitLabError
from stac_gitlab.files.paths import is_local
from stac_gitlab.reading.documents import check_stac, with_version
from stac_gitlab.reading.members import (
    LinkOrder,
    check_tree,
    collection_by_id,
    items_by_id,
    items_endpoint_of,
    linked_members,
    listed_collections,
    listed_items,
)
from stac_gitlab.reading.objects import (
    OwnDocument,
    collections_url_of,
    explain_pystac_errors,
    is_materialized,
    keep_stac_io,
    known_relative,
    make_own_root,
    mark_materialized,
    release_document,
)
from stac_gitlab.reading.saving import SafeLayout, warn_about_unlinked_items
from stac_gitlab.reading.stac_io import GitLabStacIO, reader_of
from stac_gitlab.reading.untrusted_links import ExtensionName
from stac_gitlab.redaction import redact, strip_token_parameters
from stac_gitlab.tracebacks import folded_traceback

_MARK = "_stac_gitlab_hook"


Stock = Callable[..., Any]
"""A method of pystac, as a function."""


@dataclass(frozen=True)
class Hook:
    """One change to pystac.

    Attributes:
        owner: The class, or the module, that is changed.
        method: The method or function that is replaced.
        replacement: What is called instead, with the stock method before the arguments.
        reason: What pystac lacks without the change.
        test: The test that fails once pystac no longer needs the change.
    """

    owner: type | ModuleType
    method: str
    replacement: Callable[..., Any]
    reason: str
    test: str


def install(hooks: Iterable[Hook] | None = None) -> None:
    """Add hooks to their classes, by default :data:`HOOKS`. Doing it again changes nothing."""
    for hook in HOOKS if hooks is None else hooks:
        present = vars(hook.owner).get(hook.method)
        if not getattr(getattr(present, "__func__", present), _MARK, False):
            method = _hooked(getattr(hook.owner, hook.method), hook.replacement)
            is_classmethod = isinstance(present, classmethod)
            setattr(hook.owner, hook.method, classmethod(method) if is_classmethod else method)


def _hooked(method: Any, replacement: Callable[..., Any]) -> Any:
    stock = getattr(method, "__func__", method)

    # For help(), and for readers of the signature.
    @functools.wraps(stock)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        return replacement(stock, *args, **kwargs)

    setattr(hooked, _MARK, True)
    return hooked


# -- walking, and dictionaries of items -----------------------------------------------------


def _get_stac_objects(
    stock: Stock,
    self: pystac.Catalog,
    rel: str | pystac.RelType,
    typ: type[STACObject] | None = None,
    modify_links: LinkOrder | None = None,
) -> Iterator[STACObject]:
    stac_io = reader_of(self)
    if stac_io is None or rel not in (pystac.RelType.ITEM, pystac.RelType.CHILD):
        yield from stock(self, rel, typ, modify_links)
        return
    seen: set[str | None] = set()
    for found in linked_members(self, stac_io, rel, modify_links):
        seen.add(found.id)
        if typ is None or isinstance(found, typ):
            yield found
    more: Iterator[STACObject] = iter(())
    if rel == pystac.RelType.ITEM:
        url = items_endpoint_of(self)
        if url is not None:
            more = listed_items(self, stac_io, url)
    elif not any(link.rel == rel for link in self.links):
        more = listed_collections(self, stac_io)
    for found in more:
        if found.id not in seen and (typ is None or isinstance(found, typ)):
            yield found


def _get_items(
    stock: Stock, self: pystac.Catalog, *ids: str, recursive: bool = False
) -> Iterator[pystac.Item]:
    stac_io = reader_of(self)
    if stac_io is None:
        yield from stock(self, *ids, recursive=recursive)
        return
    if recursive:
        if type(self).get_items is pystac.Catalog.get_items:
            yield from self.get_items(*ids, recursive=False)
        else:
            # A subclass may list its own items differently. pystac calls it without ids.
            own = self.get_items(recursive=False)
            yield from (item for item in own if not ids or item.id in ids)
        for child in self.get_children():
            yield from child.get_items(*ids, recursive=True)
        return
    url = items_endpoint_of(self) if ids else None
    if url is not None and urlsplit(url).path.rstrip("/").endswith("/items"):
        yield from items_by_id(self, stac_io, url, ids)
    else:
        yield from stock(self, *ids)


def _get_child(
    stock: Stock,
    self: pystac.Catalog,
    id: str,  # noqa: A002  # pystac names it
    recursive: bool = False,
    sort_links_by_id: bool = True,
) -> Any:
    stac_io = reader_of(self)
    url = None if stac_io is None or recursive else collections_url_of(self)
    if stac_io is None or url is None or not id or is_local(url):
        return stock(self, id, recursive, sort_links_by_id)
    links = self.get_links(pystac.RelType.CHILD)
    all_known = bool(links) and all(link.is_resolved() for link in links)
    if not all_known and not any(_may_lead_to(link, id) for link in links):
        found = collection_by_id(self, stac_io, url, id)
        if found is not None:
            return found
    return stock(self, id, recursive, sort_links_by_id)


def _may_lead_to(link: Link, child_id: str) -> bool:
    if link.is_resolved():
        return cast("STACObject", link.target).id == child_id
    return child_id in (link.get_href() or "")


def _to_dict(
    stock: Stock, self: pystac.Item, include_self_link: bool = True, transform_hrefs: bool = True
) -> Any:
    root = None if reader_of(self) is None else self.get_root_link()
    if root is not None and not root.is_resolved() and not is_local(str(root.get_href(False))):
        # pystac would read the root, to make hrefs relative to it.
        transform_hrefs = False
    return stock(self, include_self_link, transform_hrefs)


# -- reading --------------------------------------------------------------------------------


def _from_file(stock: Stock, cls: type[STACObject], href: Any, stac_io: Any = None) -> Any:
    reader = pystac.StacIO.default() if stac_io is None else stac_io
    if cls is STACObject or not isinstance(reader, GitLabStacIO):
        return stock(cls, href, stac_io)
    href = _absolute(href)
    document = reader.read_json(href)
    href = getattr(document, "url", href)
    if cls is pystac.Catalog and document.get("type") == pystac.STACObjectType.COLLECTION:
        cls = pystac.Collection
    document = OwnDocument(document)
    with explain_pystac_errors(href, document):
        found = cls.from_dict(document, href=href, migrate=True, preserve_dict=False)
    release_document(found)
    keep_stac_io(found, reader)
    make_own_root(found, href)
    return found


def _items_from_file(
    stock: Stock, cls: type[ItemCollection], href: Any, stac_io: Any = None
) -> Any:
    reader = pystac.StacIO.default() if stac_io is None else stac_io
    if not isinstance(reader, GitLabStacIO):
        return stock(cls, href, stac_io)
    href = _absolute(href)
    document = reader.read_json(href)
    if document.get("type") == "FeatureCollection" and not is_local(href):
        for feature in document["features"]:
            if isinstance(feature, dict):
                check_stac(with_version(feature), url=redact(href), listed=True)
    with explain_pystac_errors(href, document):
        found = cls.from_dict(document, preserve_dict=False)
    for item in found.items:
        keep_stac_io(item, reader)
    return found


def _absolute(href: Any) -> str:
    # The href becomes the self link, so it must not hold a token.
    href = strip_token_parameters(make_posix_style(href))
    try:
        return href if is_absolute_href(href) else make_absolute_href(href)
    except ValueError as error:
        raise ConfigurationError(f"{redact(ascii(href))}: not a URL ({error}).") from None


def _set_default(
    stock: Stock, cls: type[pystac.StacIO], stac_io_class: Callable[[], pystac.StacIO]
) -> None:
    if isinstance(stac_io_class, type) and issubclass(stac_io_class, GitLabStacIO):
        stac_io_class = stac_io_class()
    stock(cls, stac_io_class)


# -- links, and validation ------------------------------------------------------------------


def _resolve_stac_object(stock: Stock, self: Link, root: pystac.Catalog | None = None) -> Any:
    owner = self.owner
    is_own_document = self._target_href == "" and self._target_object is None
    can_be_target = self.rel != pystac.RelType.ROOT or isinstance(owner, pystac.Catalog)
    if owner is not None and is_own_document and can_be_target and reader_of(owner):
        self._target_object = owner
    elif owner is not None and not self.is_resolved() and reader_of(owner):
        self._target_object = known_relative(self, owner)
    try:
        return stock(self, root)
    except pystac.STACError as error:
        if isinstance(error.__cause__, STACGitLabError):
            # IPython calls it, as that of our own errors.
            vars(error)["_render_traceback_"] = functools.partial(folded_traceback, error)
        raise


def _clone_link(stock: Stock, self: Link) -> Any:
    has_target = self._target_href or self._target_object
    if has_target or self.owner is None or reader_of(self.owner) is None:
        return stock(self)
    target = self._target_object if self._target_href is None else self._target_href
    return Link(self.rel, cast("Any", target), self.media_type, self.title)


def _make_absolute_href(stock: Stock, source_href: str, *args: Any, **kwargs: Any) -> str:
    if isinstance(source_href, ExtensionName):
        source_href = source_href.schema
    return cast("str", stock(source_href, *args, **kwargs))


# -- copying and saving ---------------------------------------------------------------------


def _clone(stock: Stock, self: Any) -> Any:
    reader = reader_of(self)
    if reader is None:
        return stock(self)
    # pystac keeps fields of a wrong type when it reads, and fails on them when it copies.
    with explain_pystac_errors(self.get_self_href() or "", {"id": self.id}):
        copy = stock(self)
    keep_stac_io(copy, reader)
    if is_materialized(self):
        mark_materialized(copy)
    return copy


def _full_copy(
    stock: Stock, self: pystac.Catalog, root: pystac.Catalog | None = None, parent: Any = None
) -> Any:
    if root is None and reader_of(self) is not None:
        check_tree(self)
    return stock(self, root, parent)


def _normalize_hrefs(
    stock: Stock,
    self: pystac.Catalog,
    root_href: str,
    strategy: Any = None,
    skip_unresolved: bool = False,
) -> None:
    if reader_of(self) is not None:
        if not skip_unresolved:
            check_tree(self)
        layout = self._get_strategy(strategy)
        strategy = layout if isinstance(layout, APILayoutStrategy) else SafeLayout(layout)
    stock(self, root_href, strategy, skip_unresolved)


def _save(stock: Stock, self: pystac.Catalog, *args: Any, **kwargs: Any) -> None:
    warn_about_unlinked_items(self)
    stock(self, *args, **kwargs)


# -- the table ------------------------------------------------------------------------------

HOOKS = (
    Hook(
        pystac.Catalog,
        "get_stac_objects",
        _get_stac_objects,
        "pystac knows no items link, and no list of collections; a broken link ends a listing",
        "test_stock_pystac_lists_no_items_of_an_api",
    ),
    Hook(
        pystac.Catalog,
        "get_items",
        _get_items,
        "pystac reads all children before the first item, and searches for ids in the whole list",
        "test_stock_pystac_reads_all_children_before_the_first_item",
    ),
    Hook(
        pystac.Catalog,
        "get_child",
        _get_child,
        "pystac reads one child after the other until the id fits",
        "test_stock_pystac_finds_no_child_in_a_list_of_collections",
    ),
    Hook(
        pystac.Item,
        "to_dict",
        _to_dict,
        "pystac reads the root of an item for a dictionary of it",
        "test_stock_pystac_reads_the_root_for_a_dictionary",
    ),
    Hook(
        STACObject,
        "from_file",
        _from_file,
        "pystac drops the reader of an item, and refuses a collection in Catalog.from_file",
        "test_stock_pystac_forgets_the_reader_of_an_item",
    ),
    Hook(
        ItemCollection,
        "from_file",
        _items_from_file,
        "pystac drops the reader of the items",
        "test_stock_pystac_forgets_the_reader_of_an_item_collection",
    ),
    Hook(
        pystac.StacIO,
        "set_default",
        _set_default,
        "pystac makes a reader for each call: new connections, and a token bound anew",
        "test_stock_pystac_makes_a_new_default_reader_each_time",
    ),
    Hook(
        Link,
        "resolve_stac_object",
        _resolve_stac_object,
        "pystac finds no target for an empty href, and reads a parent that is the collection again",
        "test_stock_pystac_finds_no_target_of_an_empty_href",
    ),
    Hook(
        Link,
        "clone",
        _clone_link,
        "pystac keeps a link without a target, and cannot copy it",
        "test_stock_pystac_cannot_copy_a_link_without_a_target",
    ),
    Hook(
        # The validator calls it. To replace a method of the validator, its modules would have to be
        # imported, which takes as long as pystac itself.
        pystac.utils,
        "make_absolute_href",
        _make_absolute_href,
        "pystac takes the name of an extension in a remote document for a path on this machine",
        "test_stock_pystac_reads_a_local_schema_for_a_remote_document",
    ),
    *(
        Hook(
            owner,
            "clone",
            _clone,
            "pystac drops the reader, also in full_copy and map_items",
            "test_stock_pystac_forgets_the_reader_of_a_clone",
        )
        for owner in (pystac.Catalog, pystac.Collection, pystac.Item)
    ),
    Hook(
        pystac.Catalog,
        "full_copy",
        _full_copy,
        "pystac recurses down to the last child, however deep, until Python stops it",
        "test_stock_pystac_copies_a_deep_catalog_until_python_stops_it",
    ),
    Hook(
        pystac.Catalog,
        "normalize_hrefs",
        _normalize_hrefs,
        "pystac makes paths of ids as they are, also of ids that lead out of the folder",
        "test_stock_pystac_makes_paths_of_any_id",
    ),
    Hook(
        pystac.Catalog,
        "save",
        _save,
        "pystac saves a catalog of an API without its items, and says nothing",
        "test_stock_pystac_saves_an_api_without_items",
    ),
)
