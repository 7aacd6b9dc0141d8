"""Items with filters: which endpoint supports the filters, and the pages that it returns."""

from __future__ import annotations

import contextlib
import itertools
import re
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import pystac

from stac_gitlab.api import filters
from stac_gitlab.auth import Origin
from stac_gitlab.errors import (
    ConfigurationError,
    InvalidResponseError,
    NotFoundError,
    NotSTACError,
    UndeclaredExtensionWarning,
)
from stac_gitlab.notebook import html_fields
from stac_gitlab.reading.listing import (
    is_readable,
    item_pages,
    read_each_item,
    readable_item_of,
)
from stac_gitlab.reading.objects import ItemRelations, check_feature, item_of
from stac_gitlab.reading.paging import PageRequest, Pages, number_matched, with_parameters
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import redact
from stac_gitlab.settings import whole_number

_STAC_CLASS = re.compile(
    r"https://api\.stacspec\.org/v1\.\d+\.\d+[^/]*/(?P<resource>ogcapi-features|item-search)"
    r"(?:/extensions/|#)(?P<name>[a-z-]+)(?::[a-z0-9-]+)?"
)
_OGC_FILTER = "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/filter"
_OGC_FEATURES_FILTER = "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/features-filter"
_CQL2_LANGUAGE = re.compile(r"http://www\.opengis\.net/spec/cql2/1\.0/conf/(cql2-text|cql2-json)")
_PARAMETER_OF_CLASS = {
    "fields": "fields",
    "sort": "sortby",
    "filter": "filter",
    "features-filter": "filter",
    "item-search-filter": "filter",
    "query": "query",
    "free-text": "q",
    "advanced-free-text": "q",
}
ROUTED = frozenset({"intersects", *_PARAMETER_OF_CLASS.values()})
"""The parameters that need an extension, or a search."""


@dataclass(frozen=True)
class Conformance:
    """The conformance classes that a server declares, as URIs."""

    classes: tuple[str, ...] = ()

    def parameters_of(self, resource: str) -> set[str]:
        """Return the parameters of extensions that ``ogcapi-features`` or ``item-search`` knows."""
        found = set()
        for uri in self.classes:
            match = _STAC_CLASS.fullmatch(uri)
            if match is not None and match["resource"] == resource:
                found.add(_PARAMETER_OF_CLASS.get(match["name"]))
            elif uri == _OGC_FILTER or (
                uri == _OGC_FEATURES_FILTER and resource == "ogcapi-features"
            ):
                found.add("filter")
        return {name for name in found if name is not None}

    def check_filter_language(self, language: str) -> None:
        """Raise ConfigurationError if a server declares only the other language of CQL2."""
        declared = {
            match[1] for uri in self.classes if (match := _CQL2_LANGUAGE.fullmatch(uri)) is not None
        }
        if declared and language not in declared:
            raise ConfigurationError(
                f"filter: the server declares {', '.join(declared)}, but the filter is {language}. "
                "Write the filter in the other language."
            )


def read_landing_page(stac_io: GitLabStacIO, url: str) -> pystac.Catalog:
    """Return the landing page of an API, or raise NotSTACError if there is something else."""
    root = stac_io.read_stac_object(url)
    if not isinstance(root, pystac.Catalog) or isinstance(root, pystac.Collection):
        redacted = redact(url)
        raise NotSTACError(
            f"{redacted}: a {type(root).__name__}, where the landing page of an API was expected. "
            "Give the URL of the API itself.",
            url=redacted,
        )
    return root


def read_conformance(stac_io: GitLabStacIO, root: pystac.Catalog, root_url: str) -> Conformance:
    """Return the classes on a landing page, or else those of its ``/conformance``."""
    declared = root.extra_fields.get("conformsTo")
    if not declared:
        link = root.get_single_link("conformance")
        href = None if link is None else link.get_absolute_href()
        with contextlib.suppress(NotFoundError):
            declared = stac_io.read_json(href or below(root_url, "conformance")).get("conformsTo")
    listed = declared if isinstance(declared, list) else []
    return Conformance(tuple(uri for uri in listed if isinstance(uri, str)))


class FilterRouter:
    """Decides where filtered items are requested. Warns once about each undeclared parameter."""

    def __init__(self, url: str) -> None:
        self._url = redact(url)
        self._warned: set[str] = set()

    def search_url(
        self,
        parameters: Mapping[str, str],
        root: pystac.Catalog,
        conformance: Conformance,
        ignored: Iterable[str],
    ) -> str | None:
        """Return the URL of ``/search`` if the filters have to go there; None for the items.

        Args:
            parameters: The query parameters.
            root: The landing page.
            conformance: The conformance classes of the server.
            ignored: Parameters that the items endpoint ignores although they are declared.

        Raises:
            ConfigurationError: If no endpoint of the server supports them.
        """
        used = ROUTED.intersection(parameters)
        if "filter" in used:
            conformance.check_filter_language(parameters["filter-lang"])
        search = _search_url(root)
        at_items = conformance.parameters_of("ogcapi-features")
        at_search = {"intersects", *conformance.parameters_of("item-search")}
        ignored = used.intersection(ignored)
        if used - at_items | ignored and search is not None and used <= at_search:
            return search
        if ignored:
            raise ConfigurationError(
                f"{self._url}: the items endpoint of this server ignores {_listed(ignored)}, and "
                f"/search does not support {_listed(used - at_search or used)}. Leave it out."
            )
        self._warn_about(used - at_items - (at_search if search is None else set()))
        return None

    def _warn_about(self, undeclared: AbstractSet[str]) -> None:
        for name in sorted(undeclared - self._warned):
            self._warned.add(name)
            warnings.warn(
                f"{self._url}: the server does not declare that it understands {name}= here. "
                "The parameter is sent and may be ignored. Check the items that you get.",
                UndeclaredExtensionWarning,
                stacklevel=6,
            )


def post_search(
    url: str, collection_id: str, root_url: str, root: pystac.Catalog, conformance: Conformance
) -> PageRequest | None:
    """Return the search with POST that lists the same items as a URL, if the server has it."""
    parameters = dict(parse_qsl(urlsplit(url).query))
    search, own = _search_url(root, method="POST"), Origin.of(root_url)
    known = {"intersects", *conformance.parameters_of("item-search")}
    if search is None or Origin.of(search) != own or not known >= ROUTED & parameters.keys():
        return None
    body = filters.search_body({**parameters, "collections": collection_id})
    return PageRequest(search, "POST", body=body, write_origin=own)


def _search_url(root: pystac.Catalog, *, method: str = "GET") -> str | None:
    for link in root.get_links("search"):
        if str(link.extra_fields.get("method") or "GET").upper() == method:
            return link.get_absolute_href()
    return None


def _listed(names: Iterable[str]) -> str:
    return " and ".join(f"{name}=" for name in sorted(names))


def below(url: str, name: str) -> str:
    """Return the URL of a resource below another one."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


Features = Generator[dict[str, Any], None, None]


@dataclass(frozen=True)
class Endpoint:
    """Where the items of a collection are listed.

    Attributes:
        url: The items endpoint.
        collection: The collection that its items belong to.
        parameters: The query parameters.
        by_post: Returns the search to send instead of a URL that the server fails on, if any.
        search: The URL of ``/search`` if the items have to be requested there.
    """

    url: str
    collection: pystac.Collection
    parameters: Mapping[str, str]
    by_post: Callable[[str], PageRequest | None]
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
        collection: The id of the collection.
    """

    def __init__(
        self,
        stac_io: GitLabStacIO,
        endpoint: Callable[[], Endpoint],
        parameters: Mapping[str, str],
        *,
        collection: str,
        ids: tuple[str, ...] | None = None,
        max_items: int | None = None,
    ) -> None:
        self.parameters = dict(parameters)
        self.collection = collection
        self._io = stac_io
        self._endpoint = endpoint
        self._ids = ids
        self._max_items = max_items
        self._is_stripped = "fields" in parameters

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}={value!r}" for name, value in self._choices().items())
        return redact(f"<ItemQuery of {self.collection!r}: {pairs or 'all items'}>")

    def _repr_html_(self) -> str:
        fields = {"collection": self.collection, **self._choices()}
        fields.setdefault("limit", f"{self._io.page_size} on a page")
        fields.setdefault("max_items", "all")
        return html_fields("ItemQuery", fields)

    def _choices(self) -> dict[str, object]:
        """Return the filters and limits that were chosen."""
        ids = {} if self._ids is None else {"ids": ",".join(self._ids)}
        most = {} if self._max_items is None else {"max_items": self._max_items}
        return {**ids, **self.parameters, **most}

    def __iter__(self) -> Iterator[pystac.Item]:
        """Yield the items, page by page.

        Raises:
            InvalidResponseError: If `fields` left out what pystac cannot do without.
            STACGitLabError: If a page cannot be read.
        """
        endpoint = self._endpoint()
        attach = self._attacher(endpoint)
        with contextlib.closing(self._features(endpoint)) as features:
            yield from filter(None, map(attach, features))

    def to_dicts(self) -> Iterator[dict[str, Any]]:
        """Yield the items as dictionaries, as the server sent them.

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
            if found:
                yield pystac.ItemCollection(found, clone_items=False)
            return
        left = self._max_items
        with contextlib.closing(self._pages(endpoint)) as pages:
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

    def _pages(self, endpoint: Endpoint) -> Pages:
        # The dialect knows whether a POST is of any use.
        is_by_get = self._io.session.dialect_of(endpoint.url).searches_by_get
        has_filters = bool(endpoint.parameters.keys() - {"limit"})
        by_post = endpoint.by_post if has_filters and not is_by_get else None
        return item_pages(self._io, self._url(endpoint), by_post=by_post)

    def _is_readable(self, feature: Any, url: str) -> bool:
        check = _check_stripped if self._is_stripped else check_feature
        return is_readable(self._io, feature, url, check=check)

    def _features(self, endpoint: Endpoint) -> Features:
        if self._max_items == 0:
            return
        ids = self._ids
        listed = self._listed(endpoint) if ids is None else self._with_ids(endpoint, ids)
        with contextlib.closing(listed):
            yield from itertools.islice(listed, self._max_items)

    def _listed(self, endpoint: Endpoint) -> Features:
        pages = self._pages(endpoint)
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
        for item_id, response in read_each_item(self._io, endpoint.url, ids):
            if response is not None and dialect.is_same_id(item_id, str(response[1].get("id"))):
                yield response[1]

    def _attacher(self, endpoint: Endpoint) -> Callable[[dict[str, Any]], pystac.Item | None]:
        relations = ItemRelations(endpoint.collection)

        def attach(feature: dict[str, Any]) -> pystac.Item | None:
            if self._is_stripped:
                # The caller asked for fewer fields, so an error is raised, and nothing is left out.
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
    """Return an item with default values for what `fields` left out."""
    properties = feature.get("properties") or {}
    lacking = ["id"] if feature.get("id") is None else []
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
    usual = {"type": "Feature", "geometry": None, "collection": endpoint.collection.id}
    containers = {"links": feature.get("links") or [], "assets": feature.get("assets") or {}}
    return {**usual, **feature, **containers, "properties": properties}
