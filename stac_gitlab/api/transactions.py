"""Requests that create, replace, patch and delete, and reports about many of them.

A request that creates or patches is sent once, because after a lost response it is unknown whether
the server did it. Replacing and deleting are retried like reading. If the server sent an ETag, the
ETag is the condition of the change.

Source: STAC API extension Transaction; RFC 9110 (If-Match), RFC 7396 and RFC 6902 (patches).
"""

from __future__ import annotations

import collections
import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pystac

from stac_gitlab.auth import Origin
from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    InvalidResponseError,
    PermissionDeniedError,
    STACGitLabError,
)
from stac_gitlab.http.responses import Document, header_without_secret
from stac_gitlab.reading.documents import parse_json
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.reading.untrusted_links import secure_links
from stac_gitlab.redaction import redact, redact_document
from stac_gitlab.settings import expect, whole_number

OnConflict = Literal["error", "skip", "update"]
BulkStatus = Literal["created", "updated", "skipped", "failed"]
# Links that the server makes. Those of a client lead to where the object was read.
_LINKS_OF_THE_SERVER = frozenset(
    {"self", "root", "parent", "collection", "child", "item", "items", "canonical"}
)
_MAX_ETAGS = 100_000


@dataclass(frozen=True)
class BulkResult:
    """The result for one item of many.

    Attributes:
        id: The item's id, if it has one.
        status: ``created``, ``updated``, ``skipped`` (it existed) or ``failed``.
        error: The error of a failed item.
    """

    id: str | None
    status: BulkStatus
    error: Exception | None = None


@dataclass(frozen=True)
class BulkReport(Sequence[BulkResult]):
    """The results for many items, in the order in which they were given.

    Attributes:
        results: The same as a plain tuple.
    """

    results: tuple[BulkResult, ...] = ()

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        counts = collections.Counter(result.status for result in self.results)
        named = [f"{counts[s]} {s}" for s in ("created", "updated", "skipped", "failed")]
        return f"<BulkReport: {', '.join(named)}>"

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    @property
    def created(self) -> list[BulkResult]:
        """The items that were created."""
        return self._with("created")

    @property
    def updated(self) -> list[BulkResult]:
        """The items that replaced older ones."""
        return self._with("updated")

    @property
    def skipped(self) -> list[BulkResult]:
        """The items that existed, and were not changed."""
        return self._with("skipped")

    @property
    def failed(self) -> list[BulkResult]:
        """The items that could not be created or updated."""
        return self._with("failed")

    def _with(self, status: BulkStatus) -> list[BulkResult]:
        return [result for result in self.results if result.status == status]


class Writer:
    """Sends changes through a reader's session, and remembers ETags. Thread-safe.

    Args:
        stac_io: The reader whose session, tokens and retries are used.
        home: The landing page that the caller named. Nothing is changed at another origin.
    """

    def __init__(self, stac_io: GitLabStacIO, *, home: str) -> None:
        self._io = stac_io
        self._home = Origin.of(home)
        self._etags: collections.OrderedDict[str, str] = collections.OrderedDict()

    def saw(self, url: str, etag: str | None) -> None:
        """Remember the ETag of `url`, in place of the one before.

        A weak ETag is ignored, because If-Match compares strongly.
        """
        self._etags.pop(url, None)
        if etag and not etag.startswith("W/"):
            self._etags[url] = etag
            if len(self._etags) > _MAX_ETAGS:
                self._etags.popitem(last=False)

    def send(
        self,
        method: str,
        url: str,
        body: Any = None,
        *,
        media_type: str | None = None,
        if_match: str | None = None,
    ) -> dict[str, Any] | None:
        """Send a change, and return the object in the response, if there is one.

        Args:
            method: POST, PUT, PATCH or DELETE.
            url: The URL of the object, or of the list that it is added to.
            body: The JSON to send.
            media_type: Of the body, if it is not ``application/json``.
            if_match: The ETag that is the condition; by default one that was seen.

        Raises:
            ConflictError: If it exists already, or has changed since it was read.
            InvalidRequestError: If the server rejects the body.
            InvalidResponseError: If a link of the server leads to another origin. Nothing is sent.
            STACGitLabError: If the request fails in another way.
        """
        if self._home is None or Origin.of(url) != self._home:
            redacted = redact(url)
            raise InvalidResponseError(
                f"{method} {redacted}: not sent, because a link of {self._home} leads to another "
                "server. To change that server, open its own API with STACAPI.",
                url=redacted,
            )
        self._io.credentials.bind(url)
        headers = {"Content-Type": media_type} if media_type else {}
        if method != "POST":
            etag = if_match or self._etags.get(url)
            if etag is not None:
                headers["If-Match"] = etag
        made, etag = self._io.session.fetch(
            url,
            self._read,
            max_bytes=self._io.max_document_bytes,
            method=method,
            headers=headers,
            json=body,
            write_origin=self._home,
        )
        # The remembered ETag is out of date. The response to a POST belongs to another URL.
        self.saw(url, etag if method in ("PUT", "PATCH") else None)
        return made

    def _read(self, response: Document) -> tuple[dict[str, Any] | None, str | None]:
        """Return the object in a response, if there is one, and its ETag."""
        etag = header_without_secret("ETag", response.headers)
        redacted = redact(response.url)
        # The change has been made, so an empty or unreadable response is not an error.
        with contextlib.suppress(STACGitLabError):
            document = parse_json(response.body, url=redacted, limits=self._io.session.limits)
            if "id" in document and document.get("type") in ("Feature", "Collection"):
                document = redact_document(document, response.body, url=redacted)
                secure_links(document, url=response.url)
                return document, etag
        return None, etag


# -- what is sent -----------------------------------------------------------------------------


def item_document(item: pystac.Item | Mapping[str, Any], collection_id: str) -> dict[str, Any]:
    """Return an item without the links that the server makes.

    Raises:
        ConfigurationError: If it is no item, or one of another collection.
    """
    document = _document(item, "Feature")
    named = document.get("collection")
    if named is not None and named != collection_id:
        raise ConfigurationError(
            f"Item {document['id']!r} names the collection {named!r}, and was to go into "
            f"{collection_id!r}."
        )
    return {**document, "collection": collection_id}


def collection_document(collection: pystac.Collection | Mapping[str, Any]) -> dict[str, Any]:
    """Return a collection without the links that the server makes.

    Raises:
        ConfigurationError: If it is no collection.
    """
    return _document(collection, "Collection")


def patch_body(patch: Any) -> tuple[Any, str]:
    """Return a patch as it is sent, and its media type.

    Raises:
        ConfigurationError: If it is neither a JSON merge patch nor a JSON Patch.
    """
    if isinstance(patch, list):
        return patch, "application/json-patch+json"
    if isinstance(patch, Mapping):
        return dict(patch), "application/merge-patch+json"
    raise ConfigurationError(
        f"patch={patch!r}: give the fields to change in a dictionary, or a list of operations."
    )


def _document(thing: Any, kind: str) -> dict[str, Any]:
    described = f"A {type(thing).__name__}"
    if isinstance(thing, (pystac.Item, pystac.Collection)):
        # pystac resolves hierarchical links while it writes them, and fails where they have no
        # href; they would be left out anyway.
        bare = copy.copy(thing)
        bare.links = [link for link in thing.links if link.rel not in _LINKS_OF_THE_SERVER]
        document = bare.to_dict(include_self_link=False, transform_hrefs=False)
    elif isinstance(thing, Mapping):
        described = f"A dictionary with the id {thing.get('id')!r}"
        document = dict(thing)
        links = document.get("links") or []
        if isinstance(links, list):
            document["links"] = [
                link
                for link in links
                if not (isinstance(link, Mapping) and link.get("rel") in _LINKS_OF_THE_SERVER)
            ]
    else:
        raise ConfigurationError(f"{described} is neither a pystac object nor a dictionary.")
    name = document.get("id")
    if document.get("type") != kind or not isinstance(name, str) or not name:
        wanted = "item" if kind == "Feature" else "collection"
        raise ConfigurationError(f"{described} is no {wanted}: it needs the type {kind} and an id.")
    return document


# -- many -------------------------------------------------------------------------------------


def create_many(
    items: Iterable[Any],
    collection_id: str,
    create: Callable[[dict[str, Any]], object],
    update: Callable[[dict[str, Any]], object],
    *,
    on_conflict: OnConflict,
    max_workers: int,
) -> BulkReport:
    """Create items in several threads, taking them from an iterable as they are needed.

    Args:
        items: The items.
        collection_id: The collection that they go into.
        create: Sends a new item.
        update: Sends an item that exists.
        on_conflict: What to do with an item that exists.
        max_workers: Maximum number of concurrent requests.

    Raises:
        AuthenticationError: If the server does not accept the token.
        PermissionDeniedError: If the token does not allow this.
        ConfigurationError: If `max_workers` makes no sense.
    """
    expect("items", items, Iterable, wanted="an iterable of items")
    whole_number("max_workers", max_workers, least=1)
    if on_conflict not in get_args(OnConflict):
        raise ConfigurationError(
            f"on_conflict={on_conflict!r}: choose from {', '.join(get_args(OnConflict))}."
        )

    def send(document: dict[str, Any]) -> BulkStatus:
        try:
            create(document)
        except ConflictError as conflict:
            if on_conflict == "update":
                update(document)
                return "updated"
            if on_conflict == "skip" and conflict.status_code == 409:
                return "skipped"
            raise
        return "created"

    with ThreadPoolExecutor(max_workers, thread_name_prefix="stac-gitlab-create") as pool:
        requests = _Requests(pool, send)
        try:
            for place, document in _documents(items, collection_id):
                if isinstance(document, BulkResult):
                    requests.results[place] = document
                else:
                    requests.begin(place, document)
                    # The first request is sent alone. If the token is refused, no other is sent.
                    requests.wait_until_below(max_workers if requests.results else 1)
            requests.wait_until_below(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return BulkReport(tuple(result for _, result in sorted(requests.results.items())))


class _Requests:
    """The requests under way, and the results of the others, by place."""

    def __init__(
        self, pool: ThreadPoolExecutor, create: Callable[[dict[str, Any]], BulkStatus]
    ) -> None:
        self.results: dict[int, BulkResult] = {}
        self._pool = pool
        self._create = create
        self._under_way: dict[Future[BulkStatus], tuple[int, str]] = {}

    def begin(self, place: int, document: dict[str, Any]) -> None:
        self._under_way[self._pool.submit(self._create, document)] = (place, document["id"])

    def wait_until_below(self, count: int) -> None:
        while len(self._under_way) >= count:
            for future in wait(self._under_way, return_when=FIRST_COMPLETED).done:
                place, name = self._under_way.pop(future)
                try:
                    self.results[place] = BulkResult(name, future.result())
                except (AuthenticationError, PermissionDeniedError):
                    raise
                except STACGitLabError as error:
                    self.results[place] = BulkResult(name, "failed", error)


def _documents(
    items: Iterable[Any], collection_id: str
) -> Iterator[tuple[int, dict[str, Any] | BulkResult]]:
    seen: set[str] = set()
    for place, item in enumerate(items):
        try:
            document = item_document(item, collection_id)
        except ConfigurationError as error:
            name = item.get("id") if isinstance(item, Mapping) else getattr(item, "id", None)
            yield place, BulkResult(name if isinstance(name, str) else None, "failed", error)
            continue
        name = document["id"]
        if name in seen:
            twice = ConfigurationError(f"Item {name!r} occurs twice; the first one was sent.")
            yield place, BulkResult(name, "failed", twice)
            continue
        seen.add(name)
        yield place, document
