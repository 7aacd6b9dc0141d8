"""The pages of a STAC API, followed as its specification says.

A ``next`` link is followed verbatim. It may be relative, and may have a method, headers and a body.
Empty pages do not end a listing. Repeated pages end it with an error. The next page is fetched in
the background while the caller works on the current one, if the server takes noticeable time.

Source: STAC API specification, "Paging" (item-search and ogcapi-features).
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

from stac_gitlab.auth import Origin
from stac_gitlab.errors import IncompleteListingWarning, InvalidResponseError
from stac_gitlab.http.deadline import Deadline, enforcing
from stac_gitlab.redaction import CREDENTIAL_HEADERS, canonical_name, quoted, redact
from stac_gitlab.settings import Limits, pause

T = TypeVar("T")
_USUAL = Limits()
# Seconds. If a page takes less, for example on the same machine, a thread that fetches the next one
# costs more time than it saves.
LONG_WAIT = 0.003
_TIME_TO_SEND = 0.001
# Items repeat if their order changes between two pages, so repeats are close to each other.
REMEMBERED_IDS = 20_000
# Headers that a `next` link may not set: credentials, framing, routing, the method, the path or the
# user that a request stands for, and the encodings that this package can decode.
_RESERVED_HEADERS = CREDENTIAL_HEADERS | {
    *("connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"),
    *("host", "proxy-authorization", "proxy-connection"),
    *("x-http-method", "x-http-method-override", "x-method-override", "x-original-method"),
    *("x-original-url", "x-rewrite-url", "forwarded", "sudo"),
    *(f"x-forwarded-{name}" for name in ("for", "host", "port", "prefix", "proto", "server")),
    "accept-encoding",
}
# RFC 9110: a token, and visible Latin-1.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[!-~\u00a0-\u00ff](?:[ -~\t\u00a0-\u00ff]*[!-~\u00a0-\u00ff])?)?")


@dataclass(frozen=True)
class PageRequest:
    """The request for a page.

    Attributes:
        href: The URL.
        method: GET or POST.
        headers: More headers. None of them is a secret.
        body: What to send as JSON.
        write_origin: The origin that gets secrets with a POST; see ``GitLabSession.fetch``.
    """

    href: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    write_origin: Origin | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        """A text that is equal for equal requests."""
        parts = [self.method, self.href, sorted(self.headers.items()), self.body]
        return json.dumps(parts, sort_keys=True, default=str)

    def followed_by(self, link: Mapping[str, Any], *, page_url: str) -> PageRequest:
        """Return the request that a ``next`` link of the response to this one describes.

        Args:
            link: The link.
            page_url: Where the page came from; relative hrefs are relative to it.

        Raises:
            InvalidResponseError: If the link cannot be followed.
        """
        method = str(link.get("method") or "GET").upper()
        href, headers, body = link.get("href"), link.get("headers") or {}, link.get("body")
        if not isinstance(href, str) or not href:
            raise _broken_link(page_url, "without an href.")
        if method not in ("GET", "POST"):
            raise _broken_link(
                page_url, f"with the method {method!r}; pages are asked for with GET or POST."
            )
        if not isinstance(headers, Mapping) or not (body is None or isinstance(body, Mapping)):
            raise _broken_link(page_url, "whose headers or body is not an object.")
        try:
            href = urljoin(page_url, href)
        except ValueError as error:
            raise _broken_link(page_url, f"that is no URL ({error}).") from None
        if Origin.of(href) is None:
            raise _broken_link(
                page_url, f"to {quoted(redact(href))}, which is not a URL to request."
            )
        sent = _sendable(headers, page_url)
        if method == "POST" and not self._may_lead_to_post(href, page_url):
            raise _broken_link(
                page_url,
                "with a POST to another address. It is not sent: with our token it could change "
                "something there.",
            )
        if link.get("merge"):
            sent = {**self.headers, **sent}
            body = {**(self.body or {}), **(body or {})} if method == "POST" else None
        elif method == "GET":
            body = None
        elif body is None:
            # The position is in the headers alone, and the body stays as it is.
            body = self.body
        # After a redirect to another origin, the page is not from the server that was asked.
        is_own_page = Origin.of(page_url) == Origin.of(self.href)
        return PageRequest(href, method, sent, body, Origin.of(href) if is_own_page else None)

    def _may_lead_to_post(self, href: str, page_url: str) -> bool:
        """Return whether a page may trigger a POST to `href`: only at its own origin.

        The response to a GET may be a file that anyone wrote, so the path has to be the same, too.
        The response to a POST comes from the API, unless a redirect led to another server.
        """
        origin = Origin.of(page_url)
        is_from_api = self.method == "POST" and Origin.of(self.href) == origin
        is_same_path = urlsplit(href).path == urlsplit(page_url).path
        return Origin.of(href) == origin and (is_from_api or is_same_path)


def _broken_link(page_url: str, problem: str) -> InvalidResponseError:
    redacted = redact(page_url)
    return InvalidResponseError(f"{redacted}: a next link {problem}", url=redacted)


def _sendable(headers: Mapping[str, Any], page_url: str) -> dict[str, str]:
    """Return the headers of a ``next`` link that a server may set."""
    sent = {
        str(name): ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in headers.items()
        if canonical_name(str(name)) not in _RESERVED_HEADERS
    }
    for name, value in sent.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise _broken_link(page_url, f"with a header that cannot be sent ({name[:80]!r}).")
    return sent


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        url: The URL that it came from.
        document: The JSON object.
        etag: Its entity tag, if it has one.
        request: The request that it came for, if that is another than the one asked for.
    """

    url: str
    document: Mapping[str, Any]
    etag: str | None = None
    request: PageRequest | None = None

    @cached_property
    def redacted_url(self) -> str:
        """The URL for people to read."""
        return redact(self.url)

    def error(self, problem: str) -> InvalidResponseError:
        """Return the error for a problem with this page."""
        return InvalidResponseError(f"{self.redacted_url}: {problem}", url=self.redacted_url)

    def features(self, field_name: str = "features") -> list[Any]:
        """Return the list of the page, or raise InvalidResponseError if it has none."""
        listed = self.document.get(field_name)
        if not isinstance(listed, list):
            raise self.error(
                f"a page without a list of {field_name}. Is it the items endpoint of a STAC API?"
            )
        return listed

    def next_link(self) -> Mapping[str, Any] | None:
        """Return the link to the page that follows, or None on the last one."""
        links = self.document.get("links") or ()
        if not isinstance(links, (list, tuple)):
            raise self.error("a page whose links are no list.")
        return next((k for k in links if isinstance(k, Mapping) and k.get("rel") == "next"), None)


def number_matched(document: Mapping[str, Any]) -> int | None:
    """Return the total number of matches that a page names, under its new or its old name."""
    context = document.get("context")
    old = context.get("matched") if isinstance(context, Mapping) else None
    for count in (document.get("numberMatched"), old):
        if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
            return count
    return None


IsReadable = Callable[[Any, str], bool]
"""Whether an element of a list can be read; gets the element and the redacted URL of its page."""


def in_background(read: Callable[[], T], stop: threading.Event, *, name: str) -> Future[T]:
    """Call `read` in a thread of its own, and cancel it when `stop` is set."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            with enforcing(Deadline(stop=stop)):
                result.set_result(read())
        except BaseException as error:  # noqa: BLE001  # handed over to the caller, whatever it is
            result.set_exception(error)

    # A daemon thread: a slow server must not keep the interpreter from ending.
    threading.Thread(target=run, name=name, daemon=True).start()
    return result


@dataclass(frozen=True)
class _ReadAhead:
    """A request for the next page in a thread of its own, which a forked child does not have."""

    page: Future[Page]
    stop: threading.Event
    process: int = field(default_factory=os.getpid)


class Pages:
    """An iterator over pages, beginning with a request. Close it to stop early.

    Args:
        read: Reads one page.
        first: The request for the first page.
        field_name: The member of a page that is the list.
        limits: The number of consecutive empty pages.
        known_gaps: Hashes of what is not warned about again: listings that end before the number
            of elements that the server states. Some servers count deleted items for a while.
        page_size: The number of elements that were requested for a page, if known.

    Attributes:
        is_complete: Whether nothing so far tells that elements are missing.
    """

    def __init__(
        self,
        read: Callable[[PageRequest], Page],
        first: PageRequest,
        *,
        field_name: str = "features",
        limits: Limits = _USUAL,
        known_gaps: set[int] | None = None,
        page_size: int | None = None,
    ) -> None:
        self.is_complete = True
        self._read = read
        self._page_size = page_size
        self._first = first
        self._known_gaps = set() if known_gaps is None else known_gaps
        self._limits = limits
        self._upcoming: PageRequest | None = first
        self._field_name = field_name
        self._ahead: _ReadAhead | None = None
        self._asked: set[int] = set()
        self._last_ids: list[Any] | None = None
        # Hashes, which take less memory than ids. When `_seen` is full, it becomes `_seen_before`.
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()
        self._only_repeated = False
        self._empty = 0
        self._matched: int | None = None
        self._count = 0
        self._waited = 0.0

    def __iter__(self) -> Iterator[Page]:
        return self

    def __next__(self) -> Page:
        request = self._upcoming
        if request is None:
            raise StopIteration
        self._upcoming = None
        ahead, self._ahead = self._ahead, None
        is_under_way = ahead is not None and ahead.process == os.getpid()
        page = ahead.page.result() if ahead and is_under_way else self._timed(request)
        self._asked.add(hash(request.key))
        page = self._without_repeats(page)
        link = page.next_link()
        if link is not None:
            upcoming = (page.request or request).followed_by(link, page_url=page.url)
            if hash(upcoming.key) in self._asked:
                raise page.error(
                    "the next page is one that was already read. The server pages in circles; what "
                    "it lists is not complete."
                )
            self._upcoming = upcoming
        else:
            self._check_completeness(page)
        return page

    def close(self) -> None:
        """End the listing, and cancel the request that is under way."""
        self._upcoming = None
        if self._ahead is not None and self._ahead.process == os.getpid():
            self._ahead.stop.set()

    def listed(
        self, is_readable: IsReadable, *, limit: int | None = None
    ) -> Generator[Any, None, None]:
        """Yield the readable elements of all pages, and read one page ahead.

        Reading ahead begins with the second element: a caller that takes one element causes one
        request. A caller that stops early cancels the request that is under way.

        Args:
            is_readable: Decides which elements can be read.
            limit: The number of elements that the caller takes, if known. A page beyond them is
                not read ahead.
        """
        try:
            while self._upcoming is not None:
                yield from self._listed_next(is_readable, limit)
            self._check_only_page()
        finally:
            self.close()

    def _listed_next(self, is_readable: IsReadable, limit: int | None) -> Iterator[Any]:
        """Yield the elements of the next page, and release it before the one after it is read."""
        page = next(self)
        ahead = limit is None or self._count < limit
        for index, feature in enumerate(page.features(self._field_name)):
            if index == 1 and ahead:
                self.read_ahead()
            if is_readable(feature, page.redacted_url):
                yield feature

    def read_ahead(self) -> None:
        """Begin to fetch the next page, if the current one took noticeable time."""
        request = self._upcoming
        if request is None or self._ahead is not None or self._waited < LONG_WAIT:
            return
        stop = threading.Event()
        page = in_background(partial(self._timed, request), stop, name="stac-gitlab-page")
        self._ahead = _ReadAhead(page, stop)
        # The caller goes on computing. Without this, the request would be sent only when the
        # interpreter switches threads (a seventh more time for pages from afar).
        pause(_TIME_TO_SEND)

    def _timed(self, request: PageRequest) -> Page:
        """Read a page, and note how much of the time was spent waiting for it."""
        started = time.perf_counter() - time.thread_time()
        page = self._read(request)
        self._waited = time.perf_counter() - time.thread_time() - started
        return page

    def _without_repeats(self, page: Page) -> Page:
        """Return a page without what earlier pages listed."""
        listed = page.features(self._field_name)
        if self._matched is None:
            self._matched = number_matched(page.document)
        kept = [each for each in listed if self._is_new(each)]
        self._check_progress(page, listed, kept)
        self._count += len(kept)
        if len(kept) == len(listed):
            return page
        if self.is_complete:
            warnings.warn(
                f"{page.redacted_url}: this page repeats {len(listed) - len(kept)} "
                f"{self._field_name} of earlier pages. Repeats are left out. The order on the "
                "server may have changed between the pages, so that others may be missing.",
                IncompleteListingWarning,
                stacklevel=2,
            )
        self.is_complete = False
        return replace(page, document={**page.document, self._field_name: kept})

    def _is_new(self, listed: Any) -> bool:
        name = listed.get("id") if isinstance(listed, Mapping) else None
        if not isinstance(name, (str, int)):
            return True
        key = hash((str(listed.get("collection")), name))
        is_new = key not in self._seen and key not in self._seen_before
        if len(self._seen) >= REMEMBERED_IDS:
            self._seen, self._seen_before = set(), self._seen
        self._seen.add(key)
        return is_new

    def _check_progress(self, page: Page, listed: list[Any], kept: list[Any]) -> None:
        ids = [each.get("id") for each in listed if isinstance(each, Mapping)]
        is_same = bool(ids) and None not in ids and ids == self._last_ids
        is_repeated = bool(listed) and not kept
        if is_same or (is_repeated and self._only_repeated):
            like = "the same page as" if is_same else "a page that lists nothing new, like"
            raise page.error(
                f"{like} the one before. The server does not follow its own next links. What it "
                "lists is not complete."
            )
        self._last_ids, self._only_repeated = ids, is_repeated
        self._empty = 0 if listed else self._empty + 1
        if self._empty > self._limits.empty_pages:
            raise page.error(
                f"more than {self._limits.empty_pages} empty pages in a row. If you expect that, "
                "raise Limits(empty_pages=)."
            )

    def _check_completeness(self, last: Page) -> None:
        if self._matched is None or self._count >= self._matched:
            return
        self.is_complete = False
        self._warn_about_gap(
            f"{last.redacted_url}: the pages end after {self._count} {self._field_name}, but the "
            f"server states that {self._matched} match. The number may be an estimate, or the rest "
            "is missing: some servers never offer a next page."
        )

    def _check_only_page(self) -> None:
        """Warn if the only page is full, and nothing says that it is the last one.

        A server that has offered a ``next`` link before knows when to leave it out.
        """
        is_full = self._page_size is not None and self._count == self._page_size
        if is_full and len(self._asked) == 1 and self._matched is None:
            self._warn_about_gap(
                f"{redact(self._first.href)}: the only page holds {self._count} "
                f"{self._field_name}, as many as were requested, and the server gives neither a "
                "next link nor a count. There may be more: some servers do not page. Try another "
                "page_size."
            )

    def _warn_about_gap(self, text: str) -> None:
        """Warn about a listing that ends early, once."""
        gap = hash((self._first.key, self._count, self._matched))
        if gap not in self._known_gaps:
            self._known_gaps.add(gap)
            warnings.warn(text, IncompleteListingWarning, stacklevel=3)


def with_limit(url: str, page_size: int) -> str:
    """Return an items URL with a ``limit``, unless it has one of its own."""
    parts = urlsplit(url)
    if any(name == "limit" for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        return url
    query = f"{parts.query}&" if parts.query else ""
    return urlunsplit(parts._replace(query=f"{query}limit={page_size}"))


def with_parameters(url: str, parameters: Mapping[str, str | None]) -> str:
    """Return `url` with query parameters, which replace those of the same name; None removes."""
    parts = urlsplit(url)
    kept = [
        pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in parameters
    ]
    given = [(name, value) for name, value in parameters.items() if value is not None]
    # A plus is a space in a query, unless it is escaped; commas and colons are easier to read.
    query = urlencode([*kept, *given], quote_via=quote, safe=",:/")
    return urlunsplit(parts._replace(query=query))
