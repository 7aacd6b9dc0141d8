"""What a server declares, and which endpoint a filter is sent to.

A conformance class names the resource that it is about: ``…/ogcapi-features#sort`` is the items
endpoint, ``…/item-search#sort`` is ``/search``. Classes are compared whole, because a class of
another resource (``…/collection-search#free-text``) says nothing about items.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import pystac

from stac_gitlab.errors import (
    ConfigurationError,
    NotFoundError,
    NotSTACError,
    UndeclaredExtensionWarning,
)
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import redact

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
EXTENSIONS = frozenset(_PARAMETER_OF_CLASS.values())
"""The parameters that need an extension."""


@dataclass(frozen=True)
class Conformance:
    """The conformance classes of a server.

    Attributes:
        classes: Their URIs, as declared.
    """

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
        """Check that a server which declares languages of CQL2 declares this one.

        Raises:
            ConfigurationError: If it declares the other one only.
        """
        declared = {
            match[1] for uri in self.classes if (match := _CQL2_LANGUAGE.fullmatch(uri)) is not None
        }
        if declared and language not in declared:
            raise ConfigurationError(
                f"filter: the server declares {', '.join(declared)}, but the filter is {language}. "
                "Write the filter in the other language."
            )


def read_landing_page(stac_io: GitLabStacIO, url: str) -> pystac.Catalog:
    """Return the landing page of an API.

    Raises:
        NotSTACError: If there is something else at the URL.
    """
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
        try:
            declared = stac_io.read_json(href or below(root_url, "conformance")).get("conformsTo")
        except NotFoundError:
            declared = None
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
        *,
        root: pystac.Catalog,
        conformance: Conformance,
        ignored: Iterable[str] = (),
    ) -> str | None:
        """Return the URL of ``/search`` if the filters have to go there; None for the items.

        Args:
            parameters: The query parameters.
            root: The landing page.
            conformance: What the server declares.
            ignored: Parameters that the items endpoint ignores although they are declared.

        Raises:
            ConfigurationError: If no endpoint of the server supports them.
        """
        used = EXTENSIONS.intersection(parameters)
        if "filter" in used:
            conformance.check_filter_language(parameters["filter-lang"])
        search = _search_url(root)
        at_items = conformance.parameters_of("ogcapi-features")
        at_search = conformance.parameters_of("item-search")
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
        new = sorted(undeclared - self._warned)
        self._warned.update(new)
        for name in new:
            warnings.warn(
                f"{self._url}: the server does not declare that it understands {name}= here. "
                "The parameter is sent and may be ignored. Check the items that you get.",
                UndeclaredExtensionWarning,
                stacklevel=6,
            )


def _search_url(root: pystac.Catalog) -> str | None:
    for link in root.get_links("search"):
        if str(link.extra_fields.get("method") or "GET").upper() == "GET":
            return link.get_absolute_href()
    return None


def _listed(names: Iterable[str]) -> str:
    return " and ".join(f"{name}=" for name in sorted(names))


def below(url: str, name: str) -> str:
    """Return the URL of a resource below another one."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))
