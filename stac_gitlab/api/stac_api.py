"""STACAPI: what stock pystac does not cover of a STAC API.

These are conformance, items with filters, and transactions. All requests use the reader's session.

Source: STAC API - Features, and the extensions that it names.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import pystac

from stac_gitlab.api import filters
from stac_gitlab.api.item_query import (
    ROUTED,
    Conformance,
    Endpoint,
    FilterRouter,
    ItemQuery,
    below,
    post_search,
    query_parameters,
    read_conformance,
    read_landing_page,
)
from stac_gitlab.api.transactions import (
    BulkReport,
    OnConflict,
    Writer,
    collection_document,
    create_many,
    item_document,
    patch_body,
)
from stac_gitlab.errors import ConfigurationError, ConflictError, NotFoundError
from stac_gitlab.notebook import html_fields, web_link
from stac_gitlab.reading.listing import list_collections, readable_collection_of
from stac_gitlab.reading.objects import (
    ItemRelations,
    collection_of,
    collections_url_of,
    item_of,
    items_url_of,
)
from stac_gitlab.reading.paging import PageRequest
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import redact
from stac_gitlab.settings import expect_text, whole_number

CollectionLike = str | pystac.Collection
ItemLike = pystac.Item | Mapping[str, Any]


class STACAPI:
    """A STAC API - Features server. May be shared between threads.

    Args:
        url: The landing page.
        stac_io: The reader to use; by default a new one, with the token from the environment.

    Raises:
        ConfigurationError: If `stac_io` is not a GitLabStacIO.

    Example:
        >>> from stac_gitlab import STACAPI
        >>> STACAPI("https://stac.example.org").items("sentinel-2", bbox=[5, 46, 8, 47], limit=50)
        <ItemQuery of 'sentinel-2': bbox='5,46,8,47', limit='50'>
    """

    def __init__(self, url: str, *, stac_io: GitLabStacIO | None = None) -> None:
        if stac_io is None:
            stac_io = GitLabStacIO()
        elif not isinstance(stac_io, GitLabStacIO):
            raise ConfigurationError(f"stac_io={stac_io!r}: give a GitLabStacIO.")
        self.url = expect_text("url", url, wanted="the URL of a landing page")
        self.stac_io = stac_io
        self._writer = Writer(stac_io, home=self.url)
        self._router = FilterRouter(self.url)
        self._root: pystac.Catalog | None = None
        self._conformance: Conformance | None = None
        self._collections: dict[str, pystac.Collection] = {}

    def __repr__(self) -> str:
        if "stac_io" not in self.__dict__:
            return "<STACAPI, not initialized>"
        return f"<STACAPI at {redact(self.url)}>"

    def _repr_html_(self) -> str:
        known = None if self._conformance is None else len(self._conformance.classes)
        fields = {
            "landing page": web_link(self.url),
            "conformance classes": known,
            "reader": self.stac_io,
        }
        return html_fields("STACAPI", fields)

    # -- landing page, conformance, collections -----------------------------------------------

    @property
    def root(self) -> pystac.Catalog:
        """The landing page, read once.

        Raises:
            NotSTACError: If there is no catalog at the URL.
            STACGitLabError: If it cannot be read.
        """
        if self._root is None:
            self._root = read_landing_page(self.stac_io, self.url)
        return self._root

    def conformance(self) -> tuple[str, ...]:
        """Return the conformance classes from the landing page, or else from ``/conformance``.

        They are requested once. A server that has neither declares nothing.

        Raises:
            STACGitLabError: If the request fails.
        """
        return self._declared().classes

    def collections(self) -> Iterator[pystac.Collection]:
        """Yield the collections, all pages of them, each once.

        Raises:
            STACGitLabError: If a page cannot be read.
        """
        url = collections_url_of(self.root)
        if url is None and self.root.get_links(pystac.RelType.CHILD):
            yield from self.root.get_collections()
            return
        url = url or self._collections_url()
        for document in list_collections(self.stac_io, url):
            collection = readable_collection_of(self.stac_io, document, url)
            if collection is not None:
                yield self._attached(collection)

    def collection(self, collection_id: str) -> pystac.Collection:
        """Return one collection, as it is now.

        Raises:
            NotFoundError: If it does not exist, or the token gives no access to it.
            STACGitLabError: If it cannot be read.
        """
        url = self._collection_url(collection_id)
        page = self.stac_io.read_page(PageRequest(url))
        self._writer.saw(url, page.etag)
        collection = self._made_collection(dict(page.document), url)
        self._collections[collection_id] = collection
        return collection

    # -- items --------------------------------------------------------------------------------

    def items(
        self,
        collection: CollectionLike,
        *,
        bbox: Any = None,
        datetime: Any = None,
        limit: int | None = None,
        max_items: int | None = None,
        ids: Iterable[str] | str | None = None,
        sortby: Any = None,
        fields: Any = None,
        filter: Any = None,  # noqa: A002  # the name that the specification gives it
        filter_lang: str | None = None,
        query: Any = None,
        q: Any = None,
        **params: Any,
    ) -> ItemQuery:
        """Return the items of a collection that match. Requests are sent on iteration.

        Args:
            collection: A collection, or its id.
            bbox: West, south, east and north in degrees (with heights in metres: 6 numbers), as
                a sequence or a text; or a geometry, whose bounding box is used.
            datetime: An instant or interval: ``datetime`` objects, ``"2024-01"``,
                ``"2024-01/2024-03"``, pairs; None or ``".."`` is an open end.
            limit: Number of items on a page; by default the reader's `page_size`.
            max_items: Maximum number of items; None for all.
            ids: Only the items with these ids. Without other filters each is a request of its own.
            sortby: ``"name"``, ``"-name"`` for descending, several in a list.
            fields: Fields to include, or with ``-`` to leave out. ``to_dicts()`` returns the rest.
            filter: A CQL2 filter, as a text or as JSON.
            filter_lang: ``"cql2-text"`` or ``"cql2-json"``; by default what `filter` looks like.
            query: Comparisons of the Query extension, such as ``{"eo:cloud_cover": {"lt": 10}}``.
            q: A text to search for, or a list of them.
            **params: Other query parameters of this server.

        Raises:
            ConfigurationError: If one of them is not valid.

        A filter that only ``/search`` declares is sent there. A filter that the server does not
        declare at all is sent with an :class:`~stac_gitlab.UndeclaredExtensionWarning`.
        """
        parameters = query_parameters(
            {
                "bbox": bbox,
                "datetime": datetime,
                "limit": limit,
                "sortby": sortby,
                "fields": fields,
                "filter": filter,
                "filter_lang": filter_lang,
                "query": query,
                "q": q,
            },
            others=params,
        )
        if not isinstance(collection, pystac.Collection):
            _id("collection", collection)
        return ItemQuery(
            self.stac_io,
            partial(self._endpoint, collection, parameters),
            parameters,
            collection=collection if isinstance(collection, str) else collection.id,
            ids=None if ids is None else filters.ids_parameter(ids),
            max_items=None if max_items is None else whole_number("max_items", max_items, least=0),
        )

    def item(self, collection: CollectionLike, item_id: str) -> pystac.Item:
        """Return one item. Its ETag, if it has one, is the condition of later changes.

        Raises:
            NotFoundError: If it does not exist, or the token gives no access to it.
            STACGitLabError: If it cannot be read.
        """
        url = self._item_url(collection, item_id)
        page = self.stac_io.read_page(PageRequest(url))
        self._writer.saw(url, page.etag)
        return self._made_item(dict(page.document), url, collection)

    # -- changing items -----------------------------------------------------------------------

    def create_item(self, collection: CollectionLike, item: ItemLike) -> pystac.Item:
        """Add an item, and return it as the server has it.

        The request is sent once. If the response is lost, check whether the item exists.

        Args:
            collection: The collection, or its id.
            item: The item. Its links to the catalog it comes from are left out.

        Raises:
            ConfigurationError: If it is no item, or one of another collection.
            ConflictError: If an item with this id exists.
            InvalidRequestError: If the server rejects it.
            PermissionDeniedError: If the token may only read.
            STACGitLabError: If the request fails in another way.
        """
        document = item_document(item, _id("collection", collection))
        url = self._items_url(collection)
        response = self._writer.send("POST", url, document)
        return self._made_item(response or copy.deepcopy(document), url, collection)

    def update_item(
        self, collection: CollectionLike, item: ItemLike, *, if_match: str | None = None
    ) -> pystac.Item:
        """Replace an existing item, and return it as the server has it.

        Args:
            collection: The collection, or its id.
            item: The new item, complete.
            if_match: Replace it only if this is still its ETag; by default the one from the last
                time when :meth:`item` or another method of this object read or changed it.

        Raises:
            NotFoundError: If it does not exist.
            ConflictError: If it has changed since it was read.
            STACGitLabError: As for :meth:`create_item`.
        """
        document = item_document(item, _id("collection", collection))
        url = self._item_url(collection, document["id"])
        response = self._writer.send("PUT", url, document, if_match=if_match)
        return self._made_item(response or copy.deepcopy(document), url, collection)

    def upsert(self, collection: CollectionLike, item: ItemLike) -> pystac.Item:
        """Replace an item if it exists, and add it otherwise.

        Raises:
            STACGitLabError: As for :meth:`update_item` and :meth:`create_item`.
        """
        document = item_document(item, _id("collection", collection))
        try:
            return self.update_item(collection, document)
        except NotFoundError:
            pass
        try:
            return self.create_item(collection, document)
        except ConflictError:
            # Another client has just added it.
            return self.update_item(collection, document)

    def patch_item(
        self,
        collection: CollectionLike,
        item_id: str,
        patch: Mapping[str, Any] | list[Mapping[str, Any]],
        *,
        if_match: str | None = None,
    ) -> pystac.Item:
        """Change parts of an item, and return it as the server has it.

        The request is sent once, as in :meth:`create_item`.

        Args:
            collection: The collection, or its id.
            item_id: The item's id.
            patch: A JSON merge patch, in which None removes a field; or a list of JSON Patch
                operations.
            if_match: As in :meth:`update_item`.

        Raises:
            NotFoundError: If there is no such item.
            STACGitLabError: As for :meth:`update_item`.
        """
        url = self._item_url(collection, item_id)
        body, media_type = patch_body(patch)
        response = self._writer.send("PATCH", url, body, media_type=media_type, if_match=if_match)
        if response is None:
            return self.item(collection, item_id)
        return self._made_item(response, url, collection)

    def delete_item(
        self, collection: CollectionLike, item_id: str, *, if_match: str | None = None
    ) -> None:
        """Delete an item.

        Raises:
            NotFoundError: If it does not exist.
            STACGitLabError: As for :meth:`update_item`.
        """
        self._writer.send("DELETE", self._item_url(collection, item_id), if_match=if_match)

    def create_items(
        self,
        collection: CollectionLike,
        items: Iterable[ItemLike],
        *,
        on_conflict: OnConflict = "error",
        max_workers: int = 4,
    ) -> BulkReport:
        """Add many items, one request each, and return a report.

        A failure does not stop the others. Check ``report.ok``.

        Args:
            collection: The collection, or its id.
            items: The items. They are taken from the iterable as they are needed.
            on_conflict: What to do with an item that exists: ``"error"`` reports it as failed,
                ``"skip"`` keeps the old one, ``"update"`` replaces it.
            max_workers: Maximum number of concurrent requests.

        Raises:
            ConfigurationError: If an argument makes no sense.
            AuthenticationError: If the server does not accept the token.
            PermissionDeniedError: If the token may only read.
        """
        url = self._items_url(collection)

        def update(document: dict[str, Any]) -> None:
            self._writer.send("PUT", self._item_url(collection, document["id"]), document)

        return create_many(
            items,
            _id("collection", collection),
            lambda document: self._writer.send("POST", url, document),
            update,
            on_conflict=on_conflict,
            max_workers=max_workers,
        )

    # -- changing collections -----------------------------------------------------------------

    def create_collection(
        self, collection: pystac.Collection | Mapping[str, Any]
    ) -> pystac.Collection:
        """Add a collection, and return it as the server has it.

        Raises:
            ConfigurationError: If it is no collection.
            STACGitLabError: As for :meth:`create_item`.
        """
        document = collection_document(collection)
        url = self._collections_url()
        return self._made_collection(self._writer.send("POST", url, document) or document, url)

    def update_collection(
        self, collection: pystac.Collection | Mapping[str, Any], *, if_match: str | None = None
    ) -> pystac.Collection:
        """Replace the description of a collection; its items stay.

        Raises:
            ConfigurationError: If it is no collection.
            STACGitLabError: As for :meth:`update_item`.
        """
        document = collection_document(collection)
        url = self._collection_url(document["id"])
        response = self._writer.send("PUT", url, document, if_match=if_match)
        return self._made_collection(response or document, url)

    def patch_collection(
        self,
        collection_id: str,
        patch: Mapping[str, Any] | list[Mapping[str, Any]],
        *,
        if_match: str | None = None,
    ) -> pystac.Collection:
        """Change parts of the description of a collection.

        Raises:
            STACGitLabError: As for :meth:`patch_item`.
        """
        url = self._collection_url(collection_id)
        body, media_type = patch_body(patch)
        response = self._writer.send("PATCH", url, body, media_type=media_type, if_match=if_match)
        if response is None:
            return self.collection(collection_id)
        return self._made_collection(response, url)

    def delete_collection(self, collection_id: str, *, if_match: str | None = None) -> None:
        """Delete a collection. Most servers delete its items, too.

        Raises:
            STACGitLabError: As for :meth:`delete_item`.
        """
        self._writer.send("DELETE", self._collection_url(collection_id), if_match=if_match)
        self._collections.pop(collection_id, None)

    # -- URLs and objects ------------------------------------------------------------------

    def _collections_url(self) -> str:
        return collections_url_of(self.root) or below(self.url, "collections")

    def _collection_url(self, collection_id: str) -> str:
        url = self._collections_url()
        return self.stac_io.session.dialect_of(url).item_url(url, _id("collection", collection_id))

    def _items_url(self, collection: CollectionLike) -> str:
        """Return the items endpoint: the link of a known collection, or the usual URL."""
        own = None if (known := self._known(collection)) is None else items_url_of(known)
        return own or below(self._collection_url(_id("collection", collection)), "items")

    def _item_url(self, collection: CollectionLike, item_id: str) -> str:
        url = self._items_url(collection)
        return self.stac_io.session.dialect_of(url).item_url(url, _id("item", item_id))

    def _known(self, collection: CollectionLike) -> pystac.Collection | None:
        if isinstance(collection, pystac.Collection):
            return collection
        return self._collections.get(_id("collection", collection))

    def _declared(self) -> Conformance:
        if self._conformance is None:
            self._conformance = read_conformance(self.stac_io, self.root, self.url)
        return self._conformance

    def _endpoint(self, collection: CollectionLike, parameters: Mapping[str, str]) -> Endpoint:
        """Return where the items are listed: where the collection says, or ``/search``."""
        if not isinstance(collection, pystac.Collection):
            collection = self._collections.get(collection) or self.collection(collection)
        url = items_url_of(collection) or self._items_url(collection)
        dialect = self.stac_io.session.dialect_of(url)
        parameters = dialect.query_parameters(parameters)
        by_post = partial(self._search_by_post, collection.id)
        if ROUTED.isdisjoint(parameters):
            return Endpoint(url, collection, parameters, by_post)
        ignored = dialect.ignored_by_items
        search = self._router.search_url(parameters, self.root, self._declared(), ignored)
        if search is not None:
            parameters = {**parameters, "collections": collection.id}
        return Endpoint(url, collection, parameters, by_post, search)

    def _search_by_post(self, collection_id: str, url: str) -> PageRequest | None:
        return post_search(url, collection_id, self.url, self.root, self._declared())

    def _made_collection(self, document: dict[str, Any], url: str) -> pystac.Collection:
        return self._attached(collection_of(document, self.stac_io, url))

    def _attached(self, collection: pystac.Collection) -> pystac.Collection:
        # The document has just been read, so an older object that the root knows is not used.
        collection.set_root(self.root)
        collection.set_parent(self.root)
        self._collections.pop(collection.id, None)
        return collection

    def _made_item(self, document: Any, url: str, collection: CollectionLike) -> pystac.Item:
        known = self._known(collection)
        item = item_of(document, self.stac_io, url)
        return item if known is None else ItemRelations(known).attach(item)


def _id(kind: str, value: Any) -> str:
    found = value.id if isinstance(value, pystac.Collection) else value
    if not isinstance(found, str) or not found or found in (".", ".."):
        raise ConfigurationError(f"{kind}: {value!r} is no id.")
    return found
