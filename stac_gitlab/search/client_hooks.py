"""All changes to pystac-client, and to pystac on its behalf, and errors that are its own, too.

The hooks act on what a ``GitLabStacApiIO`` has read, as those of ``reading.pystac_hooks`` do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import quote, urlsplit

import pystac
from pystac.item_collection import ItemCollection
from pystac_client import Client, CollectionClient, ConformanceClasses
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError

from stac_gitlab import errors
from stac_gitlab.errors import NotSTACError, STACGitLabError
from stac_gitlab.reading.documents import check_stac, with_version
from stac_gitlab.reading.objects import (
    OwnDocument,
    RemoteDocument,
    check_feature,
    explain_pystac_errors,
)
from stac_gitlab.reading.pystac_hooks import Hook, Stock, install
from stac_gitlab.reading.stac_io import reader_of
from stac_gitlab.redaction import redact

# -- errors -----------------------------------------------------------------------------------


def _also_api_error(cls: type[STACGitLabError]) -> type[STACGitLabError]:
    """Return a subclass that users of pystac-client catch as well."""
    made = type(cls.__name__, (cls, APIError), {"__doc__": cls.__doc__, "status_code": None})
    # pickle looks the class up by this name.
    made.__module__, made.__qualname__ = __name__, f"_API{cls.__name__}"
    globals()[made.__qualname__] = made
    return cast("type[STACGitLabError]", made)


_API_ERRORS: dict[type[STACGitLabError], type[STACGitLabError]] = {
    cls: _also_api_error(cls)
    for cls in vars(errors).values()
    if isinstance(cls, type)
    and issubclass(cls, STACGitLabError)
    and not issubclass(cls, errors.DownloadError)
    and cls is not STACGitLabError
}


@contextlib.contextmanager
def api_errors() -> Iterator[None]:
    """Raise each error as its subclass that is an ``APIError`` as well."""
    try:
        yield
    except STACGitLabError as error:
        cls = _API_ERRORS.get(type(error))
        if cls is None:
            raise
        both = cls.__new__(cls, *error.args)
        both.args = error.args
        both.__dict__.update(error.__dict__)
        raise both.with_traceback(error.__traceback__) from error.__cause__


class _NotAClientError(NotSTACError, APIError, ClientTypeError):
    """What was opened as a client is no catalog."""

    status_code = None


_NotAClientError.__name__ = NotSTACError.__name__


# -- hooks ------------------------------------------------------------------------------------


def _from_dict(stock: Stock, cls: Any, d: Any, *args: Any, **kwargs: Any) -> Any:
    """Explain why pystac cannot read a document; pystac-client calls ``from_dict`` itself."""
    if not isinstance(d, RemoteDocument):
        return stock(cls, d, *args, **kwargs)
    with api_errors(), explain_pystac_errors(d.url, d):
        check_stac(with_version(d), url=redact(d.url))
        return stock(cls, d, *args, **kwargs)


def _items_from_dict(stock: Stock, cls: Any, d: Any, *args: Any, **kwargs: Any) -> Any:
    features = d.get("features") if isinstance(d, dict) else None
    ours = [one for one in features or () if isinstance(one, RemoteDocument)]
    if not ours:
        return stock(cls, d, *args, **kwargs)
    with api_errors(), explain_pystac_errors(ours[0].url, d):
        for feature in ours:
            check_feature(feature, url=redact(feature.url))
        return stock(cls, d, *args, **kwargs)


def _client_from_dict(
    stock: Stock, cls: type[Client], d: Any, href: str | None = None, *args: Any, **kwargs: Any
) -> Any:
    try:
        return stock(cls, d, href, *args, **kwargs)
    except ClientTypeError:
        if not isinstance(d, (OwnDocument, RemoteDocument)):
            raise
        redacted = redact(href or "")
        raise _NotAClientError(
            f"{redacted}: a {d.get('type')} came, not the landing page of a STAC API. Open the "
            "landing page as the client, or read this with pystac.read_file.",
            url=redacted,
        ) from None


def _collections_href(stock: Stock, self: Client, collection_id: str | None = None) -> Any:
    if collection_id is not None and reader_of(self) is not None:
        collection_id = quote(collection_id, safe="")
    return stock(self, collection_id)


def _get_item(
    stock: Stock,
    self: CollectionClient,
    id: str,  # noqa: A002  # pystac-client names it
    recursive: bool = False,
) -> Any:
    stac_io = reader_of(self)
    is_by_url = not recursive and self.get_root().conforms_to(ConformanceClasses.FEATURES)
    if stac_io is None or not is_by_url:
        return stock(self, id, recursive)
    items_url = self._items_href()
    url = stac_io.session.dialect_of(items_url).item_url(items_url, id)
    own_path = f"{urlsplit(items_url).path.rstrip('/')}/"
    return stock(self, urlsplit(url).path.removeprefix(own_path), recursive)


CLIENT_HOOKS = (
    *(
        Hook(
            owner,
            "from_dict",
            _from_dict,
            "pystac-client makes objects by itself, and shows the KeyError of a broken document",
            "test_stock_pystac_fails_over_a_broken_document",
        )
        for owner in (pystac.Item, pystac.Catalog, pystac.Collection)
    ),
    Hook(
        ItemCollection,
        "from_dict",
        _items_from_dict,
        "pystac-client makes objects by itself, and shows the KeyError of a broken document",
        "test_stock_pystac_fails_over_a_broken_document",
    ),
    Hook(
        Client,
        "from_dict",
        _client_from_dict,
        "pystac-client raises an error that is no APIError",
        "test_stock_pystac_client_refuses_a_collection_with_a_foreign_error",
    ),
    Hook(
        Client,
        "_collections_href",
        _collections_href,
        "pystac-client writes an id into a URL as it is, and asks for another collection",
        "test_stock_pystac_client_writes_ids_into_urls_as_they_are",
    ),
    Hook(
        CollectionClient,
        "get_item",
        _get_item,
        "pystac-client writes an id into a URL as it is, and returns another item",
        "test_stock_pystac_client_writes_ids_into_urls_as_they_are",
    ),
)

install(CLIENT_HOOKS)
