"""Items with filters, requested on iteration.

:class:`ItemQuery` is what ``STACAPI.items`` returns.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pystac

from stac_gitlab.api import filters
from stac_gitlab.errors import ConfigurationError, InvalidResponseError
from stac_gitlab.reading.listing import is_readable, item_pages, read_item, readable_item_of
from stac_gitlab.reading.objects import ItemRelations, check_feature, item_of
from stac_gitlab.reading.paging import PageRequest, number_matched, with_parameters
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.settings import whole_number

Features = Generator[dict[str, Any], None, None]


@dataclass(frozen=True)
class Endpoint:
    """Where the items of a collection are listed.

    Attributes:
        url: The items endpoint.
        collection: The collection that its items belong to.
        parameters: The query parameters.
        search: The URL of ``/search`` if the items have to be requested there.
    """

    url: str
    collection: pystac.Collection
    parameters: Mapping[str, str]
    search: str | None = None


_FORMERS: Mapping[str, Callable[[Any], str]] = {
    "bbox": filters.bbox_parameter,
    "datetime": filters.datetime_parameter,
    "sortby": filters.sortby_parameter,
    "fields": filters.fields_parameter,
    "query": filters.query_parameter,
    "q": filters.free_text_parameter,
}


def query_parameters(named: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, str]:
    """Return the query parameters of an items endpoint.

    Args:
        named: The filters that ``STACAPI.items`` names; None for those that are not used.
        others: Parameters that only the server knows.

    Raises:
        ConfigurationError: If a value is not valid.
    """
    parameters = {
        name: form(named[name]) for name, form in _FORMERS.items() if named[name] is not None
    }
    if named["filter"] is not None or named["filter_lang"] is not None:
        parameters |= filters.filter_parameters(named["filter"], named["filter_lang"])
    if named["limit"] is not None:
        parameters["limit"] = str(whole_number("limit", named["limit"], least=1))
    for name, value in others.items():
        if name in ("intersects", "collections"):
            raise ConfigurationError(
                f"{name}: an items endpoint takes a bbox of one collection. Pass a geometry as "
                "bbox=, or search with stac_gitlab.search."
            )
        if value is not None:
            parameters[name.replace("filter_crs", "filter-crs")] = filters.other_parameter(
                name, value
            )
    return parameters


class ItemQuery:
    """The items of a collection that match some filters. Requests are sent on iteration.

    Each iteration sends the requests again.

    Attributes:
        parameters: The query parameters that are sent, by name.
    """

    def __init__(
        self,
        stac_io: GitLabStacIO,
        endpoint: Callable[[], Endpoint],
        parameters: Mapping[str, str],
        *,
        ids: tuple[str, ...] | None = None,
        max_items: int | None = None,
    ) -> None:
        self.parameters = dict(parameters)
        self._io = stac_io
        self._endpoint = endpoint
        self._ids = ids
        self._max_items = max_items

    def __repr__(self) -> str:
        ids = {"ids": ",".join(self._ids)} if self._ids else {}
        pairs = ", ".join(f"{n}={v!r}" for n, v in {**ids, **self.parameters}.items())
        return f"<ItemQuery {pairs or 'of all items'}>"

    def __iter__(self) -> Iterator[pystac.Item]:
        """Yield the items, page by page.

        Raises:
            InvalidResponseError: If `fields` left out what pystac cannot do without.
            STACGitLabError: If a page cannot be read.
        """
        endpoint = self._endpoint()
        attach = self._attacher(endpoint)
        with contextlib.closing(self._features(endpoint)) as features:
            for feature in features:
                item = attach(feature)
                if item is not None:
                    yield item

    def to_dicts(self) -> Iterator[dict[str, Any]]:
        """Yield the items as dictionaries, as the server sent them: without making objects of them.

        Raises:
            STACGitLabError: If a page cannot be read.
        """
        with contextlib.closing(self._features(self._endpoint())) as features:
            yield from features

    def pages(self) -> Iterator[pystac.ItemCollection]:
        """Yield the items a page at a time, as the server cuts them; empty pages are left out.

        Raises:
            STACGitLabError: If a page cannot be read.
        """
        endpoint = self._endpoint()
        attach = self._attacher(endpoint)
        if self._ids is not None:
            found = list(filter(None, map(attach, self._features(endpoint))))
            yield from [pystac.ItemCollection(found, clone_items=False)] if found else []
            return
        left = self._max_items
        with contextlib.closing(item_pages(self._io, self._url(endpoint))) as pages:
            for page in pages if left != 0 else ():
                features = [
                    feature
                    for feature in page.features()
                    if self._is_readable(feature, page.redacted_url)
                ][:left]
                if left is not None:
                    left -= len(features)
                if left != 0:
                    pages.read_ahead()
                items = list(filter(None, map(attach, features)))
                if items:
                    yield pystac.ItemCollection(items, clone_items=False)
                if left == 0:
                    return

    def item_collection(self) -> pystac.ItemCollection:
        """Return all of the items at once.

        Raises:
            STACGitLabError: If a page cannot be read.
        """
        return pystac.ItemCollection(list(self), clone_items=False)

    def matched(self) -> int | None:
        """Return the total number of matching items, or None if the server does not count.

        The number ignores `max_items`, and a server may have estimated it. It costs a request for
        one item; with `ids`, a request for each.

        Raises:
            STACGitLabError: If the server cannot be asked.
        """
        endpoint = self._endpoint()
        if self._ids is not None:
            return sum(1 for _ in self._with_ids(endpoint, self._ids))
        url = with_parameters(self._url(endpoint), {"limit": "1"})
        return number_matched(self._io.read_page(PageRequest(url)).document)

    # -- requests --------------------------------------------------------------------------

    def _url(self, endpoint: Endpoint) -> str:
        parameters = dict(endpoint.parameters)
        if self._max_items is not None and "limit" not in parameters:
            parameters["limit"] = str(max(1, min(self._max_items, self._io.page_size)))
        return with_parameters(endpoint.search or endpoint.url, parameters)

    @property
    def _stripped(self) -> bool:
        return "fields" in self.parameters

    def _is_readable(self, feature: Any, url: str) -> bool:
        check = _check_stripped if self._stripped else check_feature
        return is_readable(self._io, feature, url, check=check)

    def _features(self, endpoint: Endpoint) -> Features:
        if self._max_items == 0:
            return
        listed = (
            self._listed(endpoint) if self._ids is None else self._with_ids(endpoint, self._ids)
        )
        with contextlib.closing(listed):
            yield from itertools.islice(listed, self._max_items)

    def _listed(self, endpoint: Endpoint) -> Features:
        pages = item_pages(self._io, self._url(endpoint))
        yield from pages.listed(self._is_readable, limit=self._max_items)

    def _with_ids(self, endpoint: Endpoint, ids: tuple[str, ...]) -> Features:
        if set(self.parameters) - {"limit"}:
            # The specification has no filter by id here, and servers ignore unknown filters. The
            # server applies the other filters, and this loop the ids.
            missing = set(ids)
            with contextlib.closing(self._listed(endpoint)) as listed:
                for feature in listed:
                    if feature["id"] in missing:
                        missing.discard(feature["id"])
                        yield feature
                    if not missing:
                        return
            return
        dialect = self._io.session.dialect_of(endpoint.url)
        for item_id in ids:
            response = read_item(self._io, endpoint.url, item_id)
            if response is not None and dialect.is_same_id(item_id, str(response[1].get("id"))):
                yield response[1]

    def _attacher(self, endpoint: Endpoint) -> Callable[[dict[str, Any]], pystac.Item | None]:
        relations = ItemRelations(endpoint.collection)

        def attach(feature: dict[str, Any]) -> pystac.Item | None:
            if self._stripped:
                # The caller asked for this, so it is not a broken item that is left out.
                return relations.attach(
                    item_of(_completed(feature, endpoint), self._io, endpoint.url)
                )
            item = readable_item_of(self._io, feature, endpoint.url)
            return None if item is None else relations.attach(item)

        return attach


def _check_stripped(feature: Any, *, url: str) -> None:
    """Check an item from which `fields` has removed most members."""
    if not isinstance(feature, dict):
        raise InvalidResponseError(f"{url}: the page lists something that is no object.", url=url)
    for name, kind in (("properties", dict), ("links", list), ("assets", dict)):
        if not isinstance(feature.get(name, kind()), kind):
            raise InvalidResponseError(f"{url}: {name} is of the wrong type.", url=url)


def _completed(feature: dict[str, Any], endpoint: Endpoint) -> dict[str, Any]:
    """Return an item with default values for what `fields` left out.

    Raises:
        InvalidResponseError: If a required member has no default.
    """
    properties = feature.get("properties") or {}
    lacking = []
    if feature.get("id") is None:
        lacking.append("id")
    ends = properties.get("start_datetime"), properties.get("end_datetime")
    if properties.get("datetime") is None and None in ends:
        lacking.append("properties.datetime")
    if lacking:
        raise InvalidResponseError(
            f"{endpoint.url}: fields= left out {' and '.join(lacking)}, without which there is no "
            f"pystac.Item. Add {'it' if len(lacking) == 1 else 'them'} to fields, or take "
            ".to_dicts().",
            url=endpoint.url,
        )
    usual = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "geometry": None,
        "collection": endpoint.collection.id,
    }
    containers = {"links": feature.get("links") or [], "assets": feature.get("assets") or {}}
    return {**usual, **feature, **containers, "properties": properties}
