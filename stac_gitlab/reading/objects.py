"""pystac objects from checked documents, and the relations between them.

Items are made in half the time of ``Item.from_dict``, with the same result. pystac copies a
document several times, so as not to change its caller's. A document that was just read has no other
user, so its parts become parts of the item. pystac still identifies and migrates it.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime, tzinfo
from functools import cache, lru_cache
from typing import Any, cast

import pystac
from pystac.link import Link
from pystac.serialization import identify_stac_object, migrate_to_latest
from pystac.serialization.identify import STACJSONDescription
from pystac.utils import str_to_datetime
from pystac.version import STACVersion

from stac_gitlab.errors import InvalidResponseError, NotSTACError, STACGitLabError
from stac_gitlab.files.paths import is_local
from stac_gitlab.reading.documents import check_stac, is_id, with_version
from stac_gitlab.reading.untrusted_links import ExtensionName
from stac_gitlab.redaction import redact, redacting_logger, strip_token_parameters

logger = redacting_logger(__name__)
# Fields that are arguments of Item, or that pystac writes itself. All others are extra fields.
_FIELDS = frozenset(
    {
        *("type", "stac_version", "stac_extensions", "id", "collection"),
        *("geometry", "bbox", "properties", "links", "assets"),
    }
)
_TEXT = frozenset({str, ExtensionName})
# pystac-core 1.15.0 detects deprecated items in another way. There, pystac makes all items.
_HAS_DEPRECATION_MESSAGE = hasattr(pystac.EXTENSION_HOOKS, "get_deprecation_message")
# URLs that pystac does not change when it parses and joins them.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.:-]+(?:/[A-Za-z0-9._~/@%+,=:-]*)?")
# Times that datetime.fromisoformat reads like pystac, except for the time zone object.
_USUAL_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{3}(?:\d{3})?)?Z", re.ASCII
)


@cache
def _utc() -> tzinfo | None:
    """Return the time zone that pystac gives to times. It imports dateutil for that."""
    return str_to_datetime("2000-01-01T00:00:00Z").tzinfo


class RemoteDocument(dict[str, Any]):
    """A document that was read over the network, with the URL that it came from.

    Attributes:
        url: The URL after redirects.
    """

    __slots__ = ("url",)

    def __init__(self, document: Mapping[str, Any], *, url: str) -> None:
        super().__init__(document)
        self.url = url

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class OwnDocument(dict[str, Any]):
    """A document that nobody else holds, so that pystac may migrate it without a copy."""

    def __deepcopy__(self, memo: dict[int, Any]) -> OwnDocument:
        # pystac iterates over this list while it changes it.
        if isinstance(self.get("stac_extensions"), list):
            self["stac_extensions"] = self["stac_extensions"].copy()
        return self


def release_document(found: pystac.STACObject) -> None:
    """Give an object ordinary extra fields, because an `OwnDocument` is not copied with a clone."""
    if isinstance(found, (pystac.Catalog, pystac.Item)):
        found.extra_fields = {**found.extra_fields}


def item_from(document: dict[str, Any]) -> pystac.Item:
    """Return the item that a document describes. The document is changed. Errors are pystac's."""
    if not _is_usual(document):
        return pystac.Item.from_dict(document)
    document = _migrated(document)
    properties = document.get("properties", {})
    time = properties.get("datetime")
    item = pystac.Item(
        id=document.get("id"),  # type: ignore[arg-type]  # as pystac has it
        geometry=document.get("geometry"),
        bbox=document.get("bbox"),
        datetime=None if time is None else _usual_time(time) or str_to_datetime(time),
        properties=properties,
        stac_extensions=document.get("stac_extensions"),
        collection=document.get("collection"),
        extra_fields={k: v for k, v in document.items() if k not in _FIELDS},
    )
    item.assets = {k: _asset_from(a, item) for k, a in document.get("assets", {}).items()}
    item.links = [_link_from(link, item) for link in document.get("links", [])]
    message = pystac.EXTENSION_HOOKS.get_deprecation_message(item)
    if message is not None:
        warnings.warn(message, pystac.DeprecatedWarning, stacklevel=2)
    return item


def saved_item(document: dict[str, Any], stac_io: pystac.StacIO, url: str) -> dict[str, Any]:
    """Return the document of an item as pystac saves it, of the latest STAC version.

    Nearly all documents need no pystac object for that. This takes a tenth of the time. The
    document has to be checked, and is used up.

    Raises:
        InvalidResponseError: If pystac cannot make an item of it.
    """
    properties, links = document.get("properties"), document.get("links")
    time = properties.get("datetime") if type(properties) is dict else 0
    is_usual = (
        _is_usual(document)
        and type(document.get("id")) is str
        and type(document.get("stac_extensions")) is list
        and type(links) is list
        and all(type(link.get("rel")) is str and link.get("href") for link in links)
        and type(document.get("assets")) is dict
        and "geometry" in document
        and (time is None or _usual_time(time) is not None)
    )
    if not is_usual:
        item = item_of(document, stac_io, url)
        with explain_pystac_errors(url, document):
            return item.to_dict(include_self_link=False, transform_hrefs=False)
    with explain_pystac_errors(url, document):
        saved = _migrated(document)
    saved["stac_version"] = pystac.get_stac_version()
    saved["properties"].setdefault("datetime", None)
    return saved


def _usual_time(text: Any) -> datetime | None:
    """Return a time in the usual notation six times as fast as pystac; None for other notations."""
    if type(text) is str and _USUAL_TIME.fullmatch(text):
        # A day that does not exist is left to pystac, which raises the error.
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(text[:-1]).replace(tzinfo=_utc())
    return None


def _is_usual(document: dict[str, Any]) -> bool:
    """Return whether a document is an item that pystac can migrate without making an object."""
    extensions = document.get("stac_extensions") or []
    return (
        _HAS_DEPRECATION_MESSAGE
        and document.get("type") == "Feature"
        and type(document.get("stac_version")) is str
        and type(extensions) is list
        and _TEXT.issuperset(map(type, extensions))
    )


def _migrated(document: dict[str, Any]) -> dict[str, Any]:
    version, extensions = document["stac_version"], document.get("stac_extensions") or []
    described = _described(version, tuple(extensions))
    if version != STACVersion.DEFAULT_STAC_VERSION or not all(":" in name for name in extensions):
        return migrate_to_latest(OwnDocument(document), described)
    # In a document of the latest version, only the URLs of extensions can be out of date.
    document["stac_extensions"] = extensions
    version_id = described.version_range.latest_valid_version()
    pystac.EXTENSION_HOOKS.migrate(document, version_id, described)
    return document


@lru_cache
def _described(version: str, extensions: tuple[str, ...]) -> STACJSONDescription:
    """Return how pystac identifies an item. Items on a page are mostly alike."""
    return identify_stac_object(
        {"type": "Feature", "stac_version": version, "stac_extensions": list(extensions)}
    )


def _asset_from(document: dict[str, Any], item: pystac.Item) -> pystac.Asset:
    asset = pystac.Asset(
        document.pop("href"),
        document.pop("title", None),
        document.pop("description", None),
        document.pop("type", None),
        document.pop("roles", None),
        document if any(document) else None,
    )
    asset.owner = item
    return asset


def _link_from(document: dict[str, Any], item: pystac.Item) -> Link:
    rel, href = document.pop("rel"), document.pop("href")
    # pystac makes the href of a self link absolute, which takes longer than all of the rest.
    is_plain = rel == "self" and type(href) is str and _PLAIN_URL.fullmatch(href)
    link = Link(
        "" if is_plain else rel,
        href,
        document.pop("type", None),
        document.pop("title", None),
        document if any(document) else None,
    )
    link.rel = rel
    link.owner = item
    return link


@contextlib.contextmanager
def explain_pystac_errors(href: str, document: Mapping[str, Any]) -> Iterator[None]:
    """Raise a STACGitLabError for any exception that pystac raises about a remote document."""
    try:
        yield
    except STACGitLabError:
        raise
    except Exception as error:
        # Migrations and extensions may raise any exception, even a bare Exception.
        if href and is_local(href):
            raise
        redacted = redact(strip_token_parameters(href)) or "a document without a URL"
        if isinstance(error, pystac.STACTypeError):
            raise NotSTACError(
                f"{redacted}: {_kind_of(document)} came, which is not what was requested ({error}) "
                "Check the URL, or read it with pystac.read_file.",
                url=redacted,
            ) from error
        raise InvalidResponseError(
            f"{redacted}: pystac cannot make an object of it "
            f"({type(error).__name__}: {error}). The maintainer of the catalog has to correct it.",
            url=redacted,
        ) from error


def keep_stac_io(found: pystac.STACObject, stac_io: pystac.StacIO) -> None:
    """Let an object resolve its links with the reader that it was read through."""
    found._stac_io = stac_io  # type: ignore[attr-defined]  # declared by its subclasses only


_MATERIALIZED = "_stac_gitlab_materialized"


def mark_materialized(catalog: pystac.Catalog) -> None:
    """Mark a catalog as one whose items are all linked, so that no endpoint is asked for them."""
    setattr(catalog, _MATERIALIZED, True)


def is_materialized(catalog: pystac.Catalog) -> bool:
    """Return whether the catalog was marked as one whose items are all linked."""
    return getattr(catalog, _MATERIALIZED, False)


def make_own_root(found: pystac.STACObject, href: str) -> None:
    """Make a landing page its own root, even if its root link has one more slash."""
    link = found.get_root_link() if isinstance(found, pystac.Catalog) else None
    if link is None or link.is_resolved():
        return
    if (link.get_absolute_href() or "").rstrip("/") == href.rstrip("/"):
        found.set_root(cast("pystac.Catalog", found))


def check_feature(feature: Any, *, url: str) -> None:
    """Raise InvalidResponseError unless a page lists an item that pystac can read, with an id."""
    if not isinstance(feature, dict):
        raise InvalidResponseError(f"{url}: the page lists something that is no object.", url=url)
    if feature.get("type") != "Feature":
        raise InvalidResponseError(
            f"{url}: the page lists {_kind_of(feature)}, not an item.", url=url
        )
    if not is_id(feature.get("id")):
        raise InvalidResponseError(
            f"{url}: the page lists an item whose id is no text. The maintainer of the catalog has "
            "to correct it.",
            url=url,
        )
    check_stac(with_version(feature), url=url, listed=True)


def check_collection(listed: Any, *, url: str) -> None:
    """Raise InvalidResponseError unless pystac can read what ``/collections`` lists."""
    if not isinstance(listed, dict):
        raise InvalidResponseError(f"{url}: the list holds something that is no object.", url=url)
    check_stac(with_version(listed), url=url, listed=True)


def id_of(feature: Any) -> Any:
    """Return the id of a feature of any shape, or None."""
    return feature.get("id") if isinstance(feature, Mapping) else None


def _kind_of(document: Mapping[str, Any]) -> str:
    kind, name = document.get("type"), document.get("id")
    if not isinstance(kind, str):
        return "JSON that is not STAC"
    return f"a {kind}" + (f" (id {name!r})" if isinstance(name, str) else "")


def items_url_of(catalog: pystac.Catalog) -> str | None:
    """Return the absolute URL of a catalog's items endpoint, if it has one."""
    for link in catalog.get_links("items"):
        # Servers offer the items in several formats, such as HTML.
        media_type = str(link.media_type or "").partition(";")[0].strip().lower()
        if media_type in ("", "application/json") or media_type.endswith("geo+json"):
            return link.get_absolute_href()
    return None


def item_of(document: dict[str, Any], stac_io: pystac.StacIO, url: str) -> pystac.Item:
    """Return the item that `document`, which came from `url`, describes."""
    with explain_pystac_errors(url, document):
        item = item_from(with_version(document))
    keep_stac_io(item, stac_io)
    return item


def collection_of(document: dict[str, Any], stac_io: pystac.StacIO, url: str) -> pystac.Collection:
    """Return the collection that `document`, which came from `url`, describes."""
    with explain_pystac_errors(url, document):
        collection = pystac.Collection.from_dict(with_version(document), preserve_dict=False)
    keep_stac_io(collection, stac_io)
    return collection


def collections_url_of(catalog: pystac.Catalog) -> str | None:
    """Return the absolute URL of the list of collections, if a catalog has one."""
    link = catalog.get_single_link("data")
    return None if link is None else link.get_absolute_href()


class ItemRelations:
    """The relations that the items of one collection have in common."""

    def __init__(self, catalog: pystac.Catalog) -> None:
        self._catalog = catalog
        self._is_collection = isinstance(catalog, pystac.Collection)
        self._root = root_of(catalog)

    def attach(self, item: pystac.Item) -> pystac.Item:
        """Set parent, root and collection of an item, without a request.

        ``Item.set_root`` would add the item to the cache of the root, which would then keep all
        items of a walk in memory.
        """
        own = [] if self._root is None else [Link.root(self._root).set_owner(item)]
        own.append(Link.parent(self._catalog).set_owner(item))
        replaced = [link.rel for link in own]
        item.links = [*(link for link in item.links if link.rel not in replaced), *own]
        for link in item.links:
            if self._is_collection and link.rel == pystac.RelType.COLLECTION:
                link.target = self._catalog
        return item


def root_of(catalog: pystac.Catalog) -> pystac.Catalog | None:
    """Return the root of a catalog; None if it cannot be read."""
    try:
        return catalog.get_root()
    except pystac.STACError as error:
        # A token may give access to a catalog, but not to its root.
        logger.info("The root of %s cannot be read, its items go without: %s", catalog, error)
        return None


_RELATIVES = frozenset({"parent", "collection", "root"})


def known_relative(link: Link, owner: pystac.STACObject) -> pystac.STACObject | None:
    """Return the target of a link to a parent, collection or root, if another link has read it."""
    href = link.get_absolute_href() if link.rel in _RELATIVES else None
    for other in owner.links if href is not None else ():
        known = other.target if other.rel in _RELATIVES and other.is_resolved() else None
        if isinstance(known, pystac.STACObject) and known.get_self_href() == href:
            return known
    return None
